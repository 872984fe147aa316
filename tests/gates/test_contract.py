"""What every gate owes, over the whole catalog."""

import json
from typing import Any

import pytest

from tasks.core.config import Origin
from tasks.core.errors import ConfigError
from tasks.core.metrics import Scored
from tasks.core.recipe import METRICS
from tasks.gates import GATES, Champion, Verdict
from tests.gates.conftest import MakeEvidence, scored, unanswered, variant

REQUIRED: dict[str, dict[str, Any]] = {
    "metric_floor": {"minimum": 0.9},
    "metric_ceiling": {"metric": "log_loss", "maximum": 0.5},
    "cross_validation": {"minimum": 0.9},
    "latency": {"maximum_ms": 5},
    "size": {"maximum_mb": 1},
}
"""Options without which a gate cannot be built."""


def spec(kind: str) -> dict[str, Any]:
    return {"kind": kind, **REQUIRED.get(kind, {})}


every_gate = pytest.mark.parametrize("kind", GATES)


@every_gate
def test_a_good_release_passes_and_the_verdict_says_what_was_measured(kind: str, evidence: MakeEvidence) -> None:
    found = GATES.build(spec(kind)).check(evidence(champion=Champion("1", scored(90))))
    assert found.gate == kind
    assert found.passed
    assert found.what
    assert found.limit
    assert found.measured is not None
    assert found.margin is not None
    assert found.margin >= 0


@every_gate
def test_what_is_no_number_passes_no_gate(kind: str, evidence: MakeEvidence) -> None:
    nan = float("nan")
    bad = evidence(
        chosen=variant(test=nan, milliseconds=nan, size=2_000_000),
        parity=nan,
        scored=unanswered(),
        folds=(dict.fromkeys(METRICS["classification"], nan),),
        champion=Champion("1", scored(90)),
    )
    assert not GATES.build(spec(kind)).check(bad).passed


@every_gate
def test_it_judges_the_same_evidence_the_same_way(kind: str, evidence: MakeEvidence) -> None:
    gate, found = GATES.build(spec(kind)), evidence(champion=Champion("1", scored(96)))
    assert gate.check(found) == gate.check(found)


@every_gate
def test_its_verdict_can_be_written_down_and_read_again(kind: str, evidence: MakeEvidence) -> None:
    found = GATES.build(spec(kind)).check(evidence())
    assert Verdict.parse(json.loads(found.model_dump_json())) == found


@every_gate
def test_an_unknown_option_is_told_with_the_known_ones(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"gates\.2\.nonsense: unknown key 'nonsense'"):
        GATES.build({**spec(kind), "nonsense": 1}, Origin().below("gates", 2))


@pytest.mark.parametrize("kind", REQUIRED)
def test_a_limit_that_has_no_default_must_be_given(kind: str) -> None:
    for option in REQUIRED[kind]:
        with pytest.raises(ConfigError, match=f"{option}: this key is missing"):
            GATES.build({name: value for name, value in spec(kind).items() if name != option})


def test_scored_rows_are_what_the_tests_take_them_for() -> None:
    found: Scored = scored(97)
    assert found.metrics()["accuracy"] == 0.97
