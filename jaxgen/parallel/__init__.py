r"""Many devices: three placements of the one train step and of sampling.

A step g(state, batch) is written in the global view. On D devices, with the batch in equal parts x_1 .. x_D:

    (1)  single:  g on one device.
    (2)  mesh:    the same g, compiled once for all devices; the compiler splits it. Random numbers do not depend on D,
         so that D devices agree with one to float rounding.
    (3)  pmap:    every device i runs g on x_i with the key fold_in(key, i), where the gradient is the mean
         (1/D) sum_i grad L(params, carry_i, x_i); metrics and the memory that all share are averaged likewise. Another
         number of devices draws other noise.

The *canonical* state is what one device holds: no device axis, chains concatenated, host arrays. `put_state` and
`get_state` go between it and the placed state, so that what was trained under one placement resumes under any other.

With several processes, every process calls the same functions with the same global arguments.

Source: Sharded computation, https://docs.jax.dev/en/latest/sharded-computation.html.
"""

from jaxgen.parallel.global_view import FSDP_AXIS, mesh
from jaxgen.parallel.per_device import pmap
from jaxgen.parallel.placement import Placement, single

__all__ = ["FSDP_AXIS", "Placement", "mesh", "pmap", "single"]
