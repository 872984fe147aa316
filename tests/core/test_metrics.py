"""Metrics against scikit-learn's, and against the slowest form of their definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score

from tasks.core import metrics
from tasks.core.metrics import Probabilities, Scored, Targets, bootstrap, drop, paired_difference, score
from tasks.core.recipe import METRICS

seeds = st.integers(0, 2**32 - 1)


def rows(seed: int, count: int = 60, classes: int = 4, sharpness: float = 2.0) -> tuple[Probabilities, Targets]:
    """Rows of a model that is right more often than not."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, count)
    logits = random.normal(size=(count, classes)) + sharpness * np.eye(classes)[targets]
    exponents = np.exp(logits)
    return exponents / exponents.sum(axis=1, keepdims=True), targets


def slow_calibration_error(probabilities: Probabilities, targets: Targets, bins: int) -> float:
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    error = 0.0
    for number in range(bins):
        last = number == bins - 1
        inside = (confidence >= number / bins) & ((confidence < (number + 1) / bins) | last)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error


@given(seeds, st.integers(1, 40), st.integers(2, 6))
def test_metrics_are_those_of_scikit_learn(seed: int, count: int, classes: int) -> None:
    probabilities, targets = rows(seed, count, classes)
    found = score(probabilities, targets)
    predicted = probabilities.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(accuracy_score(targets, predicted))
    present = np.unique(targets)
    assert found["balanced_accuracy"] == pytest.approx(recall_score(targets, predicted, labels=present, average="macro"))
    assert found["macro_f1"] == pytest.approx(f1_score(targets, predicted, average="macro", zero_division=0.0))
    assert found["log_loss"] == pytest.approx(log_loss(targets, probabilities, labels=range(classes)))


@given(seeds, st.integers(1, 40), st.integers(2, 20))
def test_calibration_error_is_that_of_its_definition(seed: int, count: int, bins: int) -> None:
    probabilities, targets = rows(seed, count)
    assert score(probabilities, targets, bins)["calibration_error"] == pytest.approx(slow_calibration_error(probabilities, targets, bins))


def test_a_certain_model_falls_into_the_last_bin() -> None:
    assert score(np.eye(3), np.array([0, 1, 0]))["calibration_error"] == pytest.approx(1 / 3)


def test_a_class_held_impossible_costs_much_and_not_infinitely() -> None:
    assert 30 < score(np.eye(2), np.array([1, 0]))["log_loss"] < 40


@given(seeds, st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(any))
def test_a_weight_counts_as_that_many_rows(seed: int, weights: list[int]) -> None:
    probabilities, targets = rows(seed, 12)
    weighted = Scored(probabilities, targets).metrics(np.array(weights, np.float64))
    assert weighted == pytest.approx(score(np.repeat(probabilities, weights, axis=0), np.repeat(targets, weights)))


def test_a_row_without_an_answer_leaves_no_metric_standing() -> None:
    probabilities, targets = rows(0)
    probabilities[3] = np.nan
    assert all(np.isnan(value) for value in score(probabilities, targets).values())


def test_intervals_hold_the_value_and_come_of_the_seed() -> None:
    scored = Scored(*rows(1, 200))
    found = bootstrap(scored, 200, seed=1)
    assert found == bootstrap(scored, 200, seed=1)
    assert found != bootstrap(scored, 200, seed=2)
    for name, value in scored.metrics().items():
        assert found[name].value == value
        assert found[name].low < found[name].high
    assert found["accuracy"].low <= found["accuracy"].value <= found["accuracy"].high


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    truth = Scored(*rows(0, 100_000)).metrics()["accuracy"]
    intervals = [bootstrap(Scored(*rows(seed, 150)), 200)["accuracy"] for seed in range(1, 101)]
    assert 88 <= sum(interval.low <= truth <= interval.high for interval in intervals) <= 100


def test_an_interval_narrows_with_the_root_of_the_rows() -> None:
    few, many = (bootstrap(Scored(*rows(5, count)), 300)["accuracy"] for count in (100, 10_000))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.4)


@pytest.mark.parametrize("metric", METRICS["classification"])
def test_a_better_model_is_better_whichever_way_the_metric_points(metric: str) -> None:
    targets = rows(2, 400)[1]
    good = np.where(np.eye(4)[targets] > 0, 0.94, 0.02)
    wrong = np.where(np.eye(4)[(targets + 1) % 4] > 0, 0.94, 0.02)
    bad = np.where((np.arange(400) % 3 == 0)[:, None], wrong, good)
    better = paired_difference(Scored(good, targets), Scored(bad, targets), metric, 100)
    worse = paired_difference(Scored(bad, targets), Scored(good, targets), metric, 100)
    assert better.low > 0 > worse.high
    assert (better.value, better.low, better.high) == (-worse.value, -worse.high, -worse.low)


def test_a_model_does_not_differ_from_itself() -> None:
    scored = Scored(*rows(3))
    found = paired_difference(scored, scored, "log_loss", 100)
    assert (found.low, found.value, found.high) == (0, 0, 0)


def test_pairing_sees_what_two_intervals_would_not() -> None:
    probabilities, targets = rows(4, 500, sharpness=1.0)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != targets)[:12]
    mended = probabilities.copy()
    mended[wrong] = np.eye(4)[targets[wrong]]
    new, old = Scored(mended, targets), Scored(probabilities, targets)
    assert bootstrap(new, 200)["accuracy"].low < bootstrap(old, 200)["accuracy"].high
    assert paired_difference(new, old, "accuracy", 200).low > 0


def test_a_drop_is_positive_for_worse_and_exact_at_a_limit() -> None:
    assert drop("accuracy", 0.96, 0.97) == 0.01
    assert drop("accuracy", 0.97, 0.96) == -0.01
    assert drop("log_loss", 0.97, 0.96) == 0.01


@pytest.mark.parametrize("metric", METRICS["classification"])
def test_many_rows_have_the_intervals_that_drawing_each_of_them_gives(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = (Scored(rows(seed, 9000)[0], rows(1, 9000)[1]) for seed in (1, 2))
    by_row = bootstrap(new, 600)[metric], paired_difference(new, old, metric, 600)
    monkeypatch.setattr(metrics, "BLOCKS", 2000)
    for found, expected in zip((bootstrap(new, 600)[metric], paired_difference(new, old, metric, 600)), by_row, strict=True):
        width = expected.high - expected.low
        assert found.value == expected.value
        assert (found.low, found.high) != (expected.low, expected.high)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.15 * width)


def test_a_model_on_many_rows_does_not_differ_from_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCKS", 100)
    found = paired_difference(Scored(*rows(3, 500)), Scored(*rows(3, 500)), "macro_f1", 100)
    assert (found.low, found.value, found.high) == (0, 0, 0)
