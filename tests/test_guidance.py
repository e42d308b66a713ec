"""Guidance on mixtures whose conditional and unconditional scores are known; the scale is an argument."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxgen import paths
from jaxgen.core import Model, init_state, train_step
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.nets.time import TimeMLP
from jaxgen.nets.unet import UNet
from jaxgen.samplers.ddim import ddim
from jaxgen.transforms import classifier_free_guidance, classifier_guidance, drop_condition, resample
from jaxgen.types import Batch

KEY, PATH, NULL = jax.random.key(0), paths.cosine(), 2
WEIGHTS = np.array([0.3, 0.7])
MEANS, SCALES = np.array([[0.8, 0.3], [-0.6, -0.2]]), np.array([0.3, 0.5])


def log_joint(x, t):
    """ln p_t(x, y) for both classes `[n, 2]`: a normal each, weighted."""
    alpha, sigma = (scale[..., None] for scale in (PATH.alpha(jnp.asarray(t)), PATH.sigma(jnp.asarray(t))))
    spread = jnp.sqrt(alpha**2 * SCALES**2 + sigma**2)
    mean = alpha[..., None] * MEANS
    square = ((x[:, None] - mean) ** 2).sum(-1)
    return jnp.log(WEIGHTS) - 0.5 * square / spread**2 - 2 * jnp.log(spread) - jnp.log(2 * jnp.pi)


def log_marginal(x, t):
    return jax.scipy.special.logsumexp(log_joint(x, t), axis=-1)


def log_prob_of_label(x, t, cond):
    return jnp.take_along_axis(jax.nn.log_softmax(log_joint(x, t)), cond[:, None], 1)[:, 0]


def log_density(x, t, cond):
    """ln p_t(x | y), or ln p_t(x) where the label is the null label."""
    which = jnp.minimum(cond, 1)
    given = jnp.take_along_axis(log_joint(x, t) - jnp.log(WEIGHTS), which[:, None], 1)[:, 0]
    return jnp.where(cond == NULL, log_marginal(x, t), given)


def score(params, x, t, cond=None):
    cond = jnp.full(len(x), NULL) if cond is None else cond
    return params * jax.grad(lambda x: log_density(x, t, cond).sum())(x)


def exact_model(**fields):
    return Model(
        init=lambda key, batch: (jnp.ones(()), ()),
        loss=lambda params, carry, key, batch: (jnp.zeros(()), (carry, {"cond": batch.cond})),
        sample=lambda params, key, num, cond=None: jnp.zeros((num, 2)),
        score=score,
        **fields,
    )


def unconditional(model):
    return model._replace(score=lambda params, x, t, cond=None: score(params, x, t))


X, COND = jax.random.normal(jax.random.key(1), (6, 2)), jnp.array([0, 1, 0, 1, 0, 1])
TIMES = jnp.linspace(0.05, 0.95, 6)


@pytest.mark.parametrize("t", [0.3, TIMES], ids=["one time", "times"])
def test_score_is_the_gradient_of_the_product(t):
    """Of ln p_t(x) + w ln p_t(y|x), by autodiff: without a classifier, and with the exact one."""

    @jax.jit
    def scores(scale):
        expected = jax.grad(lambda x: (log_marginal(x, t) + scale * log_prob_of_label(x, t, COND)).sum())(X)
        free = classifier_free_guidance(exact_model(), PATH, null=NULL, scale=scale)
        bayes = classifier_guidance(unconditional(exact_model()), PATH, log_prob_of_label, scale=scale)
        return expected, free.score(1.0, X, t, COND), bayes.score(1.0, X, t, COND)

    for scale in (-1.0, 0.5, 3.0):
        expected, *found = scores(scale)
        for one in found:
            np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4)


def test_scales_of_one_and_zero():
    """1 is the conditional score and 0 the unconditional one, to the last bit; the exact classifier gives the first."""
    free = lambda scale: classifier_free_guidance(exact_model(), PATH, null=NULL, scale=scale)  # noqa: E731
    np.testing.assert_array_equal(free(1.0).score(1.0, X, 0.4, COND), score(1.0, X, 0.4, COND))
    np.testing.assert_array_equal(free(0.0).score(1.0, X, 0.4, COND), score(1.0, X, 0.4))
    bayes = classifier_guidance(unconditional(exact_model()), PATH, log_prob_of_label, scale=1.0)
    for t in (0.01, 0.5, 0.99):
        expected = score(1.0, X, t, COND)
        np.testing.assert_allclose(bayes.score(1.0, X, t, COND), expected, rtol=1e-4, atol=1e-4 * abs(expected).max())


def guided_freely(**options):
    return classifier_free_guidance(exact_model(), PATH, null=NULL, **options)


def guided_by_a_classifier(**options):
    return classifier_guidance(unconditional(exact_model()), PATH, log_prob_of_label, **options)


@pytest.mark.parametrize(
    ("guided", "label"), [(guided_freely, COND), (guided_by_a_classifier, None)], ids=["free", "classifier"]
)
def test_interval(guided, label):
    """Guided where low <= sigma / alpha <= high; elsewhere the score is the conditional one, or the model's own."""
    everywhere = guided(scale=3.0).score(1.0, X, TIMES, COND)
    within = guided(scale=3.0, interval=(0.3, 2.0))
    level = np.tan(0.5 * np.pi * np.asarray(TIMES))
    inside = (level >= 0.3) & (level <= 2.0)
    assert 0 < inside.sum() < 6
    expected = np.where(inside[:, None], everywhere, score(1.0, X, TIMES, label))
    np.testing.assert_allclose(within.score(1.0, X, TIMES, COND), expected, rtol=1e-5)


def test_samples_of_one_class():
    """With the exact classifier and scale 1 an unconditional model gives each class its own mean and spread."""
    model = classifier_guidance(unconditional(exact_model()), PATH, log_prob_of_label, scale=1.0)
    cond = jnp.repeat(jnp.arange(2), 4000)
    x = jax.jit(lambda key: model.sample(1.0, key, 8000, cond))(KEY).reshape(2, 4000, 2)
    np.testing.assert_allclose(x.mean(1), MEANS, atol=0.04)
    np.testing.assert_allclose(x.std(1), np.repeat(SCALES[:, None], 2, 1), rtol=0.06)


def test_a_large_scale_moves_samples_away_from_the_other_class():
    """The share of samples that the exact classifier gives to their class rises with the scale."""

    @jax.jit
    def mean_log_prob(scale):
        guided = classifier_free_guidance(exact_model(), PATH, null=NULL, scale=scale)
        cond = jnp.arange(500) % 2
        return log_prob_of_label(guided.sample(1.0, KEY, 500, cond), PATH.t_min, cond).mean()

    found = [mean_log_prob(scale) for scale in (0.0, 1.0, 3.0)]
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("guided", [guided_freely, guided_by_a_classifier], ids=["free", "classifier"])
def test_other_scales_intervals_and_labels_do_not_recompile(guided):
    """One trace, also of a sampler that wraps the guided model; the scale matters."""
    traces = []

    @jax.jit
    def sample(scale, low, high, cond):
        traces.append(1)
        model = guided(scale=scale, interval=(low, high))
        return resample(model, PATH, stepper=ddim(), num_steps=8).sample(1.0, KEY, 6, cond)

    first = sample(1.0, 0.1, 5.0, COND)
    others = [sample(4.0, 0.1, 5.0, COND), sample(4.0, 0.5, 2.0, COND), sample(1.0, 0.1, 5.0, 1 - COND)]
    assert len(traces) == 1
    assert all(abs(other - first).max() > 1e-2 for other in others)


def test_one_evaluation_of_twice_the_batch():
    sizes = []

    def counted(params, x, t, cond):
        sizes.append(len(x))
        return score(params, x, t, cond)

    classifier_free_guidance(exact_model()._replace(score=counted), PATH, null=NULL, scale=2.0).score(1.0, X, 0.5, COND)
    assert sizes == [12]


def test_what_guidance_keeps():
    """Likelihoods go; the loss, the encoding and the way back stay."""
    likelihoods = {name: score for name in ("log_prob", "log_weight", "elbo", "energy")}
    model = exact_model(**likelihoods)
    guided = [
        classifier_free_guidance(model, PATH, null=NULL, scale=2.0),
        classifier_guidance(model, PATH, log_prob_of_label, scale=2.0),
    ]
    for one in guided:
        assert all(getattr(one, name) is None for name in likelihoods)
        assert one.loss is model.loss
        assert one.init(KEY, Batch(X, COND)) == model.init(KEY, Batch(X, COND))
        assert one.encode is not None
        assert one.decode is not None


def test_conditions_are_dropped_at_their_rate():
    """The number of null labels is binomial; the others stay as they are, and every step drops afresh."""
    loss = drop_condition(exact_model(), 0.2, null=NULL).loss
    cond = jnp.arange(5000) % 2
    first, second = (
        loss(1.0, (), key, Batch(jnp.zeros((5000, 2)), cond))[1][1]["cond"] for key in jax.random.split(KEY)
    )
    assert stats.binomtest(int((first == NULL).sum()), 5000, 0.2).pvalue > 1e-3
    np.testing.assert_array_equal(first[first != NULL], cond[first != NULL])
    assert np.any(first != second)
    always = drop_condition(exact_model(), 1.0, null=NULL).loss(1.0, (), KEY, Batch(X, COND))[1][1]["cond"]
    np.testing.assert_array_equal(always, np.full(6, NULL))


def test_a_trained_network_knows_both_densities():
    """Trained with dropped labels, the score with the null label is that of the mixture, and with a label of its class.

    Against the closed form, in the mean over the data at a middling noise level.
    """
    model = drop_condition(diffusion(TimeMLP((64, 64), NULL + 1), (2,), path=PATH), 0.3, null=NULL)
    tx = optax.adam(optax.cosine_decay_schedule(5e-3, 800))
    step = train_step(model, tx, ema_decay=0.99)

    def draw(key, num=256):
        cond = (jax.random.uniform(key, (num,)) < WEIGHTS[1]).astype(jnp.int32)
        noise = jax.random.normal(jax.random.fold_in(key, 1), (num, 2))
        return Batch(jnp.asarray(MEANS)[cond] + jnp.asarray(SCALES)[cond, None] * noise, cond)

    @jax.jit
    def errors(key):
        state = init_state(model, tx, key, draw(key))
        advance = lambda state, key: (step(state, draw(key))[0], None)  # noqa: E731
        params = jax.lax.scan(advance, state, jax.random.split(key, 800))[0].ema_params
        x, cond = draw(jax.random.key(7), 2000)
        x_t = paths.perturb(PATH, x, 0.5, jax.random.normal(jax.random.key(8), x.shape))
        return [
            ((model.score(params, x_t, 0.5, label) - score(1.0, x_t, 0.5, label)) ** 2).mean()
            / (score(1.0, x_t, 0.5, cond) - score(1.0, x_t, 0.5)).var()
            for label in (cond, jnp.full_like(cond, NULL))
        ]

    assert max(errors(KEY)) < 0.1


@pytest.mark.parametrize("net", [TimeMLP((4,)), UNet(4, ())], ids=["mlp", "unet"])
def test_labels_that_nobody_reads_are_refused_at_init(net):
    """Of a network without classes, by what trains and by what samples; one with classes is let through."""
    shape = (2,) if isinstance(net, TimeMLP) else (2, 2, 1)
    batch = Batch(jnp.zeros((6, *shape)), COND)
    for classes, refused in ((0, True), (NULL + 1, False)):
        model = diffusion(net.clone(num_classes=classes), shape, path=PATH)
        wrapped = {
            "drop_condition": drop_condition(model, 0.1, null=NULL),
            "classifier_free_guidance": classifier_free_guidance(model, PATH, null=NULL, scale=2.0),
        }
        for name, one in wrapped.items():
            expected = pytest.raises(ValueError, match=f"{name} needs a conditional") if refused else nullcontext()
            with expected:
                jax.eval_shape(one.init, KEY, batch)
            with pytest.raises(ValueError, match="needs a label for every example, got cond=None"):
                jax.eval_shape(one.init, KEY, Batch(batch.x))


@pytest.mark.parametrize("net", [TimeMLP((4,)), UNet(4, ())], ids=["mlp", "unet"])
def test_labels_that_nobody_reads_are_refused_when_called(net):
    """By scores and samples from parameters that the wrapped model's `init` has made; so are no labels at all."""
    x = jnp.zeros((6, 2) if isinstance(net, TimeMLP) else (6, 2, 2, 1))
    calls = {
        "score": lambda model, params, cond: model.score(params, x, 0.5, cond),
        "sample": lambda model, params, cond: model.sample(params, KEY, 6, cond),
    }
    for classes, refused in ((0, True), (NULL + 1, False)):
        model = diffusion(net.clone(num_classes=classes), x.shape[1:], path=PATH)
        params = jax.eval_shape(model.init, KEY, Batch(x, COND))[0]
        guided = classifier_free_guidance(model, PATH, null=NULL, scale=2.0)
        for call in calls.values():
            use = lambda params, cond, call=call, guided=guided: call(guided, params, cond)  # noqa: E731
            expected = pytest.raises(ValueError, match="does not read its labels") if refused else nullcontext()
            with expected:
                assert jax.eval_shape(use, params, COND).shape == x.shape
            with pytest.raises(ValueError, match="needs a label for every example, got cond=None"):
                jax.eval_shape(use, params, None)


def test_errors():
    model, scoreless = exact_model(), exact_model()._replace(score=None)
    with pytest.raises(ValueError, match="score, and it is None"):
        classifier_free_guidance(scoreless, PATH, null=NULL, scale=1.0)
    with pytest.raises(ValueError, match="score, and it is None"):
        classifier_guidance(scoreless, PATH, log_prob_of_label, scale=1.0)
    with pytest.raises(ValueError, match="classifier_free_guidance needs a label for every example, got cond=None"):
        classifier_free_guidance(model, PATH, null=NULL, scale=1.0).sample(1.0, KEY, 2)
    with pytest.raises(ValueError, match="classifier_guidance needs a label for every example, got cond=None"):
        classifier_guidance(model, PATH, log_prob_of_label, scale=1.0).sample(1.0, KEY, 2)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        drop_condition(model, 1.5, null=NULL)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        drop_condition(model, 0.1, null=-1)
    with pytest.raises(ValueError, match="drop_condition needs a label"):
        drop_condition(model, 0.1, null=NULL).loss(1.0, (), KEY, Batch(X))
