"""The peer's side of `benchmarks.peers`: a U-Net of diffusers, in torch (`pip install torch diffusers`)."""

from collections.abc import Callable
from typing import Any

from benchmarks.serving import serve, sizes


def build(sizes: dict[str, int]) -> tuple[Any, dict[str, Callable[[], Any]]]:
    """The network, and the three kinds of work."""
    import torch
    from diffusers import DDIMScheduler, UNet2DModel

    torch.manual_seed(0)
    torch.set_num_threads(sizes["threads"])
    channels, batch, side = sizes["channels"], sizes["batch"], sizes["side"]
    net = UNet2DModel(
        sample_size=side,
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=(channels, 2 * channels, 2 * channels),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=channels // 4,
        attention_head_dim=None,
    )
    optimizer, scheduler = torch.optim.Adam(net.parameters(), 1e-3), DDIMScheduler(num_train_timesteps=1000)
    data, labels = torch.randn(batch, 1, side, side), torch.arange(batch)

    def train() -> None:
        noise, times = torch.randn_like(data), torch.randint(0, 1000, (batch,))
        error = net(scheduler.add_noise(data, noise, times), times).sample - noise
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()

    @torch.no_grad()
    def forward() -> None:
        net(data, labels)

    @torch.no_grad()
    def sample() -> None:
        x = torch.randn_like(data)
        scheduler.set_timesteps(sizes["num_steps"])
        for time in scheduler.timesteps:
            x = scheduler.step(net(x, time).sample, time, x).prev_sample

    return net, {"train": train, "forward": forward, "sample": sample}


if __name__ == "__main__":
    import diffusers
    import torch

    net, works = build(sizes())
    count = sum(parameter.numel() for parameter in net.parameters())
    serve(works, count, {"torch": torch.__version__, "diffusers": diffusers.__version__})
