"""Coupling layers against those of zuko and nflows with the same parameters, see make_flow_layers_fixture.py."""

import math
import pathlib

import jax
import numpy as np
import pytest

from jaxgen import bijections as b
from jaxgen.nets.mlp import MLP

FIXTURE = np.load(pathlib.Path(__file__).with_name("flow_layers.npz"))
NUM_CHANGED, NUM_BINS = 3, 4
TO_ONE = math.log(math.expm1(1 - 1e-3))
"""What our slopes add before the softplus, so that raw parameters of zero are the identity; nflows adds nothing."""
CASES = {
    "affine": (b.scale_shift(max_log_scale=math.inf), 0.0),
    "spline": (
        b.rational_quadratic_spline(NUM_BINS, bound=2.0),
        np.tile(np.repeat([0.0, 0.0, TO_ONE], [NUM_BINS, NUM_BINS, NUM_BINS - 1]), NUM_CHANGED),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_log_determinants_of_both_ways_are_those_of_the_peer_to_1e_5(name):
    elementwise, constant = CASES[name]
    dense = [{"kernel": FIXTURE[f"{name}.{i}.weight"].T, "bias": FIXTURE[f"{name}.{i}.bias"]} for i in (0, 2)]
    params = {"Dense_0": dense[0], "Dense_1": {**dense[1], "bias": dense[1]["bias"] - constant}}
    bijection = b.coupling(MLP((8,), NUM_CHANGED * elementwise.num_params), elementwise=elementwise)
    for field, data, way in (("forward_and_log_det", "x", "forward"), ("inverse_and_log_det", "y", "inverse")):
        found, log_det = jax.jit(getattr(bijection, field))(params, FIXTURE[data])
        np.testing.assert_allclose(found, FIXTURE[f"{name}.{way}"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(log_det, FIXTURE[f"{name}.{way}_log_det"], rtol=0, atol=1e-5)
