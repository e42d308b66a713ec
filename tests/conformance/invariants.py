"""What every model obeys: functions of an entry of the zoo that assert one thing each."""

import pathlib
import tempfile
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from experiments import checkpoints
from experiments.config import Config, Experiment
from experiments.data import Dataset, Split
from experiments.runs import Run
from jaxgen.core import init_state, score, train_step
from tests.conformance.zoo import NUM, Entry
from tests.models.sequences import noisy

KEY = jax.random.key(0)


class Compiled(NamedTuple):
    """What the invariants of one model share, so that each function of it compiles once.

    Attributes:
        traced: one name for each time that `step` or a field was traced.
        step: the train step, `(state, batch) -> (state, metrics)`.
        fields: every field that the model defines, as a function of `(params, x, cond, key)`.
        states: the states before and after each of ten steps.
        metrics: the metrics of each step.
    """

    traced: list
    step: Any
    fields: dict
    states: list
    metrics: list


def counted(name, f, traced):
    """`f` compiled; `traced` grows whenever it is traced."""

    def call(*args):
        traced.append(name)
        return f(*args)

    return jax.jit(call)


def train(entry: Entry, step):
    """States before and after each of ten steps, and the metrics of each."""
    states, metrics = [jax.jit(lambda key: init_state(entry.model, entry.tx, key, entry.batch))(KEY)], []
    for _ in range(10):
        state, metric = step(states[-1], entry.batch)
        states.append(state)
        metrics.append(metric)
    return states, metrics


_COMPILED = {}


def shared(entry: Entry) -> Compiled:
    """Made once for each model, and kept until the next one asks: all of them together are gigabytes."""
    if entry.model not in _COMPILED:
        _COMPILED.clear()
        traced = []
        step = counted("step", train_step(entry.model, entry.tx, ema_decay=0.9), traced)
        calls = {name: counted(name, call, traced) for name, call in fields(entry).items()}
        if "decode" in calls:
            encode, decode = calls["encode"], counted("decode", entry.model.decode, traced)
            calls["decode"] = lambda params, x, cond, key: decode(params, encode(params, x, cond, key), cond)
        _COMPILED[entry.model] = Compiled(traced, step, calls, *train(entry, step))
    return _COMPILED[entry.model]


def compiled(entry: Entry):
    """`fields`, compiled."""
    return shared(entry).fields


def trained(entry: Entry, num_steps: int = 3):
    """State after a few steps, so that nothing is at its special initial value."""
    return shared(entry).states[num_steps]


def fields(entry: Entry):
    """Every field that a model defines, as an uncompiled function of `(params, x, cond, key)`."""
    model, calls = entry.model, {}
    for name in ("log_prob", "energy"):
        if (f := getattr(model, name)) is not None:
            calls[name] = lambda params, x, cond, key, f=f: f(params, x, cond)
    for name in ("log_weight", "elbo", "encode"):
        if (f := getattr(model, name)) is not None:
            calls[name] = lambda params, x, cond, key, f=f: f(params, key, x, cond)
    if model.score is not None:
        calls["score"] = lambda params, x, cond, key: model.score(params, x, jnp.full(x.shape[0], 0.3), cond)
    if model.encode is not None and model.decode is not None:
        calls["decode"] = lambda params, x, cond, key: model.decode(params, model.encode(params, key, x, cond), cond)
    calls["sample"] = lambda params, x, cond, key: model.sample(params, key, x.shape[0], cond)
    return calls


def shapes(entry: Entry):
    """Likelihoods are `[n]`, samples and scores are like x, and the loss is a finite scalar that keeps its carry."""
    params, (x, cond) = trained(entry).params, entry.batch
    for name, call in compiled(entry).items():
        value = call(params, x, cond, KEY)
        if name in ("log_prob", "energy", "log_weight", "elbo"):
            chex.assert_shape(value, (NUM,))
        elif name in ("score", "sample", "decode"):
            chex.assert_shape(value, x.shape)
        chex.assert_tree_all_finite(value)
    for state, metrics in zip(shared(entry).states[1:], shared(entry).metrics, strict=True):
        chex.assert_rank([*metrics.values()], 0)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, trained(entry, 0))
        chex.assert_tree_all_finite((state.carry, metrics))


def sample_type(entry: Entry):
    """Samples are integers where the data is, and reals where it is real."""
    x = compiled(entry)["sample"](trained(entry).params, *entry.batch, KEY)
    kinds = [jnp.issubdtype(a.dtype, jnp.floating) for a in (x, entry.batch.x)]
    assert kinds[0] == kinds[1]


def purity(entry: Entry):
    """The same key gives the same result; another key gives another sample."""
    params, (x, cond) = trained(entry).params, entry.batch
    for call in compiled(entry).values():
        chex.assert_trees_all_equal(call(params, x, cond, KEY), call(params, x, cond, KEY))
    sample = compiled(entry)["sample"]
    assert not np.array_equal(sample(params, x, cond, KEY), sample(params, x, cond, jax.random.key(1)))


def jit_equals_eager(entry: Entry):
    """Compiling changes nothing but the rounding."""
    params, (x, cond) = trained(entry).params, entry.batch
    for name, call in fields(entry).items():
        if name not in ("sample", "decode"):
            value = compiled(entry)[name](params, x, cond, KEY)
            chex.assert_trees_all_close(value, call(params, x, cond, KEY), rtol=2e-3, atol=2e-3)


def examples_do_not_mix(entry: Entry):
    """`vmap` of one example equals the batch, so likelihoods are of each example alone."""
    params, (x, cond) = trained(entry).params, entry.batch
    for name, call in fields(entry).items():
        if name in ("log_prob", "energy", "score"):
            single = jax.vmap(lambda x, cond, call=call: call(params, x[None], cond[None], KEY)[0])
            batched = compiled(entry)[name](params, x, cond, KEY)
            chex.assert_trees_all_close(jax.jit(single)(x, cond), batched, rtol=1e-4, atol=1e-4)


def vmap_over_keys(entry: Entry):
    """`vmap` of the loss over keys equals a loop of train steps."""
    state, step = trained(entry), shared(entry).step
    loss = lambda key: entry.model.loss(state.params, state.carry, key, entry.batch)[0]  # noqa: E731
    keys = jax.random.split(KEY, 3)
    single = [step(state._replace(key=key), entry.batch)[1]["loss"] for key in keys]
    own = jax.vmap(jax.random.fold_in, (0, None))(keys, state.step)
    np.testing.assert_allclose(jax.jit(jax.vmap(loss))(own), single, rtol=1e-4, atol=1e-4)


def gradients_are_finite(entry: Entry):
    """Gradients of the loss are finite at every step, and after a few some are not zero."""
    norms = np.array([metrics["grad_norm"] for metrics in shared(entry).metrics])
    assert np.all(np.isfinite(norms))
    assert norms[3] > 0


def compiles_once(entry: Entry):
    """No step after the first, and no sample with other parameters, labels or keys, is traced again."""
    (traced, step, calls, *_), (x, cond), state = shared(entry), entry.batch, trained(entry, 0)
    for repeat in range(3):
        state, _ = step(state, entry.batch)
        calls["sample"](state.params, x, jnp.roll(cond, repeat), jax.random.fold_in(KEY, repeat))
    assert [traced.count(name) for name in ("step", "sample")] == [1, 1]


def normalised(entry: Entry):
    """The density integrates, or the probability sums, to one; also with noise on parameters that started at zero."""
    params, (points, weights) = trained(entry).params, entry.support
    for label in range(3 if entry.conditional else 1):
        cond = jnp.full(points.shape[0], label)
        for moved in (params, noisy(params, entry.noise)):
            total = (weights * jnp.exp(jax.jit(entry.model.log_prob)(moved, points, cond))).sum()
            np.testing.assert_allclose(total, 1, atol=2e-3)


def bound_below_log_prob(entry: Entry):
    """The mean of the elbo, and of the log-weight, is at most the log-probability."""
    model, params, (x, cond) = entry.model, trained(entry).params, entry.batch
    exact = compiled(entry)["log_prob"](params, x, cond, KEY)
    for field in (model.elbo, model.log_weight):
        if field is not None:
            draws = jax.jit(jax.vmap(lambda key, f=field: f(params, key, x, cond)))(jax.random.split(KEY, 200))
            assert jnp.all(draws.mean(0) <= exact + 4 * draws.std(0) / jnp.sqrt(200) + 1e-3)


def score_is_the_gradient(entry: Entry):
    """The derived score equals differences of fourth order; of integers it is an error that says so."""
    model, params, (x, cond) = entry.model, trained(entry).params, entry.batch
    calls = compiled(entry)
    if "log_prob" in calls:
        log_density = lambda x: calls["log_prob"](params, x, cond, KEY)  # noqa: E731
    else:
        log_density = lambda x: -calls["energy"](params, x, cond, KEY)  # noqa: E731
    if not jnp.issubdtype(x.dtype, jnp.floating):
        with np.testing.assert_raises_regex(ValueError, str(x.dtype)):
            score(model)(params, x, cond)
        return
    direction = jax.random.normal(KEY, x.shape)
    near, far = (log_density(x + h * direction) - log_density(x - h * direction) for h in (1e-2, 2e-2))
    directional = (jax.jit(score(model))(params, x, cond) * direction).reshape(NUM, -1).sum(-1)
    np.testing.assert_allclose(directional, (8 * near - far) / 12e-2, rtol=2e-2, atol=2e-2)


def condition_matters(entry: Entry):
    """A conditional model gives other samples for other labels; an unconditional one ignores them."""
    params, (x, cond), sample = trained(entry, 10).params, entry.batch, compiled(entry)["sample"]
    same = np.array_equal(sample(params, x, cond, KEY), sample(params, x, (cond + 1) % 3, KEY))
    assert same != entry.conditional


def moving_average(entry: Entry):
    """The step's moving average equals the recursion written out by hand."""
    expected = trained(entry, 0).params
    for k in range(3):
        params, decay = trained(entry, k + 1).params, min(0.9, (1 + k) / (10 + k))
        expected = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * p, expected, params)
    chex.assert_trees_all_close(trained(entry, 3).ema_params, expected, rtol=1e-5, atol=1e-6)


def bits(leaf):
    """A leaf as an array that can be compared; a key becomes its data."""
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def resumes_bit_for_bit(entry: Entry):
    """A state that goes through a checkpoint, and trains on, equals one that was never saved, to the last bit."""
    split = Split(np.asarray(entry.batch.x), np.asarray(entry.batch.cond))
    dataset = Dataset(entry.name, split, split, split, num_levels=0, num_classes=3, protocol="")
    with tempfile.TemporaryDirectory() as directory:
        config = Config(batch_size=NUM)
        run = Run(pathlib.Path(directory), entry.name, config, Experiment(entry.model, entry.tx), dataset)
        before = trained(entry, 3)
        checkpoints.save(run, before)
        restored = checkpoints.restore_latest(run)
    chex.assert_trees_all_equal_dtypes(before, restored)
    step = shared(entry).step
    one, other = step(before, entry.batch), step(restored, entry.batch)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.array_equal(bits(a), bits(b))


INVARIANTS = {
    f.__name__: f
    for f in (
        shapes,
        sample_type,
        purity,
        jit_equals_eager,
        examples_do_not_mix,
        vmap_over_keys,
        gradients_are_finite,
        compiles_once,
        normalised,
        bound_below_log_prob,
        score_is_the_gradient,
        condition_matters,
        moving_average,
        resumes_bit_for_bit,
    )
}

NEEDED = {
    "jit_equals_eager": [("log_prob", "log_weight", "elbo", "energy", "score", "encode")],
    "examples_do_not_mix": [("log_prob", "energy", "score")],
    "normalised": [("log_prob",), ("support",)],
    "bound_below_log_prob": [("log_prob",), ("elbo", "log_weight")],
    "score_is_the_gradient": [("log_prob", "energy")],
}
"""Of each of these groups of fields, a model or its entry has to define one for an invariant to be about it."""


def applies(name: str, entry: Entry):
    """Whether an invariant is about a model: about the others it would assert nothing."""
    defined = {field for part in (entry.model, entry) for field, value in part._asdict().items() if value is not None}
    return all(defined.intersection(group) for group in NEEDED.get(name, []))
