r"""Masked autoregressive flow: densities in one pass of each network, samples one dimension after the other.

    (1)  one layer:  z_i = x_i exp(s_i) + t_i,  (s_i, t_i) = net_i(x_1, ..., x_{i-1}, cond)
    (2)  layer, reverse, layer, reverse, ...

Source: Masked Autoregressive Flow for Density Estimation, https://arxiv.org/abs/1705.07057.
"""

from collections.abc import Sequence

from jaxgen.bijections import actnorm, autoregressive_layers, chain, flow, scale_shift
from jaxgen.core import Model
from jaxgen.nets.masked import MaskedMLP

__all__ = ["maf"]


def maf(
    num_dims: int,
    *,
    num_layers: int = 5,
    features: Sequence[int] = (64, 64),
    num_classes: int = 0,
    max_log_scale: float = 2.0,
) -> Model:
    """Builds a masked autoregressive flow after a scaling that standardises the first batch.

    Args:
        num_dims: D, the number of data dimensions.
        num_layers: number of autoregressive layers; they run as one `lax.scan`.
        features: widths of the hidden layers of each network, a `MaskedMLP`.
        num_classes: number of labels, or width of the vectors, in `cond`; 0 ignores `cond`.
        max_log_scale: soft bound of |s|; a small one keeps what is far from all training data from being thrown
            further still.

    Returns:
        A `Model` of reals `[n, D]` with exact `log_prob`, `encode` and `decode`; sampling takes D steps of each
        network, as many products as one evaluation. Its `init` looks at the batch.

    Raises:
        ValueError: if there is no dimension or no layer, or the bound is not positive.

    Source: Masked Autoregressive Flow for Density Estimation, https://arxiv.org/abs/1705.07057.
    """

    def net(outputs_per_dim: int) -> MaskedMLP:
        return MaskedMLP(tuple(features), outputs_per_dim, num_classes, zero_init=True)

    layers = autoregressive_layers(num_dims, net, scale_shift(max_log_scale=max_log_scale), num_layers=num_layers)
    return flow(chain(actnorm(), layers), (num_dims,))
