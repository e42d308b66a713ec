"""An encoder-decoder transformer of the size of Transformer-Tiny (4 + 4 layers of 128) that translates Multi30k.

    python -m experiments.train translator_multi30k --dropout 0.0 --steps 3000 --workdir runs/de_en
    python -m experiments.train translator_multi30k --data multi30k_en_de --dropout 0.0 --steps 3000 --workdir runs/ende
    python -m experiments.sample runs/de_en --source "Ein Hund rennt durch den Schnee."
    python -m experiments.evaluate runs/de_en --set decoder=draw top_p=0.9

Needs `pip install -e '.[text]'`. German to English in 40 minutes on one shared core of an AMD EPYC: BLEU 33.1 by beam
search and 31.0 greedy on test_2016_flickr (sacrebleu, tok:13a, case:mixed), 2.07 nats per token; English to German in
some 30 minutes: BLEU 29.3 by beam search (RESULTS.md). Small Transformers trained to the end are published at about 40
(https://arxiv.org/abs/2105.14462).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import bleu, config, decoders, trained
from experiments.config import Evaluation, Experiment
from experiments.data import Dataset, Split
from experiments.data.translation import END
from experiments.errors import UserError
from jaxgen.core import Model
from jaxgen.distributions import categorical_conditional
from jaxgen.models.autoregressive.autoregressive import autoregressive, search
from jaxgen.nets import causal
from jaxgen.nets.transformer_blocks import GPT2, MODERN
from jaxgen.nets.translator import Translator
from jaxgen.types import Batch

SAMPLING_FIELDS = ("decoder", "num_beams", "length_power", "temperature", "top_k", "top_p")


@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    """An encoder-decoder transformer of tokens."""

    data: str = "multi30k_de_en"
    """Data set of translations; `--help` lists them."""
    conditional: bool = True
    """Condition on the source; a translator has to."""
    steps: int = 4000
    """Number of training steps in all (a resumed run goes on to this number)."""
    batch_size: int = 64
    """Pairs per step, over all devices."""
    learning_rate: float = 2e-3
    """Largest step size of Adam, reached after `warmup` steps, from where it falls to 0 along a half cosine."""
    warmup: int = 400
    """Steps over which the step size grows from 0."""
    ema_decay: float = 0.995
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
    width: int = 128
    """Features of a token."""
    depth: int = 4
    """Number of blocks of the encoder, and of the decoder."""
    hidden: int = 256
    """Hidden features of the perceptrons."""
    num_heads: int = 4
    """Heads of the attention."""
    dropout: float = 0.1
    """Share of features that are dropped in training."""
    smoothing: float = 0.1
    """Share of the probability that the training's targets spread over all tokens alike."""
    modern: bool = False
    """Root mean square norm, rotary positions and SwiGLU in place of GPT-2's layout."""
    decoder: str = "beam"
    """How translations are chosen: beam, greedy (the most probable token), or draw."""
    num_beams: int = 4
    """Texts that beam search keeps."""
    length_power: float = 1.0
    """Beam search compares ln p divided by the length to this power."""
    temperature: float = 1.0
    """Draws are from logits divided by this."""
    top_k: int = 0
    """Draws are from so many most probable tokens; 0 for all."""
    top_p: float = 1.0
    """Draws are from the most probable tokens of this much probability."""
    log_every: int = 100
    """Steps between two lines of metrics."""


def _optimizer(config: Config) -> optax.GradientTransformation:
    """Adam of gradients that are clipped, of a sentence: to about 1 for each of its tokens."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, min(config.warmup, config.steps - 1), max(config.steps, 2), 0.0
    )
    return optax.chain(optax.clip_by_global_norm(20.0), optax.adam(rate, b2=0.98))


def _nats(net: Translator, params: Any, x: Any, cond: Any, key: Any, smoothing: float) -> tuple[Any, Any, Any]:
    """Sums over the tokens of a text with its end: of -ln p, of what training minimises, and their number."""
    logits = causal.outputs(net, params, x, cond, key)
    total, target = jax.nn.logsumexp(logits, axis=-1), x[..., None] == jnp.arange(logits.shape[-1])
    nats = total - jnp.where(target, logits, 0.0).sum(-1)
    spread = total - logits.mean(-1)
    there = jnp.concatenate([jnp.ones_like(x[:, :1]), x[:, :-1] != END], axis=1)
    smoothed = (1 - smoothing) * nats + smoothing * spread
    return (nats * there).sum(1), (smoothed * there).sum(1), there.sum(1)


def smoothed(model: Model, net: Translator, amount: float) -> Model:
    """The model with a loss whose targets are spread, by a share of them, over all tokens.

    Source: Rethinking the Inception Architecture for Computer Vision, https://arxiv.org/abs/1512.00567, section 7.
    """

    def loss(params: Any, carry: Any, key: Any, batch: Batch) -> tuple[Any, tuple[Any, Any]]:
        nats, minimised, num = _nats(net, params, batch.x.astype(jnp.int32), batch.cond, key, amount)
        return minimised.mean(), (carry, {"nats_per_token": nats.mean() / num.mean()})

    return model._replace(loss=loss)


def _per_token(net: Translator) -> Evaluation:
    """Nats of all texts by their tokens, and the standard error of this ratio."""

    def compute(params: Any, key: Any, dataset: Dataset, split: Split) -> tuple[float, float]:
        del key, dataset
        measure = lambda params, key, x, cond: _nats(net, params, x, cond, None, 0.0)  # noqa: E731
        nats, _, num = trained.over_batches(measure, params, split, seed=0)
        ratio = nats.sum() / num.sum()
        return float(ratio), float(np.std(nats - ratio * num) / num.mean() / np.sqrt(len(num)))

    how = "exact, of the tokens of the target and its end, given the source"
    return Evaluation(compute, "nats per token", how, "lower")


def _translate(config: Config, net: Translator, length: int, choose: Callable[..., Any]) -> Callable[..., Any]:
    """The `sample` of a model by the decoder that was asked for."""
    if config.decoder != "beam":
        conditional = categorical_conditional(net.num_tokens, choose=choose)
        return autoregressive(net, (length,), conditional, end=END).sample
    options = {"num_beams": config.num_beams, "length_power": config.length_power}
    searched = search(net, length, end=END, **options)  # type: ignore[arg-type]

    def sample(params: Any, key: Any, num: int, cond: Any = None) -> Any:
        del key
        return searched(params, num, cond)[0][:, 0]

    return sample


def _source_length(config: Config, dataset: Dataset) -> int:
    """Tokens of a source; refuses what cannot be translated, and flags out of range."""
    cond, texts = dataset.train.cond, dataset.texts
    if cond is None or cond.ndim != 2 or texts is None:
        raise UserError(f"a translator is of pairs of texts, and {dataset.name} has none: pass --data multi30k_de_en")
    if not config.conditional:
        raise UserError("a translator needs its sources: pass --conditional True")
    if not 0 <= config.smoothing < 1 or not 0 <= config.dropout < 1:
        numbers = f"{config.smoothing} and {config.dropout}"
        raise UserError(f"--smoothing and --dropout must be from 0 to below 1, got {numbers}")
    if config.num_beams < 1 or config.length_power < 0:
        numbers = f"{config.num_beams} and {config.length_power}"
        raise UserError(f"--num-beams must be at least 1 and --length-power at least 0, got {numbers}")
    return cond.shape[1]


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the model of targets given sources, its optimiser, and BLEU of what is chosen from it."""
    source_length = _source_length(config, dataset)
    filters = {"temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p}
    choose = decoders.chooser(config.decoder, **filters)  # type: ignore[arg-type]
    length = dataset.train.x.shape[1]
    net = Translator(
        dataset.num_classes,
        dataset.num_levels,
        source_length,
        length,
        padding=END,
        width=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        hidden=config.hidden,
        style=MODERN if config.modern else GPT2,
        dropout=config.dropout,
    )
    model = autoregressive(net, (length,), categorical_conditional(dataset.num_levels), end=END)
    model = smoothed(model, net, config.smoothing)._replace(sample=_translate(config, net, length, choose))
    greedy = _translate(dataclasses.replace(config, decoder="greedy"), net, length, decoders.decode.greedy)
    beams = {"num_beams": config.num_beams, "length_power": config.length_power}
    how = decoders.said(config.decoder, **filters, **beams)  # type: ignore[arg-type]
    evaluations = {"cross-entropy": _per_token(net), "BLEU": bleu.evaluation(model.sample, how)}
    if config.decoder != "greedy":
        evaluations["BLEU, greedy"] = bleu.evaluation(greedy, "greedy")
    return Experiment(model, _optimizer(config), evaluations)
