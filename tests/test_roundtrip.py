"""The benchmark of what flows lose there and back: a flow whose inverse is exact, one that is wrong, bad input."""

import pytest

from benchmarks import roundtrip
from experiments.errors import UserError
from jaxgen.models.flows.nice import nice


def test_a_flow_loses_rounding_and_a_wrong_inverse_is_seen():
    model = nice(4)
    assert roundtrip.there_and_back(model, (4,), 0.1, 8)["largest"] < 1e-5
    wrong = model._replace(decode=lambda params, z, cond=None: model.decode(params, z) + 0.5)
    found = roundtrip.there_and_back(wrong, (4,), 0.1, 8)
    assert found["largest"] == pytest.approx(0.5, abs=1e-4)
    assert found["rms"] == pytest.approx(0.5, abs=1e-4)


def test_the_table_and_bad_input(capsys):
    assert roundtrip.main(["--flows", "nice", "--num", "4"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("nice")
    with pytest.raises(UserError, match="--scale must be above 0, got 0.0"):
        roundtrip.main(["--scale", "0"])
