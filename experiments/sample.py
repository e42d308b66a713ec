"""Draws samples from a trained run: a PNG and a .npz in DIR/samples, and a folder of wav files where they are sounds.

python -m experiments.sample DIR --num 64 [--seed 0] [--class 3] [--checkpoint best] [--from-data]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments import cli, grids, runs, texts, trained
from experiments.data import Dataset
from experiments.errors import UserError
from experiments.trained import Trained

__all__ = ["main"]

PROG = "python -m experiments.sample"


def parser() -> cli.Parser:
    """The flags."""
    parser = cli.Parser(PROG, description="Draws samples from a trained run: a PNG and a .npz in DIR/samples.")
    parser.add_argument("directory", metavar="DIR", help="run directory that experiments.train made")
    parser.add_argument("--num", type=int, default=64, help="number of samples")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise; the same seed gives the same samples")
    parser.add_argument(
        "--class",
        dest="label",
        type=int,
        default=None,
        metavar="LABEL",
        help="label of all samples, for a model trained with --conditional; default: 0, 1, 2, ... in every row",
    )
    parser.add_argument(
        "--source",
        nargs="+",
        metavar="TEXT",
        help="texts to translate, for a model of translations; default: the first ones of the test part",
    )
    parser.add_argument("--checkpoint", default="newest", metavar="WHICH", help=trained.CHECKPOINT_HELP)
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help=trained.SET_HELP)
    parser.add_argument("--parallel", choices=("jit", "pmap", "mesh"), help=trained.PARALLEL_HELP)
    parser.add_argument(
        "--from-data",
        action="store_true",
        help="start chains at test examples (Boltzmann machines): each picture is followed by where its chain ended",
    )
    return parser


def labels(model: Trained, num: int, label: int | None) -> np.ndarray | None:
    """Labels of the samples, or `None` for a model that takes none.

    Raises:
        UserError: if a label is asked for that the model does not know.
    """
    classes = model.run.dataset.num_classes
    if not trained.conditional(model.run):
        if label is not None:
            raise UserError(f"--class {label}: this run is not conditional (train it with --conditional)")
        return None
    if label is None:
        return np.arange(num, dtype=np.int32) % classes
    if not 0 <= label < classes:
        raise UserError(f"--class must be from 0 to {classes - 1}, got {label}")
    return np.full(num, label, np.int32)


def _told(dataset: Dataset, cond: np.ndarray | None) -> np.ndarray | None:
    """What samples of these labels are conditioned on."""
    if cond is None or dataset.sounds is None or dataset.sounds.conditions is None:
        return cond
    return dataset.sounds.conditions(cond)


def _chains(model: Trained, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Test examples, and where the chains that start there end."""
    from experiments import devices

    sample_from, test = model.run.experiment.sample_from, model.run.dataset.test
    if sample_from is None:
        raise UserError("--from-data: this model has no chains that could start at data")
    if num > len(test.x):
        raise UserError(f"--num must be at most the {len(test.x)} test examples with --from-data, got {num}")
    start = test.x[np.random.default_rng(seed).permutation(len(test.x))[:num]]
    step = lambda params, key, x, cond: sample_from(params, key, x)  # noqa: E731
    options = devices.compiler_options()
    return start, trained.over_batches(step, model.params, trained.Split(start), seed=seed, options=options)


def _write(directory: Path, stem: str, arrays: dict[str, np.ndarray], columns: int | None, dataset: Dataset) -> None:
    directory.mkdir(exist_ok=True)
    np.savez_compressed(directory / f"{stem}.npz", **arrays)  # type: ignore[arg-type]
    print(directory / f"{stem}.npz")
    x = arrays["x"]
    if "start" in arrays:
        x = np.stack([arrays["start"], x], axis=1).reshape(-1, *x.shape[1:])
    if dataset.sounds is not None:
        dataset.sounds.save(directory / stem, x, arrays.get("labels"))
        print(directory / stem)
    x, num_levels = dataset.seen(x)
    if grids.can_be_drawn(x):
        limits = grids.plane_limits(dataset.test.x)
        path = directory / f"{stem}.png"
        grids.save_picture(path, x, num_levels=num_levels, columns=columns, limits=limits)
        print(directory / f"{stem}.png")


def _translate(args: argparse.Namespace, model: Trained) -> int:
    """Translates own texts, which are printed, or those of the test part."""
    from experiments import devices

    if args.label is not None or args.from_data:
        raise UserError("--class and --from-data are not for a model of translations, which has --source")
    sources = texts.sources(model.run, args.num, args.source)
    placement, num = devices.placement(args.parallel), len(sources.cond)
    x = trained.draw(placement, model.run.experiment.model, model.params, num, seed=args.seed, labels=sources.cond)
    stem = "_".join([f"step{model.step:06d}", f"seed{args.seed}", f"num{num}", *args.set])
    stem += "_source" if args.source else ""
    page = texts.page(model.run.dataset, x, sources)
    print(page if args.source else "", end="")
    _write(model.run.directory / "samples", stem, {"x": x, "source": sources.cond}, None, model.run.dataset)
    path = model.run.directory / "samples" / f"{stem}.txt"
    runs.write_text(path, page)
    print(path)
    return 0


def main(argv: Sequence[str]) -> int:
    """Samples, and prints the names of the files.

    Raises:
        UserError: for bad input.
    """
    args = parser().parse(argv)
    if args.num < 1 or args.seed < 0:
        raise UserError(f"--num must be at least 1 and --seed at least 0, got {args.num} and {args.seed}")
    from experiments import devices

    devices.setup()
    model = trained.open_trained(args.directory, args.checkpoint, args.set)
    if texts.are_translated(model.run) or args.source:
        return _translate(args, model)
    cond = labels(model, args.num, args.label)
    stem = "_".join([f"step{model.step:06d}", f"seed{args.seed}", f"num{args.num}", *trained.stems(args.set)])
    if args.from_data:
        start, x = _chains(model, args.num, args.seed)
        arrays, stem = {"x": x, "start": start}, f"{stem}_from-data"
        columns: int | None = 2 * grids.num_columns(-(-args.num // 2))
    else:
        placement = devices.placement(args.parallel)
        told = _told(model.run.dataset, cond)
        x = trained.draw(placement, model.run.experiment.model, model.params, args.num, seed=args.seed, labels=told)
        arrays = {"x": x} if cond is None else {"x": x, "labels": cond}
        stem += "" if args.label is None else f"_class{args.label}"
        columns = model.run.dataset.columns if cond is not None and args.label is None else None
    _write(model.run.directory / "samples", stem, arrays, columns, model.run.dataset)
    return 0


if __name__ == "__main__":
    cli.run(main, PROG)
