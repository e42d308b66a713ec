"""Writes `flow_layers.npz`: what coupling layers of zuko and nflows compute, with the parameters of their networks.

The affine layer is zuko's, with the exponential of a raw parameter as its scale; the spline layer is nflows'.

To be run where torch, zuko and nflows are installed; the tests need none of them. Written with zuko 1.6.0, nflows 0.14
and torch 2.13.0:

    python tests/peers/make_flow_layers_fixture.py
"""

import pathlib

import numpy as np
import torch
from nflows.transforms.coupling import PiecewiseRationalQuadraticCouplingTransform
from zuko.flows.coupling import GeneralCouplingTransform

NUM_DIMS, NUM_KEPT, WIDTH = 5, 2, 8
NUM_BINS, BOUND = 4, 2.0


class Conditioner(torch.nn.Sequential):
    """One hidden layer, as zuko's own; nflows hands over a context, too."""

    def __init__(self, num_inputs, num_outputs):
        super().__init__(torch.nn.Linear(num_inputs, WIDTH), torch.nn.SiLU(), torch.nn.Linear(WIDTH, num_outputs))

    def forward(self, x, context=None):
        return super().forward(x)


def fill(net):
    """The network with every parameter drawn anew, so that outputs stay below 20, and its arrays by name."""
    for parameter in net.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    return {name: parameter.detach() for name, parameter in net.named_parameters()}


def exponential(log_scale, shift):
    return torch.distributions.AffineTransform(shift, log_scale.exp())


def affine(x, y):
    kept = [True] * NUM_KEPT + [False] * (NUM_DIMS - NUM_KEPT)
    layer = GeneralCouplingTransform(
        NUM_DIMS, mask=kept, univariate=exponential, hidden_features=(WIDTH,), activation=torch.nn.SiLU
    )
    found, map_ = fill(layer.hyper), layer()
    z, back = map_(x), map_.inv(y)
    log_dets = map_.log_abs_det_jacobian(x, z), -map_.log_abs_det_jacobian(back, y)
    return {**found, "forward": z, "inverse": back, "forward_log_det": log_dets[0], "inverse_log_det": log_dets[1]}


def spline(x, y):
    mask = torch.tensor([-1] * NUM_KEPT + [1] * (NUM_DIMS - NUM_KEPT))
    layer = PiecewiseRationalQuadraticCouplingTransform(
        mask, Conditioner, num_bins=NUM_BINS, tails="linear", tail_bound=BOUND
    )
    found = fill(layer.transform_net)
    found["forward"], found["forward_log_det"] = layer.forward(x)
    found["inverse"], found["inverse_log_det"] = layer.inverse(y)
    return found


def main():
    torch.manual_seed(0)
    found = {"x": torch.randn(32, NUM_DIMS) * 1.5, "y": torch.randn(32, NUM_DIMS) * 1.5}
    with torch.no_grad():
        for name, layer in (("affine", affine), ("spline", spline)):
            found.update({f"{name}.{key}": value for key, value in layer(found["x"], found["y"]).items()})
    path = pathlib.Path(__file__).with_name("flow_layers.npz")
    np.savez_compressed(path, **{key: value.numpy().astype(np.float32) for key, value in found.items()})


if __name__ == "__main__":
    main()
