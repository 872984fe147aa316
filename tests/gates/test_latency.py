"""The latency limit, at its boundary."""

import pytest

from tasks.gates.latency import LatencyLimit
from tests.gates.conftest import MakeEvidence, variant


@pytest.mark.parametrize(("milliseconds", "passed"), [(4.9, True), (5.0, True), (5.01, False), (float("nan"), False)])
def test_the_limit_itself_passes(milliseconds: float, passed: bool, evidence: MakeEvidence) -> None:
    found = LatencyLimit(maximum_ms=5).check(evidence(chosen=variant(milliseconds=milliseconds)))
    assert found.passed is passed


def test_it_is_the_median_of_the_variant_that_ships(evidence: MakeEvidence) -> None:
    found = LatencyLimit(maximum_ms=5).check(evidence(chosen=variant(milliseconds=2.0), fp32=variant("fp32", milliseconds=9.0)))
    assert (found.measured, found.margin, found.what) == (2.0, 3.0, "median ms for one row of int8")
