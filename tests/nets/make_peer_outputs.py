"""Writes `peer_outputs.npz`: what other libraries' networks compute, with weights and inputs made from their names.

The U-Nets of nvidia-physicsnemo are run in training mode, without dropout: evaluated, their group norm divides by the
unbiased variance, unlike EDM's own.

To be run where torch, diffusers and nvidia-physicsnemo (whose U-Nets are those of EDM) are installed; the tests need
none of them. Written with torch 2.13.0, diffusers 0.42.1 and nvidia-physicsnemo 2.2.2:

    python tests/nets/make_peer_outputs.py
"""

import pathlib
import re
import zlib

import numpy as np

HERE = pathlib.Path(__file__).parent
LEVELS, LABELS = np.array([0.3, 40.0], np.float32), np.array([0, 2])


def named(name, shape):
    """Numbers that depend on a name only: normal, and such that a network of them is tame; scales lie around 1."""
    fan_in = np.prod(shape[1:]) if len(shape) > 1 else 10
    draws = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape) / np.sqrt(fan_in)
    is_scale = len(shape) == 1 and name.endswith("weight")
    return (draws + is_scale).astype(np.float32)


def images(channels):
    """Two images `[2, channels, 8, 8]`."""
    return named(f"images {channels}", (2, channels, 8, 8)) * 14


def fill(module):
    """The module with every parameter made from its name; the blocks of DiT share one embedding."""
    import torch

    for name, parameter in module.named_parameters():
        name = re.sub(r"transformer_blocks\.\d+\.norm1\.emb", "emb", name)
        parameter.data = torch.from_numpy(named(name, tuple(parameter.shape)))
    return module


def song():
    """DDPM++: two levels, attention at the second."""
    from physicsnemo.models.diffusion_unets.song_unet import SongUNet

    sizes = {"model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
    return SongUNet(8, 3, 3, dropout=0.0, **sizes).train()


def ncsn():
    """NCSN++: as `song`, with the filter (1, 3, 3, 1), the image added to each level, and Fourier features."""
    import torch
    from physicsnemo.models.diffusion_unets.song_unet import SongUNet

    sizes = {"model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
    style = {"embedding_type": "fourier", "channel_mult_noise": 2, "encoder_type": "residual"}
    net = SongUNet(8, 3, 3, dropout=0.0, resample_filter=[1, 3, 3, 1], **sizes, **style)
    net.map_noise.freqs = torch.from_numpy(named("map_noise.freqs", tuple(net.map_noise.freqs.shape)))
    return net.train()


def dhariwal():
    """ADM: two levels, attention of two heads at the second, three classes."""
    from physicsnemo.models.diffusion_unets.dhariwal_unet import DhariwalUNet

    sizes = {"model_channels": 64, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
    return DhariwalUNet(8, 3, 3, label_dim=3, dropout=0.0, **sizes).train()


def ddpm():
    """DDPM: two levels, attention at the second and in the middle; one group, so that widths can be small."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        8,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=1,
        norm_eps=1e-6,
        attention_head_dim=None,
        downsample_padding=0,
        freq_shift=1,
    ).eval()


def dit():
    """DiT: two blocks of two heads, patches of two, three classes."""
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=3,
        out_channels=3,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=3,
        norm_eps=1e-6,
    ).eval()


def main():
    """Runs every network once."""
    import torch

    x, t, label = torch.from_numpy(images(3)), torch.from_numpy(LEVELS), torch.from_numpy(LABELS)
    one_hot = torch.nn.functional.one_hot(label, 3).float()
    with torch.no_grad():
        outputs = {
            "song": fill(song())(x, t, None),
            "ncsn": fill(ncsn())(x, t, None),
            "dhariwal": fill(dhariwal())(x, t, one_hot),
            "ddpm": fill(ddpm())(x, t).sample,
            "dit": fill(dit())(x, timestep=t, class_labels=label).sample,
        }
    np.savez(HERE / "peer_outputs.npz", **{name: out.numpy().transpose(0, 2, 3, 1) for name, out in outputs.items()})


if __name__ == "__main__":
    main()
