r"""Inverse autoregressive flow: samples in one pass of each network, densities one dimension after the other.

    (1)  one layer:  x_i = z_i exp(s_i) + t_i,  (s_i, t_i) = net_i(z_1, ..., z_{i-1}, cond)
    (2)  layer, reverse, layer, reverse, ...

Source: Improving Variational Inference with Inverse Autoregressive Flow, https://arxiv.org/abs/1606.04934.
"""

from collections.abc import Sequence

from jaxgen.bijections import actnorm, autoregressive_layers, chain, flow, scale_shift
from jaxgen.core import Model
from jaxgen.nets.masked import MaskedMLP

__all__ = ["iaf"]


def iaf(num_dims: int, *, num_layers: int = 5, features: Sequence[int] = (64, 64), num_classes: int = 0) -> Model:
    """Builds an inverse autoregressive flow after a scaling that standardises the first batch.

    Args:
        num_dims: D, the number of data dimensions.
        num_layers: number of autoregressive layers; they run as one `lax.scan`.
        features: widths of the hidden layers of each network, a `MaskedMLP`.
        num_classes: number of labels, or width of the vectors, in `cond`; 0 ignores `cond`.

    Returns:
        A `Model` of reals `[n, D]` with exact `log_prob`, `encode` and `decode`; its likelihoods, and so its training,
        take D steps of each network one after the other, its samples one evaluation. Its `init` looks at the batch.

    Raises:
        ValueError: if there is no dimension or no layer.

    Source: Improving Variational Inference with Inverse Autoregressive Flow, https://arxiv.org/abs/1606.04934.
    """

    def net(outputs_per_dim: int) -> MaskedMLP:
        return MaskedMLP(tuple(features), outputs_per_dim, num_classes, zero_init=True)

    layers = autoregressive_layers(num_dims, net, scale_shift(), num_layers=num_layers, inverse=True)
    return flow(chain(actnorm(), layers), (num_dims,))
