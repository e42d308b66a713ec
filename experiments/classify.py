"""Trains the small classifier in whose features samples are measured, and writes it to a file.

    python -m experiments.classify mnist --out mnist_classifier.npz [--steps 1500] [--seed 0]

The file is what `python -m experiments.evaluate DIR --features FILE` takes. Distances in different files' features do
not compare: the digest of the weights stands in every protocol.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import cli, features
from experiments.data import Dataset
from experiments.errors import UserError
from experiments.features import Classifier

__all__ = ["main", "train"]

PROG = "python -m experiments.classify"
NUM_FEATURES, LEARNING_RATE = 64, 1e-3


def parser() -> cli.Parser:
    """The flags."""
    parser = cli.Parser(PROG, description="Trains the small classifier in whose features samples are measured.")
    parser.add_argument("data", metavar="DATA", help="data set of labelled images, such as mnist")
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write, .npz")
    parser.add_argument("--steps", type=int, default=1500, help="training steps")
    parser.add_argument("--batch-size", type=int, default=128, help="examples per step")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and the batches")
    return parser


def train(dataset: Dataset, *, steps: int, batch_size: int, seed: int) -> Classifier:
    """Trains a classifier on the training part; the test part gives its accuracy.

    Args:
        dataset: labelled images.
        steps: training steps, at a step size that falls to 0 along a half cosine.
        batch_size: examples per step.
        seed: seed of the weights and of the batches.

    Raises:
        UserError: if the data has no labels or is no images.
    """
    if not dataset.num_classes or dataset.train.x.ndim != 4 or not dataset.num_levels:
        raise UserError(f"a classifier needs labelled images of integer levels, and {dataset.name} is something else")
    from experiments import data

    meta = {
        "data": dataset.name,
        "shape": list(dataset.train.x.shape[1:]),
        "num_levels": dataset.num_levels,
        "num_classes": dataset.num_classes,
        "num_features": NUM_FEATURES,
        "steps": steps,
        "seed": seed,
    }
    params, state, update = _start(meta, seed, steps)
    for step in range(steps):
        x, labels = data.batch(dataset, seed, step, batch_size)
        params, state = update(params, state, np.float32(x) / (dataset.num_levels - 1), labels)
    meta["test_accuracy"] = _accuracy(meta, params, dataset)
    return Classifier(params, meta)


def _start(meta: dict[str, Any], seed: int, steps: int) -> tuple[Any, Any, Callable[..., Any]]:
    """Parameters, state of the optimiser, and the compiled step."""
    import jax
    import jax.numpy as jnp
    import optax

    from experiments import devices
    from jaxgen.nets import pure
    from jaxgen.nets.classifier import ConvClassifier

    net = ConvClassifier(meta["num_classes"], meta["num_features"])
    tx = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))
    params = jax.jit(lambda key: pure.init(net, key, jnp.zeros((1, *meta["shape"]))))(jax.random.key(seed))

    def loss(params: Any, x: Any, labels: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(pure.apply(net, params, x)[0], labels).mean()

    def update(params: Any, state: Any, x: Any, labels: Any) -> tuple[Any, Any]:
        updates, state = tx.update(jax.grad(loss)(params, x, labels), state)
        return optax.apply_updates(params, updates), state

    return params, tx.init(params), jax.jit(update, compiler_options=devices.compiler_options())


def _accuracy(meta: dict[str, Any], params: Any, dataset: Dataset) -> float:
    apply, size = features.network(meta, params), 500
    found = [
        np.argmax(apply(np.float32(dataset.test.x[i : i + size]) / (dataset.num_levels - 1))[0], axis=-1)
        for i in range(0, len(dataset.test.x), size)
    ]
    return float(np.mean(np.concatenate(found) == dataset.test.cond))


def main(argv: Sequence[str]) -> int:
    """Trains, writes the file and prints what it is.

    Raises:
        UserError: for bad input.
    """
    args = parser().parse(argv)
    for name in ("steps", "batch_size"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    from experiments import data, devices

    devices.setup()
    classifier = train(data.load(args.data), steps=args.steps, batch_size=args.batch_size, seed=args.seed)
    try:
        digest = features.write_classifier(Path(args.out), classifier)
    except OSError as error:
        raise UserError(f"cannot write {args.out}: {error.strerror or error}") from error
    print(f"{args.out}: classifier of {args.data}, test accuracy {classifier.meta['test_accuracy']:.2%}, {digest}")
    return 0


if __name__ == "__main__":
    cli.run(main, PROG)
