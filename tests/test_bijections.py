"""Bijections against Jacobians by autodiff, against each other, and against what the papers draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import bijections as b
from jaxgen.nets.mlp import MLP
from jaxgen.nets.resnet import ResNet
from jaxgen.types import Batch
from tests.bijecting import NUM_CLASSES, of_both_ways, perturbed, prepared


def mlp(out_dim):
    return MLP((8,), out_dim, NUM_CLASSES)


def conv(out_channels):
    return ResNet(4, out_channels, 1, NUM_CLASSES)


ORDERS = ((2, 0, 1, 3), (1, 0, 3, 2), (3, 1, 0, 2))
LAYER = b.chain(b.actnorm(), b.coupling(mlp(4)), b.reverse())
CASES = {
    "affine": (b.affine(-1, 2), (5,)),
    "affine_negative": (b.affine(0.5, -0.3), (2, 3)),
    "logit": (b.logit(0.05), (5,)),
    "sigmoid": (b.sigmoid(), (5,)),
    "reshape": (b.reshape((2, 3), (6,)), (2, 3)),
    "reverse": (b.reverse(), (5,)),
    "permute": (b.permute((2, 0, 1)), (2, 3)),
    "permutations": (b.repeat(lambda i: b.permutations(ORDERS, i), 3), (2, 4)),
    "squeeze": (b.squeeze(), (4, 2, 3)),
    "invert_affine": (b.invert(b.affine(-1, 2)), (5,)),
    "actnorm": (b.actnorm(), (2, 3)),
    "coupling": (b.coupling(mlp(6)), (5,)),
    "coupling_swapped": (b.coupling(mlp(4), b.halves(swap=True)), (5,)),
    "coupling_channels": (b.coupling(conv(4)), (2, 2, 4)),
    "checkerboard": (b.checkerboard(), (4, 2, 3)),
    "factor_out": (b.factor_out(b.chain(b.coupling(mlp(4)), b.reverse())), (5,)),
    "chain": (b.chain(b.affine(1, 0.5), LAYER, b.permute((1, 3, 0, 2))), (4,)),
    "repeat": (b.repeat(LAYER, 3), (4,)),
    "multi_scale": (b.chain(b.squeeze(), b.factor_out(b.coupling(conv(2))), b.invert(b.squeeze())), (4, 4, 1)),
}


test_log_det_is_that_of_the_jacobian_by_autodiff, test_inverse_undoes_forward_and_its_jacobian = of_both_ways(
    CASES, still={"reshape", "squeeze", "checkerboard"}
)


def test_affine_and_logit_are_their_formulas():
    x = jnp.array([[0.0, 0.25, 1.0]])
    np.testing.assert_allclose(b.forward(b.affine(-1, 2), {}, x), [[-1, -0.5, 1]])
    p = 0.05 + 0.9 * np.asarray(x, np.float64)
    np.testing.assert_allclose(b.forward(b.logit(0.05), {}, x), np.log(p / (1 - p)), rtol=1e-5)


def test_checkerboard_keeps_the_even_pixels_and_depends_on_them_only():
    """The mask of the paper's figure 3, read off the Jacobian."""
    bijection = b.chain(b.checkerboard(), b.coupling(conv(4)), b.invert(b.checkerboard()))
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 1))
    cond = jnp.zeros(1, jnp.int32)
    params = jax.jit(lambda: perturbed(bijection.init(jax.random.key(1), x, cond)))()
    jacobian = jax.jit(jax.jacrev(lambda x: b.forward(bijection, params, x, cond)))(x).reshape(16, 16)
    even = (np.indices((4, 4)).sum(0) % 2 == 0).reshape(-1)
    np.testing.assert_array_equal(jacobian[even], np.eye(16)[even])
    changed_by_changed = jacobian[~even][:, ~even]
    np.testing.assert_array_equal(changed_by_changed, np.diag(np.diag(changed_by_changed)))
    assert np.all(jacobian[~even][:, even] != 0)


def test_squeeze_takes_corners_row_by_row():
    """Figure 3 of the paper: the 4x4 image of corners 1, 2 over 3, 4."""
    x = jnp.tile(jnp.array([[1, 2], [3, 4]], jnp.uint8), (2, 2))[None, :, :, None]
    z = b.forward(b.squeeze(), {}, x)
    assert z.dtype == jnp.uint8
    np.testing.assert_array_equal(z, np.broadcast_to([1, 2, 3, 4], (1, 2, 2, 4)))


def test_permute_takes_where_it_says():
    x = jnp.arange(3.0)[None]
    np.testing.assert_array_equal(b.forward(b.permute((2, 0, 1)), {}, x), [[2, 0, 1]])


def test_a_loop_over_permutations_is_those_of_numpy_one_after_the_other():
    x = np.arange(4.0)
    z, _ = jax.jit(CASES["permutations"][0].forward_and_log_det)({}, x[None])
    np.testing.assert_array_equal(z[0], x[list(ORDERS[0])][list(ORDERS[1])][list(ORDERS[2])])


def test_sigmoid_is_that_of_scipy_and_the_logit_ends_where_the_interval_does():
    """Documented: infinite at the ends of the interval, NaN outside, also under `jit`."""
    from scipy import special

    x = jnp.array([[-3.0, 0.0, 5.0]])
    np.testing.assert_allclose(b.forward(b.sigmoid(), {}, x), special.expit(np.asarray(x)), rtol=1e-6)
    z, log_det = jax.jit(b.logit(0.0).forward_and_log_det)({}, jnp.array([[0.0], [1.0], [1.5], [-0.1]]))
    np.testing.assert_array_equal(z[:, 0], [-np.inf, np.inf, np.nan, np.nan])
    np.testing.assert_array_equal(log_det, [np.inf, np.inf, np.nan, np.nan])


def test_rearrangements_keep_integers_exact():
    x = jnp.arange(6, dtype=jnp.uint8).reshape(1, 2, 3)
    z, log_det = b.reshape((2, 3), (6,)).forward_and_log_det({}, x)
    assert z.dtype == jnp.uint8
    np.testing.assert_array_equal(log_det, [0.0])


def test_actnorm_starts_with_standardised_channels_at_every_link_of_a_repeat():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (256, 4, 4, 2)) * jnp.array([1.0, 5.0])
    bijection = b.repeat(b.chain(b.actnorm(), b.affine(1, 3)), 2)
    z = b.forward(bijection, bijection.init(jax.random.key(1), x), x)
    np.testing.assert_allclose(z.mean((0, 1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(z.std((0, 1, 2)), 3, rtol=1e-4)


def test_repeat_is_a_chain_of_its_links():
    bijection, shape = CASES["repeat"]
    params, x, cond = prepared(bijection, shape)
    links = [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(3)]
    unrolled = b.chain(LAYER, LAYER, LAYER)
    named = {str(i): link for i, link in enumerate(links)}
    for field in ("forward_and_log_det", "inverse_and_log_det"):
        scanned = jax.jit(getattr(bijection, field))(params, x, cond)
        expected = jax.jit(getattr(unrolled, field))(named, x, cond)
        for got, want in zip(scanned, expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def num_equations(jaxpr):
    """Equations of a jaxpr and of those inside it."""
    inner = [p for eqn in jaxpr.eqns for p in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_jaxpr)]
    return len(jaxpr.eqns) + sum(num_equations(getattr(p, "jaxpr", p)) for p in inner if is_jaxpr(p))


def is_jaxpr(value):
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")


@pytest.mark.parametrize("field", ["forward_and_log_det", "inverse_and_log_det"])
def test_the_program_of_a_repeat_does_not_grow_with_depth(field):
    def size(num):
        bijection = b.repeat(LAYER, num)
        x, cond = jnp.ones((2, 4)), jnp.zeros(2, jnp.int32)
        params = jax.eval_shape(bijection.init, jax.random.key(0), x, cond)
        loss = lambda params: getattr(bijection, field)(params, x, cond)[1].sum()  # noqa: E731
        return num_equations(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)

    assert size(32) == size(2) > 50


def test_views_cost_no_more_than_they_need():
    """The log-determinant of a rearranged affine map needs no data: nothing but a constant is left of it."""
    bijection = b.chain(b.affine(0, 2), b.reverse())
    compiled = jax.jit(lambda x: bijection.forward_and_log_det({}, x)[1]).lower(jnp.ones((3, 4))).compile()
    assert compiled.cost_analysis().get("flops", 0) <= 3


def test_a_fresh_coupling_with_a_net_of_zero_output_is_the_identity():
    bijection = b.coupling(MLP((8,), 4, zero_init=True))
    x = jax.random.normal(jax.random.key(0), (3, 4))
    z, log_det = bijection.forward_and_log_det(bijection.init(jax.random.key(1), x), x)
    np.testing.assert_array_equal(z, x)
    np.testing.assert_array_equal(log_det, np.zeros(3))


def test_scale_is_bounded():
    raw = jnp.array([[1e6, 0.0], [-1e6, 0.0], [0.1, 0.0]])
    log_scale = b.scale_shift(max_log_scale=2.0).forward_and_log_det(raw, jnp.ones(3))[1]
    np.testing.assert_allclose(log_scale, [2, -2, 0.1], rtol=1e-3)


def test_a_flow_of_one_affine_map_is_the_normal_density():
    """Against scipy: x = (z - shift) / scale with z standard normal."""
    from scipy import stats

    model = b.flow(b.affine(1.0, 2.0), (3,))
    x = jax.random.normal(jax.random.key(0), (4, 3))
    params, _ = model.init(jax.random.key(1), Batch(x))
    np.testing.assert_allclose(
        model.log_prob(params, x), stats.norm(-0.5, 0.5).logpdf(np.asarray(x)).sum(-1), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: b.affine(0.0, 0), "other than 0"),
        (lambda: b.affine(float("nan"), 1), "finite"),
        (lambda: b.logit(0.5), "0.5"),
        (lambda: b.reshape((2, 3), (5,)), "equal size"),
        (lambda: b.permute((0, 0, 1)), "permutation"),
        (lambda: b.permutations((), 0), "permutations"),
        (lambda: b.permutations(((0, 1), (0, 1, 2)), 0), "same d"),
        (lambda: b.repeat(b.reverse(), 0), "num"),
        (lambda: b.scale_shift(max_log_scale=0.0), "max_log_scale"),
        (lambda: b.forward(b.squeeze(), {}, jnp.ones((1, 3, 4, 1))), "even sides"),
        (lambda: b.inverse(b.squeeze(), {}, jnp.ones((1, 3, 4, 1))), "4 c"),
        (lambda: b.forward(b.reshape((6,), (2, 3)), {}, jnp.ones((1, 2, 3))), "(6,)"),
    ],
)
def test_bad_values_are_named(build, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        build()


def test_a_network_of_the_wrong_width_is_named():
    bijection, x = b.coupling(MLP((8,), 5)), jnp.ones((2, 4))
    params = bijection.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="2 outputs"):
        bijection.forward_and_log_det(params, x)
