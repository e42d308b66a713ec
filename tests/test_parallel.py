"""Every placement against one device, and against a loop over the devices written by hand."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from jaxgen.models.classical.ppca import ppca
from jaxgen.parallel import mesh, pmap, single
from jaxgen.types import Batch
from tests.conformance.zoo import ENTRIES, NUM, Entry, real
from tests.remembering import remembering

KEY, SAMPLE_KEY, EMA, STEPS, DEVICES = jax.random.key(0), jax.random.key(1), 0.9, 3, 8


ZOO = {entry.name: entry for entry in [*ENTRIES, Entry("remembering", remembering(NUM), real(2))]}
VARIANTS = (  # these use the batch, their keys and their carry as another entry does
    *("vae_normal", "real_nvp_image", "rbm", "rbm_normalized", "gan_conditional", "diffusion_exploding"),
    *("continuous_consistency", "mean_flow", "shortcut", "d3pm", "resample", "guided", "probability_flow"),
    *("variational_dequantize", "nice", "maf", "iaf", "neural_spline_flow", "neural_spline_flow_autoregressive"),
    *("ffjord", "residual_flow", "image_transformer", "made", "made_ensemble", "pixel_cnn", "gated_pixel_cnn"),
    *("pixel_rnn", "pixel_cnn_plus", "wavenet", "transformer", "glow"),
    *("continuous_consistency_distilled", "rectified_flow", "d3pm_absorbing", "guided_by_a_classifier"),
    *("probability_flow_estimated", "variational_dequantize_judged", "probability_flow_adaptive"),
    *("consistency_training", "mean_flow_guided", "wavenet_told"),
)
MODELS = {name: entry for name, entry in ZOO.items() if name not in VARIANTS}
every_model = pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS, scope="module")  # one after another
FAST = {"xla_backend_optimization_level": "0"}  # compiles twice as fast
PLACEMENTS = {
    "single": functools.partial(single, compiler_options=FAST),
    "mesh": functools.partial(mesh, compiler_options=FAST),
    "mesh_fsdp": functools.partial(mesh, fsdp=2, compiler_options=FAST),
    "pmap": functools.partial(pmap, compiler_options=FAST),
}
every_placement = pytest.mark.parametrize("make", PLACEMENTS.values(), ids=PLACEMENTS)


def global_batch(entry):
    return jax.tree.map(np.asarray, entry.batch)


@functools.cache
def initial(name):
    """Canonical state before the first step."""
    entry, placement = ZOO[name], PLACEMENTS["single"]()
    return placement.get_state(entry.model, placement.init_state(entry.model, entry.tx, KEY, global_batch(entry)))


@functools.cache
def trained(name, placement_name, num_steps=STEPS):
    """Placed state after a few steps, and the metrics of every step."""
    entry, placement = ZOO[name], PLACEMENTS[placement_name]()
    state, batch = placement.put_state(entry.model, initial(name)), placement.put_batch(global_batch(entry))
    step = placement.train_step(entry.model, entry.tx, ema_decay=EMA)
    history = []
    for _ in range(num_steps):
        state, metrics = step(state, batch)
        history.append(jax.tree.map(np.asarray, metrics))
    return state, history


def canonical(name, placement_name, num_steps=STEPS):
    return PLACEMENTS[placement_name]().get_state(ZOO[name].model, trained(name, placement_name, num_steps)[0])


@functools.cache
def sampled(name, placement_name):
    entry, placement = ZOO[name], PLACEMENTS[placement_name]()
    params = trained(name, placement_name)[0].params
    return np.asarray(placement.sample(entry.model)(params, SAMPLE_KEY, NUM, entry.batch.cond))


def plain(state):
    """The state without its typed key."""
    return state._replace(key=jax.random.key_data(state.key))


def assert_equal_to_rounding(a, b):
    chex.assert_trees_all_equal_shapes_and_dtypes(a, b)
    chex.assert_trees_all_close(a, b, rtol=1e-4, atol=1e-5)


def equals_one_device(name, placement_name):
    """Parameters, optimiser, chains, metrics and samples are those of one device."""
    state, expected_state = canonical(name, placement_name), canonical(name, "single")
    assert_equal_to_rounding(plain(state), plain(expected_state))
    assert_equal_to_rounding(trained(name, placement_name)[1], trained(name, "single")[1])
    assert_equal_to_rounding(sampled(name, placement_name), sampled(name, "single"))


@every_model
def test_mesh_of_eight_equals_one_device(entry):
    equals_one_device(entry.name, "mesh")


@pytest.mark.parametrize(
    "name", ["mean_flow", "shortcut", "guided", "variational_dequantize_judged", "residual_flow", "transformer"]
)
def test_one_step_of_a_variant_on_eight_devices(name):
    """Parameters, optimiser, carry and metrics are those of one device; no more, for the sake of time."""
    assert_equal_to_rounding(plain(canonical(name, "mesh", 1)), plain(canonical(name, "single", 1)))
    assert_equal_to_rounding(trained(name, "mesh", 1)[1], trained(name, "single", 1)[1])


@pytest.mark.parametrize("name", ["vae", "remembering"])
def test_mesh_with_split_parameters_equals_one_device(name):
    equals_one_device(name, "mesh_fsdp")


@pytest.mark.parametrize("placement", ["mesh", "mesh_fsdp", "pmap"])
@pytest.mark.parametrize("name", ["vae", "remembering"])
def test_every_placement_begins_alike(name, placement):
    """The state before the first step does not depend on the devices."""
    entry, placement = ZOO[name], PLACEMENTS[placement]()
    state = placement.init_state(entry.model, entry.tx, KEY, global_batch(entry))
    assert_equal_to_rounding(plain(placement.get_state(entry.model, state)), plain(initial(name)))


def part(tree, i):
    return jax.tree.map(lambda a: a[i * len(a) // DEVICES : (i + 1) * len(a) // DEVICES], tree)


def mean(trees):
    return jax.tree.map(lambda *a: np.mean(a, 0).astype(a[0].dtype), *trees)


def over_carry(model, chains, whole, *carries):
    choose = lambda spec, *trees: (chains if spec else whole)(*trees)  # noqa: E731
    return jax.tree.map(choose, model.carry_spec, *carries, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))


def join(*trees):
    return jax.tree.map(lambda *a: np.concatenate(a), *trees)


def pmap_by_hand(entry):
    """The same steps as a loop over the parts of the batch on one device: the mean of their gradients, then `tx`."""
    model, tx, batch = entry.model, entry.tx, global_batch(entry)
    _, params, ema, opt_state, carry, key = initial(entry.name)
    options = {"compiler_options": FAST}
    grad = jax.jit(jax.value_and_grad(model.loss, has_aux=True), **options)
    update, losses = jax.jit(tx.update, **options), []
    for k in range(STEPS):
        parts = []
        for i in range(DEVICES):
            own = over_carry(model, lambda tree, i=i: part(tree, i), lambda tree: tree, carry)
            parts.append(grad(params, own, jax.random.fold_in(jax.random.fold_in(key, i), k), part(batch, i)))
        parts = jax.tree.map(np.asarray, parts)
        updates, opt_state = jax.tree.map(np.asarray, update(mean([grads for _, grads in parts]), opt_state, params))
        params = jax.tree.map(np.add, params, updates)
        decay = np.float32(min(EMA, (1 + k) / (10 + k)))
        ema = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * p, ema, params)
        carry = over_carry(model, join, lambda *trees: mean(trees), *[carry for (_, (carry, _)), _ in parts])
        losses.append(np.mean([loss for (loss, _), _ in parts]))
    return (params, ema, opt_state, carry), losses


def samples_by_hand(entry, params):
    sample = jax.jit(entry.model.sample, static_argnums=2, compiler_options=FAST)
    keys = [jax.random.fold_in(SAMPLE_KEY, i) for i in range(DEVICES)]
    cond = global_batch(entry).cond
    return join(*[sample(params, keys[i], NUM // DEVICES, part(cond, i)) for i in range(DEVICES)])


@every_model
def test_pmap_equals_a_loop_by_hand(entry):
    """Gradients are averaged, not summed; noise differs between devices; chains stay where they are."""
    state = canonical(entry.name, "pmap")
    expected, losses = pmap_by_hand(entry)
    assert_equal_to_rounding((state.params, state.ema_params, state.opt_state, state.carry), expected)
    np.testing.assert_allclose([metrics["loss"] for metrics in trained(entry.name, "pmap")[1]], losses, rtol=1e-4)
    chex.assert_trees_all_equal(plain(state).key, plain(initial(entry.name)).key)


@pytest.mark.parametrize("name", ["vae", "remembering"])
def test_pmap_samples_as_a_loop_by_hand(name):
    """Each device draws its part with its own key and its own labels."""
    params = canonical(name, "pmap").params
    assert_equal_to_rounding(sampled(name, "pmap"), samples_by_hand(ZOO[name], params))


def test_pmap_reports_the_norm_of_the_mean_gradient():
    """A loss without noise has the metrics of one device, the norm of the gradient among them."""
    assert_equal_to_rounding(trained("ppca", "pmap")[1], trained("ppca", "single")[1])


def some(num):
    return jax.devices()[:num]


@every_model
def test_a_state_moves_between_placements_and_numbers_of_devices(entry):
    """What one placement gives up, another takes and gives back bit for bit: 8 devices to 1, 2, 4 and back."""
    state = moved = initial(entry.name)
    for placement in (single(), pmap(some(2)), mesh(some(4), fsdp=2), mesh(), pmap(some(4)), pmap()):
        moved = placement.get_state(entry.model, placement.put_state(entry.model, moved))
        chex.assert_trees_all_equal(plain(moved), plain(state))
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(moved._replace(key=())))


@pytest.mark.parametrize(("num", "fsdp"), [(1, 1), (2, 2), (4, 2)])
def test_training_goes_on_elsewhere(num, fsdp):
    """Two steps on a mesh of 8 devices and the third on 1, 2 or 4 equal three steps on one device."""
    entry, placement = ZOO["remembering"], mesh(some(num), fsdp=fsdp, compiler_options=FAST)
    state = placement.put_state(entry.model, canonical(entry.name, "mesh", STEPS - 1))
    step = placement.train_step(entry.model, entry.tx, ema_decay=EMA)
    state, _ = step(state, placement.put_batch(global_batch(entry)))
    assert_equal_to_rounding(plain(placement.get_state(entry.model, state)), plain(canonical(entry.name, "single")))


def test_fsdp_splits_parameters_and_optimiser():
    """Each of four devices holds a quarter of what the axis can split, along the largest axis."""
    model, placement = ppca(12, 4), mesh(fsdp=4, compiler_options=FAST)
    batch = Batch(np.zeros((8, 12), np.float32))
    state = placement.init_state(model, optax.adam(1e-3), KEY, batch)
    state, _ = placement.train_step(model, optax.adam(1e-3))(state, placement.put_batch(batch))
    for tree in (state.params, state.ema_params, state.opt_state[0].mu, state.opt_state[0].nu):
        shapes = jax.tree.map(lambda leaf: leaf.addressable_shards[0].data.shape, tree)
        assert shapes == {"mean": (3,), "loadings": (3, 4), "log_scale": ()}


@every_placement
def test_the_second_step_compiles_nothing_and_the_state_is_used_up(make):
    entry, placement, compiled = ZOO["remembering"], make(), []
    state = placement.put_state(entry.model, initial(entry.name))
    step, draw = placement.train_step(entry.model, entry.tx), placement.sample(entry.model)
    count = lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        for repeat in range(3):
            before, old = len(compiled), placement.put_state(entry.model, initial(entry.name)) if repeat == 2 else state
            state, _ = step(old, placement.put_batch(global_batch(entry)))
            draw(state.params, jax.random.fold_in(KEY, repeat), NUM)
            assert (len(compiled) > before) == (repeat == 0)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


@every_placement
def test_compiler_options_reach_the_compiler(make):
    """Every placement hands its options on: one that no compiler knows is refused by name."""
    entry, placement = ZOO["remembering"], make(compiler_options={"xla_no_such_option": "1"})
    batch = global_batch(entry)
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        placement.init_state(entry.model, entry.tx, KEY, batch)
    state = make().put_state(entry.model, initial(entry.name))
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        placement.train_step(entry.model, entry.tx)(state, placement.put_batch(batch))
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        placement.sample(entry.model)(state.params, KEY, NUM)


@every_placement
def test_samples_from_canonical_parameters(make):
    """Parameters from a checkpoint are placed by the sampler itself."""
    entry, placement = ZOO["remembering"], make()
    state = canonical(entry.name, "single")
    placed = placement.put_state(entry.model, state)
    draw = placement.sample(entry.model)
    chex.assert_trees_all_equal(draw(state.params, KEY, NUM), draw(placed.params, KEY, NUM))


@pytest.mark.parametrize("make", [pmap, mesh])
def test_what_the_devices_do_not_divide_is_named(make):
    """Batch, labels, number of samples and chains: each with its size and the number of devices."""
    placement, model, tx = make(some(4)), remembering(NUM), optax.sgd(0.1)
    with pytest.raises(ValueError, match="batch of 10 .* 4 devices"):
        placement.put_batch(Batch(np.zeros((10, 2))))
    with pytest.raises(ValueError, match="number of samples of 6 .* 4 devices"):
        placement.sample(model)({"mean": np.ones(2)}, KEY, 6)
    with pytest.raises(ValueError, match="set of labels of 6 .* 4 devices"):
        placement.sample(model)({"mean": np.ones(2)}, KEY, 8, np.arange(6))
    odd = model._replace(init=lambda key, batch: ({"mean": jnp.ones(2)}, {"chains": jnp.ones((6, 2)), "shared": ()}))
    with pytest.raises(ValueError, match="set of chains of 6 .* 4 devices"):
        placement.init_state(odd, tx, KEY, Batch(np.zeros((8, 2), np.float32)))
    wrong = model._replace(carry_spec=PartitionSpec("other"))
    with pytest.raises(ValueError, match="carry_spec must hold .*other"):
        placement.init_state(wrong, tx, KEY, Batch(np.zeros((8, 2), np.float32)))


def test_impossible_devices_are_named():
    with pytest.raises(ValueError, match="fsdp must divide the number of devices, 8, got 3"):
        mesh(fsdp=3)
    with pytest.raises(ValueError, match="fsdp must divide the number of devices, 8, got 0"):
        mesh(fsdp=0)
    for make in (pmap, mesh):
        with pytest.raises(ValueError, match="at least one device"):
            make([])
