r"""NICE: a normalising flow of vectors by additive coupling layers, which keep volumes, and one scaling.

    (1)  one layer:  (a, b) = split(x),  z = merge(a, b + t(a)),  ln|det dz/dx| = 0
    (2)  layer, reverse, layer, reverse, ..., then z_d = (x_d - m_d) exp(-s_d)

The scaling (2) starts from the first batch, which it standardises.

Source: NICE: Non-linear Independent Components Estimation, https://arxiv.org/abs/1410.8516.
"""

from collections.abc import Sequence

from jaxgen.bijections import actnorm, chain, coupling_layers, flow, shift
from jaxgen.core import Model
from jaxgen.nets.mlp import MLP

__all__ = ["nice"]


def nice(num_dims: int, *, num_layers: int = 4, features: Sequence[int] = (64, 64), num_classes: int = 0) -> Model:
    """Builds NICE with a standard normal base.

    Args:
        num_dims: D >= 2, the number of data dimensions.
        num_layers: number of coupling layers; they run as one `lax.scan`.
        features: widths of the hidden layers of each conditioner, an `MLP`.
        num_classes: number of labels, or width of the vectors, in `cond`; 0 ignores `cond`.

    Returns:
        A `Model` of reals `[n, D]` with exact `log_prob`, `encode` and `decode`; its `init` looks at the batch.

    Raises:
        ValueError: if there are fewer than two dimensions or no layer.

    Source: NICE: Non-linear Independent Components Estimation, https://arxiv.org/abs/1410.8516.
    """

    def net(num_outputs: int) -> MLP:
        return MLP(tuple(features), num_outputs, num_classes, zero_init=True)

    return flow(chain(coupling_layers(num_dims, net, shift(), num_layers=num_layers), actnorm()), (num_dims,))
