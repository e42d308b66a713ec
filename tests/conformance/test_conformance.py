"""The registry times every invariant that is about the model."""

import itertools

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxgen.core import Model
from jaxgen.distributions import normal_log_prob, sum_event
from tests.conformance.invariants import INVARIANTS, NEEDED, applies
from tests.conformance.zoo import ENTRIES, Entry, grid, real


def case(name, entry):
    """An invariant and an entry, marked where the registry says that it fails: there it runs, and has to fail."""
    reason = entry.exceptions.get(name)
    marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
    return pytest.param(INVARIANTS[name], entry, marks=marks, id=f"{name}-{entry.name}")


@pytest.mark.parametrize(
    ("invariant", "entry"), [case(name, entry) for entry in ENTRIES for name in INVARIANTS if applies(name, entry)]
)
def test_invariant(invariant, entry):
    invariant(entry)


def test_exceptions_name_invariants_of_the_model():
    for entry in ENTRIES:
        assert set(entry.exceptions) <= {name for name in INVARIANTS if applies(name, entry)}


def diagonal_normal(dim: int) -> Model:
    """A seventh model, made here: independent normals."""

    def log_prob(params, x, cond=None):
        del cond
        return sum_event(normal_log_prob(x, params["mean"], params["log_scale"]))

    def sample(params, key, num, cond=None):
        del cond
        return params["mean"] + jnp.exp(params["log_scale"]) * jax.random.normal(key, (num, dim))

    return Model(
        init=lambda key, batch: ({"mean": jnp.zeros(dim), "log_scale": jnp.zeros(dim)}, ()),
        loss=lambda params, carry, key, batch: (-log_prob(params, batch.x).mean(), (carry, {})),
        sample=sample,
        log_prob=log_prob,
    )


CALLS = itertools.count()
SEVENTH = Entry("diagonal_normal", diagonal_normal(2), real(2), support=grid(12, 241))


@pytest.mark.parametrize("name", [name for name in INVARIANTS if applies(name, SEVENTH)])
def test_a_new_model_is_one_entry(name):
    INVARIANTS[name](SEVENTH)


def test_what_an_invariant_is_not_about_is_what_the_model_lacks():
    """A density alone has nothing to be bounded; without a support it is not known where it should be one."""
    left_out = lambda entry: {name for name in INVARIANTS if not applies(name, entry)}  # noqa: E731
    assert left_out(SEVENTH) == {"bound_below_log_prob"}
    assert left_out(SEVENTH._replace(support=None)) == {"bound_below_log_prob", "normalised"}
    samples_alone = SEVENTH._replace(model=SEVENTH.model._replace(log_prob=None))
    assert left_out(samples_alone) == set(NEEDED)


def test_the_invariants_can_fail():
    """Each finds a model that is wrong in one way."""
    good = diagonal_normal(2)
    scaled = lambda factor: lambda *args: (factor * good.loss(*args)[0], good.loss(*args)[1])  # noqa: E731
    params = {"mean": jnp.zeros(2), "log_scale": jnp.array(0.0)}  # a weak type, which the first step makes strong
    ignores_its_key = lambda params, key, num, cond=None: good.sample(params, jax.random.key(0), num)  # noqa: E731
    wrong = {
        "normalised": good._replace(log_prob=lambda p, x, cond=None: good.log_prob(p, x) + 0.1),
        "examples_do_not_mix": good._replace(log_prob=lambda p, x, cond=None: good.log_prob(p, x - x.mean(0))),
        "gradients_are_finite": good._replace(loss=scaled(0.0)),
        "compiles_once": good._replace(init=lambda key, batch: (params, ())),
        "purity": good._replace(sample=ignores_its_key),
        "vmap_over_keys": good._replace(loss=lambda *args: scaled(1 + next(CALLS))(*args)),
        "shapes": good._replace(log_prob=lambda p, x, cond=None: good.log_prob(p, x).sum()),
    }
    for name, model in wrong.items():
        with pytest.raises(AssertionError):
            INVARIANTS[name](Entry("broken", model, real(2), support=grid(12, 241)))


def test_a_density_that_is_wrong_only_away_from_its_start_is_found():
    """A tenth of a log-determinant that is zero at the start, where training leaves it."""
    good = diagonal_normal(2)
    wrong = good._replace(log_prob=lambda p, x, cond=None: good.log_prob(p, x) + 0.1 * p["log_scale"].sum())
    with pytest.raises(AssertionError):
        INVARIANTS["normalised"](Entry("broken", wrong, real(2), optax.set_to_zero(), support=grid(12, 241)))
    INVARIANTS["normalised"](Entry("unmoved", wrong, real(2), optax.set_to_zero(), support=grid(12, 241), noise=0.0))


def test_gradients_that_are_not_finite_are_found():
    good = diagonal_normal(2)
    broken = good._replace(loss=lambda *args: (jnp.sqrt(0 * good.loss(*args)[0]), good.loss(*args)[1]))
    with pytest.raises(AssertionError):
        INVARIANTS["gradients_are_finite"](Entry("broken", broken, real(2)))
