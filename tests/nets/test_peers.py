"""Networks against those of other libraries: the same weights, made from their names, give the same images.

`make_peer_outputs.py` ran the others (EDM's DDPM++, NCSN++ and ADM, diffusers' DDPM and DiT) and kept their outputs.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nets import pure
from jaxgen.nets.blocks import ADM, DDPM, DDPM_PLUS, NCSN_PLUS
from jaxgen.nets.dit import DiT
from jaxgen.nets.unet import UNet
from tests.nets.make_peer_outputs import LABELS, LEVELS, images, named

OUTPUTS = np.load(pathlib.Path(__file__).parent / "peer_outputs.npz")
EDM_BLOCK = {"GroupNorm_0": "norm0", "Conv_0": "conv0", "Dense_0": "affine", "GroupNorm_1": "norm1", "Conv_1": "conv1"}
BLOCK = {"GroupNorm_0": "norm1", "Conv_0": "conv1", "Dense_0": "time_emb_proj", "GroupNorm_1": "norm2"}


def waves(*, sine_first, endpoint):
    """Sinusoids of the peers: frequencies 10000^(-i / half), or with both ends, 10000^(-i / (half - 1))."""

    def features(t, num):
        half = num // 2
        angles = t[:, None] * 10_000.0 ** (-jnp.arange(half) / (half - endpoint))
        parts = [jnp.sin(angles), jnp.cos(angles)] if sine_first else [jnp.cos(angles), jnp.sin(angles)]
        return jnp.concatenate(parts, -1)

    return features


def layer(name, shapes):
    """Parameters of a layer: `kernel` or `scale` or `embedding` is what torch calls `weight`."""
    if "embedding" in shapes:
        return {"embedding": named(name + ".weight", shapes["embedding"].shape)}
    kernel = "kernel" if "kernel" in shapes else "scale"
    shape = shapes[kernel].shape
    weight = named(name + ".weight", shape)
    if len(shape) == 2:
        weight = named(name + ".weight", shape[::-1]).T
    elif len(shape) == 4:
        weight = named(name + ".weight", (shape[3], shape[2], *shape[:2])).transpose(2, 3, 1, 0)
    return {kernel: weight, "bias": named(name + ".bias", shapes["bias"].shape)}


def edm_attention(name, shapes, heads):
    """EDM orders the channels of the joint layer by head, channel, and which of the three; we by the last first."""
    joint = layer(name + ".qkv", shapes["Dense_0"])
    width = joint["bias"].size // 3
    order = np.arange(3 * width).reshape(heads, width // heads, 3).transpose(2, 0, 1).reshape(-1)
    joint = {key: value[..., order] for key, value in joint.items()}
    norm, out = layer(name + ".norm", shapes["GroupNorm_0"]), layer(name + ".proj", shapes["Dense_1"])
    return {"GroupNorm_0": norm, "Dense_0": joint, "Dense_1": out}


def joined(names, width):
    """Query, key and value layers side by side."""
    shape = {"kernel": np.zeros((width, width)), "bias": np.zeros(width)}
    parts = [layer(name, shape) for name in names]
    return {key: np.concatenate([part[key] for part in parts], -1) for key in shape}


def block(name, shapes, names, skip):
    return {ours: layer(f"{name}.{names.get(ours, skip)}", shapes[ours]) for ours in shapes}


def compare(net, translate, expected, t=LEVELS):
    x, t, cond = jnp.asarray(images(3).transpose(0, 2, 3, 1)), jnp.asarray(t), jnp.asarray(LABELS)
    shapes = jax.eval_shape(lambda: pure.init(net, jax.random.key(0), x, t, cond))
    params = translate(shapes)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    found = jax.jit(lambda params: pure.apply(net, params, x, t, cond))(params)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def edm(blocks, attentions, heads, last):
    """Translation of EDM's U-Nets: names of the blocks in the order of the computation."""

    def translate(shapes):
        names = {"Conv_0": "enc.8x8_conv", "Dense_0": "map_layer0", "Dense_1": "map_layer1"} | last
        params = {ours: layer(name, shapes[ours]) for ours, name in names.items()}
        for i, name in enumerate(blocks):
            ours = f"ResidualBlock_{i}"
            params[ours] = block(name, shapes[ours], EDM_BLOCK, "skip")
        for i, name in enumerate(attentions):
            ours = f"AttentionBlock_{i}"
            params[ours] = edm_attention(f"{name}.attn", shapes[ours], heads)
        if "Embed_0" in shapes:
            params["Embed_0"] = {"embedding": named("map_label.weight", shapes["Embed_0"]["embedding"].shape[::-1]).T}
        return params

    return translate


BLOCKS = [f"enc.{name}" for name in ("8x8_block0", "4x4_down", "4x4_block0")] + [
    f"dec.{name}" for name in ("4x4_in0", "4x4_in1", "4x4_block0", "4x4_block1", "8x8_up", "8x8_block0", "8x8_block1")
]


def test_ddpm_plus_plus():
    """EDM's SongUNet: residual blocks that resample, rescaled sums, one attention on the way up."""
    style = DDPM_PLUS._replace(features=waves(sine_first=True, endpoint=True))
    attentions = ["enc.4x4_block0", "dec.4x4_in0", "dec.4x4_block1"]
    last = {"GroupNorm_0": "dec.8x8_aux_norm", "out": "dec.8x8_aux_conv"}
    compare(UNet(16, (1, 2), 1, (1,), style=style), edm(BLOCKS, attentions, 1, last), OUTPUTS["song"])


def test_ncsn_plus_plus():
    """EDM's SongUNet with its filter, the image added to each level, and Fourier features of random frequencies."""

    def features(t, num):
        angles = 2 * jnp.pi * t[:, None] * named("map_noise.freqs", (num // 2,))
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)

    attentions = ["enc.4x4_block0", "dec.4x4_in0", "dec.4x4_block1"]
    last = {"GroupNorm_0": "dec.8x8_aux_norm", "out": "dec.8x8_aux_conv", "Conv_1": "enc.4x4_aux_residual"}
    net = UNet(16, (1, 2), 1, (1,), style=NCSN_PLUS._replace(features=features))
    compare(net, edm(BLOCKS, attentions, 1, last), OUTPUTS["ncsn"])


def test_adm():
    """EDM's DhariwalUNet: shift and scale, heads of 64 channels, classes."""
    style = ADM._replace(features=waves(sine_first=False, endpoint=False))
    attentions = ["enc.4x4_block0", "dec.4x4_in0", "dec.4x4_block0", "dec.4x4_block1"]
    last = {"GroupNorm_0": "out_norm", "out": "out_conv"}
    net = UNet(64, (1, 2), 1, (1,), num_classes=3, style=style)
    compare(net, edm(BLOCKS, attentions, 2, last), OUTPUTS["dhariwal"])


def test_ddpm():
    """diffusers' UNet2DModel: convolutions that resample; one group of channels, one head."""

    def translate(shapes):
        names = {"Conv_0": "conv_in", "Conv_1": "down_blocks.0.downsamplers.0.conv"}
        names |= {"Conv_2": "up_blocks.0.upsamplers.0.conv", "GroupNorm_0": "conv_norm_out", "out": "conv_out"}
        names |= {f"Dense_{i}": f"time_embedding.linear_{i + 1}" for i in (0, 1)}
        params = {ours: layer(name, shapes[ours]) for ours, name in names.items()}
        blocks = ["down_blocks.0.resnets.0", "down_blocks.1.resnets.0", "mid_block.resnets.0", "mid_block.resnets.1"]
        blocks += [f"up_blocks.{i}.resnets.{j}" for i in (0, 1) for j in (0, 1)]
        for i, name in enumerate(blocks):
            ours = f"ResidualBlock_{i}"
            params[ours] = block(name, shapes[ours], BLOCK | {"Conv_1": "conv2"}, "conv_shortcut")
        attentions = ["down_blocks.1.attentions.0", "mid_block.attentions.0"]
        for i, name in enumerate([*attentions, "up_blocks.0.attentions.0", "up_blocks.0.attentions.1"]):
            ours = shapes[f"AttentionBlock_{i}"]
            params[f"AttentionBlock_{i}"] = {
                "GroupNorm_0": layer(f"{name}.group_norm", ours["GroupNorm_0"]),
                "Dense_0": joined([f"{name}.to_{part}" for part in "qkv"], 16),
                "Dense_1": layer(f"{name}.to_out.0", ours["Dense_1"]),
            }
        return params

    features = waves(sine_first=False, endpoint=True)
    style = DDPM._replace(features=features, num_groups=lambda channels: 1, head_width=None)
    compare(UNet(8, (1, 2), 1, (1,), style=style), translate, OUTPUTS["ddpm"])


def test_dit():
    """diffusers' DiTTransformer2DModel, whose last class is that of no class."""

    def block_of(shapes, i):
        name, parts = f"transformer_blocks.{i}", {"modulation": "norm1.linear", "Dense_1": "attn1.to_out.0"}
        parts |= {"Dense_2": "ff.net.0.proj", "Dense_3": "ff.net.2"}
        one = jax.tree.map(lambda leaf: leaf[0], jax.tree.map(lambda s: np.zeros(s.shape), shapes))
        params = {ours: layer(f"{name}.{part}", one[ours]) for ours, part in parts.items()}
        return params | {"Dense_0": joined([f"{name}.attn1.to_{part}" for part in "qkv"], 16)}

    def translate(shapes):
        names = {"modulation": "proj_out_1", "out": "proj_out_2", "Embed_0": "emb.class_embedder.embedding_table"}
        names |= {f"Dense_{i}": f"emb.timestep_embedder.linear_{i + 1}" for i in (0, 1)}
        params = {ours: layer(name, shapes[ours]) for ours, name in names.items()}
        kernel = named("pos_embed.proj.weight", (16, 3, 2, 2)).transpose(2, 3, 1, 0).reshape(12, 16)
        params["Dense_2"] = {"kernel": kernel, "bias": named("pos_embed.proj.bias", (16,))}
        blocks = [block_of(shapes["blocks"], i) for i in range(2)]
        return params | {"blocks": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)}

    net = DiT(2, 16, 2, 2, num_classes=4, features=waves(sine_first=False, endpoint=True))
    compare(net, translate, OUTPUTS["dit"])
