"""A floor under a metric, at its boundary."""

import pytest

from tasks.core.errors import ConfigError
from tasks.gates.metric_floor import MetricFloor
from tests.gates.conftest import MakeEvidence, scored


@pytest.mark.parametrize(("correct", "passed"), [(95, False), (96, True), (97, True)])
def test_the_floor_itself_passes(correct: int, passed: bool, evidence: MakeEvidence) -> None:
    found = MetricFloor(minimum=0.96).check(evidence(scored=scored(correct)))
    assert found.passed is passed
    assert found.margin == pytest.approx(correct / 100 - 0.96)
    assert (found.what, found.limit) == ("test accuracy of int8", "≥ 0.96")


def test_another_metric_than_the_headline_can_have_a_floor(evidence: MakeEvidence) -> None:
    # One class of two is never right, so macro F1 is half of accuracy's harmonic part.
    found = MetricFloor(metric="macro_f1", minimum=0.9).check(evidence(scored=scored(97)))
    assert found.measured == pytest.approx(0.97 / (1.97))
    assert not found.passed


@pytest.mark.parametrize("minimum", [-0.1, 1.1, 96])
def test_a_floor_is_a_share(minimum: float) -> None:
    with pytest.raises(ConfigError, match=r"^minimum"):
        MetricFloor.parse({"minimum": minimum})
