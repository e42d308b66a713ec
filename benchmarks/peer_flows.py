"""The peer's side of `benchmarks.flows` in torch: coupling layers of zuko, or of normflows.

It needs `pip install torch zuko normflows`. Layers are the libraries' own, with the conditioner of the benchmark.
"""

from functools import partial
from typing import Any

import torch

from benchmarks.serving import Works, serve, sizes


def mlp(num_inputs: int, num_outputs: int, width: int) -> Any:
    """Two hidden layers."""
    linear, silu = torch.nn.Linear, torch.nn.SiLU
    return torch.nn.Sequential(
        linear(num_inputs, width), silu(), linear(width, width), silu(), linear(width, num_outputs)
    )


class Conditioner(torch.nn.Module):
    """A perceptron that is handed a context, too."""

    def __init__(self, num_inputs: int, num_outputs: int, *, width: int) -> None:
        super().__init__()
        self.net = mlp(num_inputs, num_outputs, width)

    def forward(self, x: Any, context: Any = None) -> Any:
        """Maps x."""
        del context
        return self.net(x)


def zuko_flow(num_dims: int, num_layers: int, num_bins: int, told: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The flow of zuko, its log-density and its draws."""
    import zuko

    options: dict[str, Any] = {"hidden_features": (told["width"],) * 2, "activation": torch.nn.SiLU}
    if num_bins:
        options["univariate"] = partial(zuko.transforms.MonotonicRQSTransform, bound=told["bound"])
        options["shapes"] = [(num_bins,), (num_bins,), (num_bins - 1,)]
    flow = zuko.flows.RealNVP(num_dims, transforms=num_layers, **options)
    return flow, lambda x: flow().log_prob(x), lambda num: flow().sample((num,))


def normflows_flow(num_dims: int, num_layers: int, num_bins: int, told: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The flow of normflows, its log-density and its draws."""
    import normflows as nf
    from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

    half, layers = num_dims // 2, []
    for i in range(num_layers):
        if num_bins:
            mask = nf.utils.masks.create_alternating_binary_mask(num_dims, even=i % 2 == 1)
            layer = nf.flows.CoupledRationalQuadraticSpline(num_dims, 1, told["width"])
            layer.prqct = PiecewiseRationalQuadraticCoupling(
                mask,
                partial(Conditioner, width=told["width"]),
                num_bins=num_bins,
                tails="linear",
                tail_bound=told["bound"],
                apply_unconditional_transform=False,
            )
            layers.append(layer)
        else:
            layers.append(nf.flows.AffineCouplingBlock(mlp(num_dims - half, 2 * half, told["width"])))
            layers.append(nf.flows.Permute(num_dims, mode="swap"))
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(num_dims, trainable=False), layers)
    return flow, flow.log_prob, lambda num: flow.sample(num)[0]


def work(flow: Any, log_prob: Any, sample: Any, told: dict[str, Any], num_dims: int) -> Works:
    """A train step, and draws."""
    optimizer, data = torch.optim.Adam(flow.parameters(), 1e-3, fused=True), torch.randn(told["batch"], num_dims)

    def train() -> None:
        optimizer.zero_grad()
        (-log_prob(data).mean()).backward()
        optimizer.step()

    @torch.no_grad()
    def draw() -> None:
        sample(told["draws"])

    return {"train": train, "sample": draw}


def main() -> None:
    """Builds every case, and serves."""
    told = sizes()
    torch.manual_seed(0)
    torch.set_num_threads(told["threads"])
    build = {"zuko": zuko_flow, "normflows": normflows_flow}[told["library"]]
    library = __import__(told["library"])
    works, params = {}, {}
    for name, (num_dims, num_layers, num_bins) in told["cases"].items():
        flow, log_prob, sample = build(num_dims, num_layers, num_bins, told)
        params[name] = sum(parameter.numel() for parameter in flow.parameters())
        own = work(flow, log_prob, sample, told, num_dims)
        works.update({f"{name} {kind}": call for kind, call in own.items()})
    serve(works, params, {"torch": torch.__version__, told["library"]: library.__version__})


if __name__ == "__main__":
    main()
