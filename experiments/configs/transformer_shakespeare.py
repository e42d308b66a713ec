r"""A GPT of characters, tiny Shakespeare, of nanoGPT's CPU protocol: 4 layers of 128, context 64, 2000 steps of 12.

    python -m experiments.train transformer_shakespeare --workdir runs/transformer_shakespeare

About 5 minutes on one core of an AMD EPYC: 1.760 nats per character on the last tenth; nanoGPT's README reports 1.88.
The step size is three times nanoGPT's; with its own, `--learning_rate 1e-3`: 1.899, and 1.683 with `--modern True`.
RESULTS.md has the protocol. What nanoGPT trains on a GPU, to 1.47, is

    python -m experiments.train transformer_shakespeare --data shakespeare_256 --width 384 --depth 6 --num-heads 6 \
        --batch-size 64 --steps 5000 --learning-rate 1e-3 --dropout 0.2 --dtype bfloat16 --workdir runs/gpt

of which 333 steps were made here, in 21 seconds of an H100 besides two minutes to compile, in the modern layout and
float32: 1.568 nats per character. On two cores of an Intel Xeon with `--modern True --batch-size 32 --steps 1050
--learning-rate 2e-3` and `--parallel mesh` in float32: 1.481, in 56 minutes; on one of them with `--modern True
--batch-size 16 --steps 2600 --learning-rate 1.5e-3 --dtype bfloat16` and two flags of XLA (`benchmarks/README.md`):
1.476, the best checkpoint, in 63 minutes.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax

from experiments import checks, config, devices
from experiments.config import Evaluation, Experiment
from experiments.data import Dataset, Split
from experiments.errors import UserError
from jaxgen.distributions import categorical_conditional, categorical_log_prob
from jaxgen.models.autoregressive.autoregressive import autoregressive, complete
from jaxgen.nets import causal
from jaxgen.nets.transformer import Transformer
from jaxgen.nets.transformer_blocks import GPT2, MODERN


@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    """A decoder-only transformer of characters."""

    data: str = "shakespeare"
    """Data set of texts; `--help` lists them."""
    steps: int = 2000
    """Number of training steps in all (a resumed run goes on to this number)."""
    batch_size: int = 12
    """Examples per step, over all devices."""
    learning_rate: float = 3e-3
    """Largest step size of AdamW, reached after `warmup` steps, from where it falls to a tenth along a half cosine."""
    warmup: int = 100
    """Steps over which the step size grows from 0."""
    width: int = 128
    """Features of a character."""
    depth: int = 4
    """Number of blocks."""
    num_heads: int = 4
    """Heads of the attention."""
    dropout: float = 0.0
    """Share of features that are dropped in training."""
    modern: bool = False
    """Root mean square norm, rotary positions and SwiGLU in place of GPT-2's layout."""
    dtype: str = "float32"
    """Type of the products, float32 or bfloat16 (with the fused attention of a GPU); parameters are float32."""
    log_every: int = 100
    """Steps between two lines of metrics."""


def _optimizer(config: Config, length: int) -> optax.GradientTransformation:
    """AdamW as nanoGPT sets it: matrices decay, vectors do not; gradients are clipped to norm 1 per character."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, min(config.warmup, config.steps - 1), config.steps, config.learning_rate / 10
    )
    matrices = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    return optax.chain(optax.clip_by_global_norm(length), optax.adamw(rate, b2=0.99, weight_decay=0.1, mask=matrices))


def _next_character(net: Transformer) -> Evaluation:
    """The mean of -ln p over all characters of a window but the first."""

    @jax.jit
    def nats(params: Any, x: Any) -> Any:
        x = x.astype("int32")
        return -categorical_log_prob(x, causal.outputs(net, params, x, None))[:, 1:].mean(1)

    def compute(params: Any, key: Any, dataset: Dataset, split: Split) -> tuple[float, float]:
        del key, dataset
        values = np.concatenate([nats(params, split.x[i : i + 256]) for i in range(0, len(split.x), 256)])
        return float(values.mean()), float(values.std() / np.sqrt(len(values)))

    context = net.shape[0] - 1
    how = f"exact, each character given the 1 to {context} before it in its window; windows one after the other"
    return Evaluation(compute, "nats per character", how, "lower")


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the model of windows, its optimiser and the loss on the next character."""
    checks.unconditional(config, "this transformer")
    shape = dataset.train.x.shape[1:]
    if len(shape) != 1 or not dataset.num_levels:
        raise UserError(f"this transformer is of texts, and {dataset.name} has events of shape {shape}")
    net = Transformer(
        dataset.num_levels,
        shape,
        width=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        style=MODERN if config.modern else GPT2,
        dropout=config.dropout,
        dtype=checks.dtype(config),
        attention=devices.attend_fused,
    )
    density = shape, categorical_conditional(dataset.num_levels)
    return Experiment(
        autoregressive(net, *density),
        _optimizer(config, shape[0]),
        {"next character": _next_character(net)},
        complete=complete(net, *density),
    )
