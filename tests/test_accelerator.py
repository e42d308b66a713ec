"""Counted operations against XLA's own count and closed forms, and the command on small networks."""

import json

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from benchmarks import accelerator
from benchmarks.flops import products
from experiments.errors import UserError
from jaxgen.nets.dit import DiT
from jaxgen.nets.transformer import Transformer
from jaxgen.nets.winograd import Conv


def test_a_product_is_counted_as_xla_counts_it():
    a, b = jnp.ones((3, 5, 7)), jnp.ones((3, 7, 11))
    multiply = jax.jit(jax.lax.batch_matmul)
    assert products(multiply, a, b) == 2 * 3 * 5 * 7 * 11 == multiply.lower(a, b).compile().cost_analysis()["flops"]


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("layer", [nn.Conv, Conv])
def test_a_convolution_counts_every_weight_at_every_output(groups, layer):
    conv, x = layer(12, (3, 5), padding="VALID", use_bias=False, feature_group_count=groups), jnp.ones((2, 9, 8, 4))
    params = conv.init(jax.random.key(0), x)
    assert products(conv.apply, params, x) == 2 * (2 * 7 * 4 * 12) * (3 * 5 * 4 // groups)
    assert products(conv.apply, params, x) == jax.jit(conv.apply).lower(params, x).compile().cost_analysis()["flops"]


def test_loops_count_their_rounds_and_branches_the_dearest():
    a = jnp.ones((4, 4))
    loop = lambda a: jax.lax.scan(lambda x, _: (x @ a, None), a, length=6)[0]  # noqa: E731
    branches = lambda i, a: jax.lax.switch(i, [lambda a: a, lambda a: a @ a @ a, lambda a: a @ a], a)  # noqa: E731
    assert products(loop, a) == 6 * 2 * 4**3
    assert products(branches, 0, a) == 2 * 2 * 4**3
    assert products(jax.checkpoint(jnp.matmul), a, a) == 2 * 4**3


def test_a_train_step_of_a_perceptron_is_three_forward_passes():
    """The products of a gradient in the inputs and the weights, by autodiff."""
    weights, x = [jnp.ones((8, 8))] * 2, jnp.ones((5, 8))
    loss = lambda weights, x: jnp.tanh(jnp.tanh(x @ weights[0]) @ weights[1]).sum()  # noqa: E731
    assert products(jax.grad(loss, (0, 1)), weights, x) == 3 * products(loss, weights, x)


def test_the_published_sizes():
    counts = {}
    for name, work in accelerator.WORKS.items():
        model, batch = accelerator.model_of(work, {}), jax.eval_shape(lambda work=work: accelerator.data(work))
        params = jax.eval_shape(model.init, jax.random.key(0), batch)[0]
        counts[name] = round(sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6, 1)
    assert counts == {"ddpm++": 61.8, "dit": 129.5, "gpt2": 124.4}


SMALL = {"dit": DiT(4, 16, 1, 2), "gpt2": Transformer(11, (6,), width=16, depth=1, num_heads=2)}


def test_the_command(monkeypatch, capsys, tmp_path):
    """On small networks, a transformer in the place of the U-Net, which takes long to compile."""
    small = accelerator.WORKS["dit"]._replace(net=SMALL["dit"], shape=(8, 8, 3), batch=2)
    works = {"ddpm++": small._replace(variants={"float32": {}}), "dit": small}
    monkeypatch.setattr(accelerator, "WORKS", works)
    monkeypatch.setattr(accelerator, "IMAGES", (8, 8, 3))
    monkeypatch.setattr(accelerator, "SIDE", 64)
    assert (
        accelerator.main(
            ["--networks", "ddpm++,dit", "--repeats", "1", "--seconds", "0.01", "--json", str(tmp_path / "found.json")]
        )
        == 0
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(row["network"], row["variant"]) for row in found["rows"]] == [
        (name, variant) for name, work in works.items() for variant in work.variants
    ]
    for row in found["rows"]:
        per_example = accelerator.train_flops(works[row["network"]]) / 2
        assert row["flops_per_second"] == pytest.approx(row["examples_per_second"] * per_example)
        assert row["memory"] > 0
    assert "x 50 evaluations" in capsys.readouterr().out


def test_a_variant_that_does_not_fit_is_left_out_and_said(monkeypatch, capsys):
    work = accelerator.WORKS["gpt2"]._replace(net=SMALL["gpt2"], shape=(6,), num_levels=11, batch=2)
    monkeypatch.setattr(accelerator, "WORKS", {"gpt2": work})
    monkeypatch.setattr(accelerator, "SIDE", 64)
    compiled, tried = accelerator.compiled, []

    def without_room(work, fields, start):
        step = compiled(work, fields, start)

        def call():
            tried.append(1)
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 50.64GiB")

        return step if fields else step._replace(call=call)

    monkeypatch.setattr(accelerator, "compiled", without_room)
    assert accelerator.main(["--networks", "gpt2", "--repeats", "1", "--seconds", "0.01"]) == 0
    out, err = capsys.readouterr()
    assert tried
    assert "gpt2 float32: RESOURCE_EXHAUSTED: Out of memory" in err
    assert "float32 " not in out.split("variant")[1]
    assert "bfloat16, fused" in out


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--networks", "alexnet"], "alexnet"), (["--repeats", "0"], "--repeats must be above 0, got 0")],
)
def test_bad_flags_are_named(flags, said):
    with pytest.raises(UserError, match=said):
        accelerator.main(flags)
