"""Parity with torch, at its boundary."""

import pytest

from tasks.gates.parity import Parity
from tests.gates.conftest import MakeEvidence


@pytest.mark.parametrize(
    ("parity", "passed"), [(0.0, True), (1e-3, True), (1.0001e-3, False), (float("inf"), False), (float("nan"), False)]
)
def test_the_limit_itself_passes(parity: float, passed: bool, evidence: MakeEvidence) -> None:
    assert Parity().check(evidence(parity=parity)).passed is passed
