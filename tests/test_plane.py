"""The benchmark of flows on the plane: what is missed is 0 for the density itself, and its picture holds its mass."""

import jax
import numpy as np
import pytest

from benchmarks import plane
from experiments.data.toy import DENSITIES
from experiments.errors import UserError
from jaxgen.models.flows.real_nvp import real_nvp


@pytest.mark.parametrize("name", DENSITIES)
def test_the_picture_holds_the_mass_of_each_density(name):
    q = np.exp(np.asarray(DENSITIES[name]().log_prob(plane.pixels())))
    assert q.sum() * (2 * plane.LIMIT / plane.SIDE) ** 2 == pytest.approx(1, abs=0.01)


def test_what_is_missed_is_the_divergence():
    """A flow that is the density itself misses nothing; one shifted by the log of 2 everywhere misses that."""
    density = DENSITIES["rings"]()
    flow = real_nvp(2, num_layers=1, features=(4,))
    for shift in (0.0, np.log(2)):
        exact = flow._replace(log_prob=lambda params, x, cond=None, shift=shift: density.log_prob(x) - shift)
        found = plane.fit(density, exact, 1)
        assert found.missed == pytest.approx(shift, abs=1e-5)
        assert found.mass == pytest.approx(np.exp(-shift), abs=0.01)


def test_the_command_prints_and_draws(tmp_path, capsys):
    flags = ["--steps", "2", "--densities", "two_moons", "--flows", "MAF", "--figure", str(tmp_path / "plane.png")]
    assert plane.main([*flags, "--json", str(tmp_path / "plane.json")]) == 0
    assert "MAF" in capsys.readouterr().out
    assert (tmp_path / "plane.png").read_bytes().startswith(b"\x89PNG")
    assert jax.__version__ in (tmp_path / "plane.json").read_text()


def test_no_step_is_an_error():
    with pytest.raises(UserError, match="--steps must be above 0, got 0"):
        plane.main(["--steps", "0"])
