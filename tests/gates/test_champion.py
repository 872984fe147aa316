"""Not worse than what is served, beyond chance."""

import pytest

from tasks.core.recipe import METRICS
from tasks.gates import Champion
from tasks.gates.champion import NotWorseThanChampion
from tests.gates.conftest import MakeEvidence, scored, unanswered


def test_the_first_release_has_nobody_to_be_compared_with(evidence: MakeEvidence) -> None:
    found = NotWorseThanChampion().check(evidence(champion=None))
    assert (found.passed, found.what) == (True, "no champion yet")


@pytest.mark.parametrize(("champion", "passed"), [(90, True), (97, True), (98, True), (100, True), (0, True)])
def test_better_equal_and_not_shown_to_be_worse_pass(champion: int, passed: bool, evidence: MakeEvidence) -> None:
    # Three rows fewer of a hundred may be chance: some resamples of the rows hold none of them.
    assert NotWorseThanChampion().check(evidence(champion=Champion("3", scored(champion)))).passed is passed


def test_worse_beyond_chance_fails_and_says_by_how_much(evidence: MakeEvidence) -> None:
    found = NotWorseThanChampion().check(evidence(scored=scored(80), champion=Champion("3", scored(97))))
    assert not found.passed
    assert found.what.startswith("test accuracy beside champion 3: -0.1700 [-0.2")
    assert found.measured is not None
    assert found.margin == found.measured < 0


def test_worse_by_no_more_than_the_tolerance_passes(evidence: MakeEvidence) -> None:
    release = evidence(scored=scored(0), champion=Champion("3", scored(100)))
    assert NotWorseThanChampion(tolerance=1.0).check(release).passed
    assert not NotWorseThanChampion(tolerance=0.99).check(release).passed


@pytest.mark.parametrize("metric", METRICS["classification"])
def test_every_headline_metric_shows_a_worse_release(metric: str, evidence: MakeEvidence) -> None:
    worse = evidence(metric=metric, scored=scored(50), champion=Champion("3", scored(90)))
    better = evidence(metric=metric, scored=scored(90), champion=Champion("3", scored(50)))
    assert not NotWorseThanChampion().check(worse).passed
    assert NotWorseThanChampion().check(better).passed


def test_a_champion_that_cannot_take_the_rows_stops_the_release_and_says_why(evidence: MakeEvidence) -> None:
    found = NotWorseThanChampion().check(evidence(champion=Champion("3", None, "its labels are cat, dog")))
    assert not found.passed
    assert found.what == "cannot be compared with champion 3: its labels are cat, dog"


def test_a_release_without_answers_is_worse_than_any_champion(evidence: MakeEvidence) -> None:
    assert not NotWorseThanChampion().check(evidence(scored=unanswered(), champion=Champion("3", scored(1)))).passed
