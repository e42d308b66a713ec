r"""Neural spline flows: coupling or autoregressive layers whose elements go through monotone splines.

    (1)  coupling:        (a, b) = split(x),  z = merge(a, spline(b; net(a))), then a learned linear map
    (2)  autoregressive:  z_i = spline(x_i; net_i(x_1, ..., x_{i-1})), then the reverse order

Splines act inside [-bound, bound]; what is further out stays as it is, so a scaling that standardises the first batch
comes first. Images: `glow(shape, elementwise=rational_quadratic_spline())`.

Source: Neural Spline Flows, https://arxiv.org/abs/1906.04032.
"""

from collections.abc import Sequence

from jaxgen.bijections import (
    actnorm,
    autoregressive_layers,
    chain,
    coupling_layers,
    flow,
    invertible_1x1,
    rational_quadratic_spline,
)
from jaxgen.core import Model
from jaxgen.nets.masked import MaskedMLP
from jaxgen.nets.mlp import MLP

__all__ = ["neural_spline_flow", "neural_spline_flow_autoregressive"]


def neural_spline_flow(
    num_dims: int,
    *,
    num_layers: int = 4,
    features: Sequence[int] = (64, 64),
    num_bins: int = 8,
    bound: float = 5.0,
    num_classes: int = 0,
) -> Model:
    """Builds a neural spline flow of coupling layers (1).

    Args:
        num_dims: D >= 2, the number of data dimensions.
        num_layers: number of coupling layers; they run as one `lax.scan`.
        features: widths of the hidden layers of each conditioner, an `MLP`.
        num_bins: bins of each spline.
        bound: splines act on [-bound, bound], in standard deviations of the first batch.
        num_classes: number of labels, or width of the vectors, in `cond`; 0 ignores `cond`.

    Returns:
        A `Model` of reals `[n, D]` with exact `log_prob`, `encode` and `decode`; its `init` looks at the batch.

    Raises:
        ValueError: if there are fewer than two dimensions or no layer, or a number is out of range.

    Source: Neural Spline Flows, https://arxiv.org/abs/1906.04032.
    """

    def net(num_outputs: int) -> MLP:
        return MLP(tuple(features), num_outputs, num_classes, zero_init=True)

    spline = rational_quadratic_spline(num_bins, bound=bound)
    layers = coupling_layers(num_dims, net, spline, num_layers=num_layers, mix=invertible_1x1())
    return flow(chain(actnorm(), layers), (num_dims,))


def neural_spline_flow_autoregressive(
    num_dims: int,
    *,
    num_layers: int = 4,
    features: Sequence[int] = (64, 64),
    num_bins: int = 8,
    bound: float = 5.0,
    num_classes: int = 0,
) -> Model:
    """Builds a neural spline flow of autoregressive layers (2).

    Args:
        num_dims: D, the number of data dimensions.
        num_layers: number of autoregressive layers; they run as one `lax.scan`.
        features: widths of the hidden layers of each network, a `MaskedMLP`.
        num_bins: bins of each spline.
        bound: splines act on [-bound, bound], in standard deviations of the first batch.
        num_classes: number of labels, or width of the vectors, in `cond`; 0 ignores `cond`.

    Returns:
        A `Model` of reals `[n, D]` with exact `log_prob`, `encode` and `decode`; sampling takes D steps of each
        network, as many products as one evaluation. Its `init` looks at the batch.

    Raises:
        ValueError: if there is no dimension or no layer, or a number is out of range.

    Source: Neural Spline Flows, https://arxiv.org/abs/1906.04032.
    """

    def net(outputs_per_dim: int) -> MaskedMLP:
        return MaskedMLP(tuple(features), outputs_per_dim, num_classes, zero_init=True)

    spline = rational_quadratic_spline(num_bins, bound=bound)
    layers = autoregressive_layers(num_dims, net, spline, num_layers=num_layers)
    return flow(chain(actnorm(), layers), (num_dims,))
