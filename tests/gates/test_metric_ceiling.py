"""A ceiling over a metric, at its boundary."""

import numpy as np
import pytest

from tasks.core.errors import ConfigError
from tasks.core.language import ScoredText
from tasks.gates.metric_ceiling import MetricCeiling
from tests.gates.conftest import MakeEvidence, scored

TEXT = ScoredText(np.array([100.0, 300.0]), np.array([100.0, 100.0]), np.array([200.0, 200.0]), np.zeros(200, np.int64))
"""One nat a character, two a token."""


@pytest.mark.parametrize(("maximum", "passed"), [(0.99, False), (1.0, True), (1.5, True)])
def test_the_ceiling_itself_passes(maximum: float, passed: bool, evidence: MakeEvidence) -> None:
    found = MetricCeiling(metric="nats", maximum=maximum).check(evidence(metric="nats", scored=TEXT))
    assert found.passed is passed
    assert found.measured == 1.0
    assert found.margin == pytest.approx(maximum - 1.0)
    assert (found.what, found.limit) == ("test nats of int8", f"≤ {maximum:g}")


def test_each_metric_has_its_own_scale(evidence: MakeEvidence) -> None:
    release = evidence(metric="nats", scored=TEXT)
    assert MetricCeiling(metric="perplexity", maximum=1).check(release).measured == pytest.approx(np.exp(2.0))
    assert MetricCeiling(metric="bits", maximum=1).check(release).measured == pytest.approx(1 / np.log(2))


def test_a_classifier_can_have_a_ceiling_too(evidence: MakeEvidence) -> None:
    found = MetricCeiling(metric="log_loss", maximum=0.2).check(evidence(scored=scored(97)))
    assert found.measured == pytest.approx(-0.97 * np.log(0.9) - 0.03 * np.log(0.1))
    assert found.passed


def test_a_metric_of_another_task_passes_nothing(evidence: MakeEvidence) -> None:
    assert not MetricCeiling(metric="perplexity", maximum=1e9).check(evidence(scored=scored(97))).passed


@pytest.mark.parametrize(
    "values", [{"maximum": 1}, {"metric": "nats"}, {"metric": "accuracy", "maximum": 1}, {"metric": "nats", "maximum": -1}]
)
def test_a_ceiling_names_a_metric_that_is_better_the_lower_it_is(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"metric|maximum"):
        MetricCeiling.parse(values)
