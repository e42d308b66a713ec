"""Convolutions with derivatives of one order of axes: JAX's own is the oracle, in every mode of autodiff."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets.convolution import convolve

ORIGINAL = jax.lax.conv_general_dilated
AXES = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}
OTHERS = [("NCHW", "OIHW", "NCHW"), ("HWNC", "IHOW", "CNHW"), None]
PLAIN = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": AXES[2]}


def arrays(axes=AXES[2]):
    """An image `[2, 3, 5, 6, 4]` and a kernel `[4, 3, 3, 2, 1]`, or less of them, in an order of axes."""
    num_dims = 2 if axes is None else len(axes[0]) - 2
    numbers, found = jax.lax.conv_dimension_numbers(*[(1,) * (num_dims + 2)] * 2, axes), []
    for i, (spec, sizes) in enumerate(zip(numbers, ((2, 3, 5, 6, 4), (4, 3, 3, 2, 1)), strict=False)):
        shape = [size for _, size in sorted(zip(spec, sizes, strict=False))]
        found.append(jax.random.normal(jax.random.key(i), shape))
    return found


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), found, expected)


def everything(conv, options, x, kernel):
    """The value, its derivatives in both modes and a second one of each, of a function that is not linear."""

    def f(x, kernel):
        return jnp.sin(conv(x, kernel, **options))

    def slope(x, kernel):
        return jax.jvp(f, (x, kernel), (jnp.cos(x), jnp.sin(2 * kernel)))[1]

    gradient = jax.grad(lambda x, kernel: (f(x, kernel) ** 2).sum(), (0, 1))
    backward_twice = jax.grad(lambda x, kernel: sum((g**2).sum() for g in gradient(x, kernel)), (0, 1))
    forward_first = jax.grad(lambda x, kernel: (slope(x, kernel) ** 2).sum(), (0, 1))
    forward_last = jax.jvp(gradient, (x, kernel), (jnp.sin(x), jnp.cos(kernel)))[1]
    return f(x, kernel), forward_last, [g(x, kernel) for g in (slope, gradient, forward_first, backward_twice)]


def check(options):
    given = arrays(options["dimension_numbers"])
    close(*(jax.jit(functools.partial(everything, conv, options))(*given) for conv in (convolve, ORIGINAL)))


@pytest.mark.parametrize("strides", [1, 3])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [(2, 1)] * 2, [(-1, 3)] * 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_values_and_derivatives_of_images(strides, padding, dilation):
    check(PLAIN | {"window_strides": (strides,) * 2, "padding": padding, "rhs_dilation": (dilation,) * 2})


HOLES = [(2, (1, 0), 2, 1), (2, (-1, 4), 3, 2), (1, (0, 0), 1, 2)]


@pytest.mark.parametrize("num_dims", [1, 2, 3])
@pytest.mark.parametrize(("strides", "padding", "dilation", "of_kernel"), HOLES)
def test_sounds_and_volumes_too_with_zeros_in_between(num_dims, strides, padding, dilation, of_kernel):
    names = ("window_strides", "padding", "lhs_dilation", "rhs_dilation")
    each = zip(names, (strides, padding, dilation, of_kernel), strict=True)
    check({name: (value,) * num_dims for name, value in each} | {"dimension_numbers": AXES[num_dims]})


@pytest.mark.parametrize("axes", OTHERS)
def test_other_orders_of_axes(axes):
    check(PLAIN | {"dimension_numbers": axes, "window_strides": (2, 1)})


@pytest.mark.parametrize("axes", [AXES[2], *OTHERS])
@pytest.mark.parametrize("dims", [(0, None), (None, 0), (3, None), (None, 4), (0, 0), (2, 1)])
def test_batches_of_images_of_kernels_and_of_both(axes, dims):
    three = [jnp.stack([one, 2 * one, jnp.sin(one)], dim or 0) for one, dim in zip(arrays(axes), dims, strict=True)]
    given = [each if dim is not None else each[0] for each, dim in zip(three, dims, strict=True)]
    options = PLAIN | {"dimension_numbers": axes}
    close(*(jax.vmap(functools.partial(conv, **options), dims)(*given) for conv in (convolve, ORIGINAL)))


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_jacobians_which_are_batches_of_derivatives(mode):
    def of(conv):
        return mode(lambda x, kernel: jnp.sin(conv(x, kernel, **PLAIN)).sum((0, 3)), (0, 1))(*arrays())

    close(of(convolve), of(ORIGINAL))


def test_it_is_the_original_to_the_bit_where_it_is_another_function():
    x = jax.random.normal(jax.random.key(0), (4, 5, 6, 4))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 4))
    for options in ({"feature_group_count": 2}, {"feature_group_count": 2, "preferred_element_type": jnp.float32}):
        np.testing.assert_array_equal(convolve(x, kernel, **PLAIN, **options), ORIGINAL(x, kernel, **PLAIN, **options))
    wide = jax.random.normal(jax.random.key(1), (3, 3, 4, 4))
    np.testing.assert_array_equal(
        convolve(x, wide, **PLAIN, batch_group_count=2), ORIGINAL(x, wide, **PLAIN, batch_group_count=2)
    )


def test_half_precision_stays_so():
    x, kernel = (array.astype(jnp.bfloat16) for array in arrays())
    found = convolve(x, kernel, **PLAIN)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, ORIGINAL(x, kernel, **PLAIN))
    gradient = jax.grad(lambda kernel: convolve(x, kernel, **PLAIN).sum().astype(jnp.float32))(kernel)
    assert gradient.dtype == jnp.bfloat16


def test_precision_is_handed_on_to_the_derivatives():
    x, kernel = arrays()
    program = jax.jit(jax.grad(lambda x, kernel: convolve(x, kernel, **PLAIN, precision="highest").sum(), (0, 1)))
    assert program.lower(x, kernel).as_text().count("precision HIGHEST") == 4


@pytest.mark.parametrize("check_vma", [True, False])
def test_devices_with_a_share_of_the_images_each(check_vma):
    """The gradient by the kernel is the sum over devices, as it is of the original."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    x, kernel = arrays()
    specs = (jax.P("data"), jax.P())

    def loss(x, kernel, conv):
        return jax.lax.psum((conv(x, kernel, **PLAIN) ** 2).sum(), "data")

    def gradient(conv):
        return jax.shard_map(
            jax.grad(functools.partial(loss, conv=conv), (0, 1)),
            mesh=mesh,
            in_specs=specs,
            out_specs=specs,
            check_vma=check_vma,
        )(x, kernel)

    close(gradient(convolve), gradient(ORIGINAL))


def test_every_derivative_in_a_loop_has_the_quick_order_of_axes():
    """JAX's own has not: its gradient by the kernel stands in the loop as it was written."""

    def orders(conv, around=lambda f: f):
        @around
        def loss(kernels, x):
            return jax.lax.scan(lambda x, kernel: (jnp.tanh(conv(x, kernel, **PLAIN)), None), x, kernels)[0].sum()

        x, kernels = jnp.ones((2, 6, 6, 3)), jnp.ones((4, 3, 3, 3, 3))
        program = jax.jit(jax.grad(loss)).lower(kernels, x).compile().as_text()
        assert "while" in program
        return re.findall(r"convolution\(.*dim_labels=([^,\s]+)", program)

    found = orders(convolve)
    assert len(found) == 3
    assert set(found) == {"b01f_01io->b01f"}
    assert set(orders(ORIGINAL)) - {"b01f_01io->b01f"}

    def on_two_devices(f):
        mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
        mean = lambda kernels, x: jax.lax.pmean(f(kernels, x), "data")  # noqa: E731
        return jax.shard_map(mean, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P())

    assert set(orders(convolve, on_two_devices)) == {"b01f_01io->b01f"}


def test_bad_shapes_are_refused_as_by_the_original():
    x, kernel = arrays()
    with pytest.raises(ValueError, match="feature dimension"):
        jax.jit(lambda x, kernel: convolve(x[..., :2], kernel, **PLAIN))(x, kernel)
    with pytest.raises(ValueError, match="String padding is not implemented for transposed convolution"):
        convolve(x, kernel, **PLAIN, lhs_dilation=(2, 2))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_on_an_accelerator_it_is_what_jax_would_have_written(platform):
    """The same convolutions, those of the derivatives included."""

    def program(conv):
        options = PLAIN | {"window_strides": (2, 1)}
        gradient = jax.grad(lambda x, kernel: jnp.sin(conv(x, kernel, **options)).sum(), (0, 1))
        text = jax.jit(gradient).trace(*arrays()).lower(lowering_platforms=(platform,)).as_text()
        return re.findall(r"stablehlo\.convolution\([^)]*\)(.*)", text)

    found = program(convolve)
    assert len(found) == 3
    assert found == program(ORIGINAL)


def test_results_and_sides_of_length_zero():
    x, kernel = jnp.ones((2, 2, 4, 3)), jnp.ones((3, 3, 3, 4))
    options = PLAIN | {"padding": "VALID", "window_strides": (2, 1)}

    def everything_empty(conv):
        gradient = jax.jit(jax.grad(lambda x, kernel: conv(x, kernel, **options).sum(), (0, 1)))
        mapped = jax.vmap(lambda x: conv(x, kernel, **PLAIN))
        return gradient(x, kernel), mapped(jnp.ones((3, 2, 0, 4, 3))), mapped(jnp.ones((0, 2, 5, 4, 3)))

    ours, theirs = everything_empty(convolve), everything_empty(ORIGINAL)
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, theirs)
    close(ours, theirs)


def test_it_computes_without_jit_and_finds_what_is_not_a_number():
    x, kernel = arrays()
    with jax.disable_jit():
        close(convolve(x, kernel, **PLAIN), ORIGINAL(x, kernel, **PLAIN))
    with jax.debug_nans(True), pytest.raises(FloatingPointError):  # noqa: FBT003
        convolve(x * jnp.nan, kernel, **PLAIN)


def test_a_mesh_of_explicit_axes_shards_it_as_the_original():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,), devices=jax.devices()[:2])
    x, kernel = arrays()
    with jax.set_mesh(mesh):
        given = jax.device_put(x, jax.P("data")), jax.device_put(kernel, jax.P())
        losses = (lambda x, k, conv=conv: jnp.sin(conv(x, k, **PLAIN)).sum() for conv in (convolve, ORIGINAL))
        close(*(jax.jit(jax.grad(loss, (0, 1)))(*given) for loss in losses))


def test_precision_is_that_of_the_place_where_it_is_called():
    def loss(x, kernel):
        with jax.default_matmul_precision("highest"):
            return convolve(x, kernel, **PLAIN).sum()

    assert jax.jit(jax.grad(loss, (0, 1))).lower(*arrays()).as_text().count("precision HIGHEST") == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"padding": [(1.5, 1), (1, 1)]},
        {"padding": [1, 1]},
        {"rhs_dilation": (2,)},
        {"window_strides": (1,)},
        {"no_such_option": None},
    ],
)
def test_what_the_original_refuses_is_refused(changes):
    for conv in (ORIGINAL, convolve):
        with pytest.raises((ValueError, TypeError)):
            conv(*arrays(), **PLAIN | changes)


def test_numbers_of_numpy_are_taken():
    x, kernel = arrays()
    options = {"rhs_dilation": np.array([2, 1]), "padding": np.array([[1, 1], [0, 1]])}
    same = {name: tuple(map(tuple, value)) if value.ndim == 2 else tuple(value) for name, value in options.items()}
    close(convolve(x, kernel, **PLAIN | options), ORIGINAL(x, kernel, **PLAIN | same))
