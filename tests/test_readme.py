"""What the README says is so: its code runs, and its table is what the models define."""

import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxgen
from jaxgen.distributions import categorical_conditional, normal_likelihood
from jaxgen.nets.made import MADE
from jaxgen.nets.mlp import MLP
from jaxgen.nets.time import TimeMLP
from jaxgen.nets.tokens import TokenNet
from jaxgen.paths import transitions

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
NET = TimeMLP((4,))
MODELS = {
    "ppca": jaxgen.ppca(2, 1),
    "nice": jaxgen.nice(2),
    "real_nvp": jaxgen.real_nvp(2),
    "maf": jaxgen.maf(2),
    "iaf": jaxgen.iaf(2),
    "neural_spline_flow": jaxgen.neural_spline_flow(2),
    "neural_spline_flow_autoregressive": jaxgen.neural_spline_flow_autoregressive(2),
    "real_nvp_image": jaxgen.real_nvp_image((4, 4, 1)),
    "glow": jaxgen.glow((4, 4, 1)),
    "ffjord": jaxgen.ffjord(NET, (2,)),
    "residual_flow": jaxgen.residual_flow(2),
    "autoregressive": jaxgen.autoregressive(MADE(2, (4,), (3,)), (3,), categorical_conditional(2)),
    "vae": jaxgen.vae(MLP((), 2), MLP((), 2), normal_likelihood(), latent_dim=1),
    "rbm": jaxgen.rbm(2, 1),
    "gan": jaxgen.gan(MLP((), 2), MLP((), 1), 1),
    "diffusion": jaxgen.diffusion(NET, (2,)),
    "vdm": jaxgen.vdm(NET, (2,)),
    "consistency": jaxgen.consistency(NET, (2,)),
    "continuous_consistency": jaxgen.continuous_consistency(NET, (2,)),
    "mean_flow": jaxgen.mean_flow(NET, (2,)),
    "shortcut": jaxgen.shortcut(NET, (2,)),
    "masked_diffusion": jaxgen.masked_diffusion(TokenNet(NET, 4, 5), (3,), 4),
    "d3pm": jaxgen.d3pm(TokenNet(NET, 4, 4), (3,), transitions.gaussian(4, 3)),
}
COLUMNS = ("log_prob", "log_weight", "elbo", "energy", "score")
TABLE = re.search(r"^\| model .*?\n\n", README, re.MULTILINE | re.DOTALL)[0]


def test_the_example_runs_and_learns():
    """The flow's density against the normal density that drew the data."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.strip().splitlines()) <= 20
    names = {}
    exec(code, names)  # noqa: S102
    scale = np.array([[1.0, 0.8], [0.0, 0.6]])
    exact = stats.multivariate_normal(np.zeros(2), scale.T @ scale).logpdf(np.asarray(names["x"]))
    assert abs(names["log_prob"].mean() - exact.mean()) < 0.1
    assert names["samples"].shape == (16, 2)
    assert jnp.all(jnp.isfinite(names["gradient"]))


def test_every_model_of_the_table_is_here():
    rows = [row.split("|")[1] for row in TABLE.splitlines()[2:] if row]
    assert sorted(re.findall(r"`(\w+)", " ".join(rows))) == sorted(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_the_table_says_what_is_defined(name):
    (row,) = re.findall(rf"^\| [^|]*`{name}[`(].*$", TABLE, re.MULTILINE)
    cells = [cell.strip() for cell in row.split("|")[2:8]]
    defined = [getattr(MODELS[name], column) is not None for column in COLUMNS]
    assert [cell == "yes" for cell in cells[:5]] == defined
    coded = [getattr(MODELS[name], column) is not None for column in ("encode", "decode")]
    assert [cell.strip() == "yes" for cell in (cells[5] or "/").split("/")] == coded
