"""What compression may cost, at its boundary."""

import pytest

from tasks.gates.metric_drop import MetricDrop
from tests.gates.conftest import MakeEvidence, variant


@pytest.mark.parametrize(("chosen", "passed"), [(0.98, True), (0.97, True), (0.96, True), (0.9599, False)])
def test_the_limit_itself_passes(chosen: float, passed: bool, evidence: MakeEvidence) -> None:
    # 0.97 − 0.96 is a hair over 0.01 in floating point.
    found = MetricDrop(maximum=0.01).check(evidence(chosen=variant(test=chosen), fp32=variant("fp32", test=0.97)))
    assert found.passed is passed
    assert found.measured == pytest.approx(0.97 - chosen)


@pytest.mark.parametrize(("chosen", "passed"), [(0.10, True), (0.21, True), (0.2101, False)])
def test_a_loss_drops_by_rising(chosen: float, passed: bool, evidence: MakeEvidence) -> None:
    found = MetricDrop(maximum=0.01).check(evidence(metric="log_loss", chosen=variant(test=chosen), fp32=variant("fp32", test=0.2)))
    assert found.passed is passed


def test_fp32_loses_nothing_to_itself(evidence: MakeEvidence) -> None:
    fp32 = variant("fp32")
    found = MetricDrop(maximum=0.0).check(evidence(chosen=fp32, fp32=fp32))
    assert (found.passed, found.measured) == (True, 0.0)


def test_a_variant_that_was_never_measured_is_a_mistake_of_ours(evidence: MakeEvidence) -> None:
    with pytest.raises(ValueError, match="variant int8 was never measured"):
        MetricDrop().check(evidence(chosen=variant().model_copy(update={"measurements": None})))
