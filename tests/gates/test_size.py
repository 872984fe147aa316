"""The size limit, at its boundary."""

import pytest

from tasks.gates.size import SizeLimit
from tests.gates.conftest import MakeEvidence, variant


@pytest.mark.parametrize(("size", "passed"), [(1, True), (500_000, True), (500_001, False)])
def test_the_limit_itself_passes(size: int, passed: bool, evidence: MakeEvidence) -> None:
    found = SizeLimit(maximum_mb=0.5).check(evidence(chosen=variant(size=size)))
    assert found.passed is passed
    assert found.measured == size / 1e6
