"""WaveNet of spoken digits, a second at 8 kHz, by speaker and digit; and text-to-speech with `--data fsdd_text`.

    python -m experiments.classify fsdd_spectrograms --steps 600 --batch-size 64 --out recogniser.npz
    python -m experiments.train wavenet_fsdd --workdir runs/wavenet_fsdd
    python -m experiments.sample runs/wavenet_fsdd --num 60
    python -m experiments.evaluate runs/wavenet_fsdd --num 100 --set recogniser=recogniser.npz

About 24 minutes on one core of an Intel Xeon: 4.09 bits per sample of held-out takes, and 25 % of the digits that it
speaks are recognised, since without a text it guesses when a sound is over. With `--data fsdd_text --steps 3000`, 28
minutes on one core of an AMD EPYC: 4.08 bits and 71 %. With `--data fsdd_speakers --steps 1500`, 25 minutes: 4.39 bits
per sample of two speakers that were held out. With `--data fsdd_16bit_text --mixture 10 --steps 3000`, 15 minutes: 8.88
bits per sample of 16, and 69 % are recognised (8.61 and 67 % after 6000 steps); with `--data fsdd_16bit --mixture 10
--steps 1500`, 13 minutes, 9.20 bits and 15 %. No number of the same protocol is published; RESULTS.md has this one's.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import config, features, sounds
from experiments.config import Evaluation, Experiment
from experiments.data import Dataset, Split
from experiments.data.audio import FRAME, NUM_SYMBOLS
from experiments.errors import UserError
from jaxgen.core import Model
from jaxgen.distributions import Conditional, categorical_conditional, logistic_mixture, with_end
from jaxgen.models.autoregressive.autoregressive import autoregressive
from jaxgen.nets import causal
from jaxgen.nets.wavenet import WaveNet, ends
from jaxgen.samplers import decode
from jaxgen.types import Batch

SAMPLING_FIELDS = ("temperature", "recogniser")

_MOST_LEVELS, _AT_A_TIME, _SAMPLES = 1024, 10, 300
_MU, _LOG_SCALE = 255.0, -2.0
"""The mu-law for levels on the linear scale, and ln s at which a mixture starts on it, as wide as quiet speech."""


@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    """WaveNet of sounds."""

    data: str = "fsdd"
    """Data set of sounds; `--help` lists them."""
    steps: int = 3000
    """Number of training steps in all (a resumed run goes on to this number)."""
    batch_size: int = 8
    """Windows per step, over all devices."""
    learning_rate: float = 2e-3
    """Largest step size of Adam, which falls to 0 along a half cosine."""
    ema_decay: float = 0.99
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
    conditional: bool = True
    """Condition on the digit, and the speaker or the text where the data set has them."""
    window: int = 3200
    """Samples of a window in training, a multiple of 80."""
    burn: int = 400
    """Samples at the beginning of a window that do not count, where it does not begin with its sound."""
    width: int = 32
    """Features of a sample."""
    skip_width: int = 64
    """Features of what the layers give to the output."""
    cycle: int = 9
    """Layers of a cycle, of dilations 1, 2, 4 and so on."""
    cycles: int = 2
    """Number of cycles; the receptive field is cycles * (2^cycle - 1) + 1 samples."""
    mixture: int = 0
    """Components of a mixture of discretised logistics as the output, beside the end; 0 for a categorical one."""
    temperature: float = 1.0
    """Temperature of samples of a categorical output."""
    recogniser: str = ""
    """File of experiments.classify that scores the generated digits, made from fsdd_spectrograms; empty for none."""
    log_every: int = 100
    """Steps between two lines of metrics."""


def _companding(num_levels: int) -> float:
    """The mu of levels on the linear scale, of which there are many; 0 for those that went through the law before."""
    return _MU if num_levels > _MOST_LEVELS else 0.0


def _conditional(config: Config, num_levels: int) -> Conditional:
    """The density of a sample."""
    if config.mixture:
        if config.temperature != 1.0:
            raise UserError("--temperature is of categorical outputs: leave it at 1 with --mixture")
        least = -math.log(num_levels) - 1.5
        return with_end(
            logistic_mixture(
                num_levels - 1,
                config.mixture,
                min_log_scale=least,
                log_scale=_LOG_SCALE,
                companding=_companding(num_levels),
            )
        )
    if num_levels > _MOST_LEVELS:
        raise UserError(f"a categorical output of {num_levels} levels is too large: pass --mixture 10")
    return categorical_conditional(num_levels, choose=decode.draw_from(decode.temperature(config.temperature)))


def _ending(conditional: Conditional) -> Any:
    """`ending` of the end, which is the last level."""
    assert conditional.ending is not None
    return functools.partial(conditional.ending, end=conditional.num_levels - 1)


def _is_text(config: Config, dataset: Dataset) -> bool:
    cond = dataset.train.cond
    return config.conditional and cond is not None and cond.ndim == 2


def _net(config: Config, dataset: Dataset, conditional: Conditional) -> WaveNet:
    speakers = dataset.num_classes // 10
    many = (speakers,) if speakers > 1 else ()
    text = _is_text(config, dataset)
    return WaveNet(
        dataset.train.x.shape[1],
        dataset.num_levels,
        conditional.num_outputs,
        features=config.width,
        skip_features=config.skip_width,
        dilations=tuple(2**i for i in range(config.cycle)) * config.cycles,
        num_classes=() if not config.conditional else many if text else (*many, 10),
        num_local=NUM_SYMBOLS if text else 0,
        companding=_companding(dataset.num_levels),
        ending=_ending(conditional) if text else None,
    )


def _told(net: WaveNet, cond: Any) -> Any:
    """What the network is told: speaker and digit `[n, 2]` of labels; or the speaker, and its text as vectors."""
    if not (net.num_local or net.num_classes):
        return None
    cond = jnp.asarray(cond)
    if net.num_local:
        return cond[:, :1], jax.nn.one_hot(cond[:, 1:], NUM_SYMBOLS)
    return jnp.stack([cond // 10, cond % 10], -1)[:, -len(net.num_classes) :]


def _windowed(config: Config, net: WaveNet, conditional: Conditional, end: int) -> Any:
    """The loss: nats of the samples that count in a window of each sound, over the samples of a window.

    What follows an end is an end and costs nothing. Where ends may be is told by the text of the whole sound, not by
    what of it lies in the window.
    """
    short, ending = net.clone(length=config.window, ending=None), _ending(conditional)

    def loss(params: Any, carry: Any, key: Any, batch: Batch) -> Any:
        x, counts, same = sounds.windows(
            key, batch.x.astype(jnp.int32), width=config.window, hop=FRAME, burn=config.burn, end=end
        )
        told = _told(net, batch.cond)
        masks: dict[str, Any] = {}
        if net.num_local:
            found = (jnp.repeat(same(mask), FRAME, axis=1) for mask in ends(told[1]))
            masks, told = dict(zip(("certain", "impossible"), found, strict=True)), (told[0], same(told[1]))
        output = ending(causal.outputs(short, params, x, told), **masks)
        counts = counts & (jnp.arange(config.window) <= sounds.lengths(x, end)[:, None])
        terms = conditional.log_prob(x, output)
        nats = -jnp.where(counts, terms, 0).sum(-1).mean()
        samples = (counts & (x != end)).sum(-1).mean()
        return nats / config.window, (carry, {"bits_per_sample": nats / samples / np.log(2)})

    return loss


def _model(config: Config, net: WaveNet, conditional: Conditional, end: int) -> Model:
    """The model of whole sounds, trained on windows; its likelihood a few sounds at a time, for the memory's sake."""
    whole = autoregressive(net, (net.length,), conditional, end=end)
    assert whole.log_prob is not None
    exact = whole.log_prob

    def log_prob(params: Any, x: Any, cond: Any = None) -> Any:
        one = lambda row: exact(params, row[0][None], jax.tree.map(lambda leaf: leaf[None], row[1]))[0]  # noqa: E731
        return jax.lax.map(one, (x, _told(net, cond)), batch_size=_AT_A_TIME)

    return whole._replace(
        init=lambda key, batch: whole.init(key, Batch(batch.x, _told(net, batch.cond))),
        loss=_windowed(config, net, conditional, end),
        sample=lambda params, key, num, cond=None: whole.sample(params, key, num, _told(net, cond)),
        log_prob=log_prob,
    )


def _bits_per_sample(net: WaveNet, conditional: Conditional, end: int) -> Evaluation:
    """(2) of `experiments.sounds`."""

    @jax.jit
    def nats(params: Any, x: Any, cond: Any) -> Any:
        x = x.astype(jnp.int32)
        terms = conditional.log_prob(x, causal.outputs(net, params, x, _told(net, cond)))
        samples = sounds.lengths(x, end)
        return -jnp.where(jnp.arange(net.length) < samples[:, None], terms, 0).sum(-1), samples

    def compute(params: Any, key: Any, dataset: Dataset, split: Split) -> tuple[float, float]:
        del key, dataset
        assert split.cond is not None
        rows = range(0, len(split.x), _AT_A_TIME)
        parts = [nats(params, split.x[i : i + _AT_A_TIME], split.cond[i : i + _AT_A_TIME]) for i in rows]
        return sounds.ratio(*(np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True)))

    how = "exact, each sample given all before it in its recording, the first ones fewer than the receptive field; "
    how += "total bits over total samples; what follows a recording is not counted"
    return Evaluation(compute, "bits per sample", how, "lower")


def _recognised(config: Config, model: Model) -> Evaluation:
    """The share of generated sounds that a classifier takes for the digit they were asked to be."""
    classifier = features.read_classifier(config.recogniser)
    if classifier.meta["data"] != "fsdd_spectrograms":
        raise UserError(f"{config.recogniser} was trained on {classifier.meta['data']}, not on fsdd_spectrograms")
    apply = features.network(classifier.meta, classifier.params)

    def compute(params: Any, key: Any, dataset: Dataset, split: Split) -> tuple[float, float]:
        del split
        assert dataset.sounds is not None
        labels = np.arange(_SAMPLES, dtype=np.int32) % dataset.num_classes
        told = labels if dataset.sounds.conditions is None else dataset.sounds.conditions(labels)
        x = np.asarray(jax.jit(model.sample, static_argnums=2)(params, key, _SAMPLES, told))
        found = np.argmax(apply(np.float32(dataset.sounds.view(x)) / 255)[0], -1) == dataset.sounds.digits(labels)
        return float(found.mean()), float(found.std() / np.sqrt(_SAMPLES))

    how = f"{_SAMPLES} samples, every label as often; by a classifier of spectrograms (weights "
    how += f"{features.digest(classifier.params)}) that recognises {classifier.meta['test_accuracy']:.1%} of the "
    return Evaluation(compute, "share", f"{how}official test takes", "higher")


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the model of sounds, its optimiser and its own numbers."""
    if dataset.sounds is None:
        raise UserError(f"this WaveNet is of sounds, and {dataset.name} has none: pass --data fsdd")
    length = dataset.train.x.shape[1]
    if config.window % FRAME or not config.burn < config.window <= length or config.burn < 0:
        raise UserError(
            f"--window must be a multiple of {FRAME}, at most {length} and above --burn, got {config.window} and "
            f"{config.burn}"
        )
    conditional, end = _conditional(config, dataset.num_levels), dataset.num_levels - 1
    net = _net(config, dataset, conditional)
    model = _model(config, net, conditional, end)
    numbers = {"bits per sample": _bits_per_sample(net, conditional, end)}
    if config.recogniser and config.conditional:
        numbers["digits recognised"] = _recognised(config, model)
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return Experiment(model, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)), numbers)
