"""Metrics of a classifier from its probabilities, with bootstrap intervals.

Written over row weights in numpy rather than with scikit-learn's functions, because a bootstrap asks for each metric a
thousand times; a test holds them equal to scikit-learn's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tasks.core.config import Config
from tasks.core.recipe import LOWER_IS_BETTER, METRICS

Probabilities = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


class Measured(Protocol):
    """What can be measured again and again with other weights."""

    def __len__(self) -> int: ...

    def metrics(self, weights: Weights | None = None) -> dict[str, float]: ...


class Interval(Config):
    """A value with the 2.5 and 97.5 percentiles of its bootstrap distribution."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scored:
    """Rows with what each contributes to every metric, so that a resample is a matter of weights.

    `probabilities` is [rows, classes], `targets` [rows].
    """

    probabilities: Probabilities
    targets: Targets
    bins: int = 15

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def unanswered(self) -> list[int]:
        """Rows that the model has no finite answer for."""
        rows: list[int] = np.flatnonzero(~np.isfinite(self.probabilities).all(axis=1)).tolist()
        return rows

    def metrics(self, weights: Weights | None = None) -> dict[str, float]:
        """Every metric of a classifier, each row counted with its weight.

        Every one is NaN, which no limit lets pass, where a row has no finite probabilities.
        """
        if not self._answered:
            return dict.fromkeys(METRICS["classification"], np.nan)
        w = np.ones(len(self.targets)) if weights is None else weights
        total = w.sum()
        return {
            "accuracy": float((w * self.correct).sum() / total),
            "balanced_accuracy": self._balanced_accuracy(w),
            "macro_f1": self._macro_f1(w),
            "log_loss": float((w * self._losses).sum() / total),
            "calibration_error": self._calibration_error(w) / float(total),
        }

    def save(self, path: Path) -> None:
        np.savez(path, probabilities=self.probabilities, targets=self.targets, bins=self.bins)

    @cached_property
    def predicted(self) -> Targets:
        return np.asarray(self.probabilities.argmax(axis=1))

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.predicted == self.targets)

    @cached_property
    def _answered(self) -> bool:
        return bool(np.isfinite(self.probabilities).all())

    @cached_property
    def _losses(self) -> Weights:
        likelihood = self.probabilities[np.arange(len(self.targets)), self.targets]
        return np.asarray(-np.log(np.clip(likelihood, np.finfo(np.float64).eps, 1)))

    @cached_property
    def _confidence(self) -> tuple[Weights, Targets]:
        confidence = self.probabilities.max(axis=1)
        return self.correct - confidence, np.minimum((confidence * self.bins).astype(np.int64), self.bins - 1)

    def _balanced_accuracy(self, w: Weights) -> float:
        """Mean recall over the classes that occur among the targets."""
        classes = self.probabilities.shape[1]
        count = np.bincount(self.targets, w, classes)
        present = count > 0
        return float((np.bincount(self.targets, w * self.correct, classes)[present] / count[present]).mean())

    def _macro_f1(self, w: Weights) -> float:
        """Mean F1 over the classes that occur among the targets or the predictions."""
        classes = self.probabilities.shape[1]
        hit = np.bincount(self.targets, w * self.correct, classes)
        count = np.bincount(self.targets, w, classes) + np.bincount(self.predicted, w, classes)
        present = count > 0
        return float((2 * hit[present] / count[present]).mean())

    def _calibration_error(self, w: Weights) -> float:
        """Expected calibration error over bins of equal width (Guo et al., 2017), times the sum of weights."""
        gap, place = self._confidence
        return float(np.abs(np.bincount(place, w * gap, self.bins)).sum())


def score(probabilities: Probabilities, targets: Targets, bins: int = 15) -> dict[str, float]:
    """Every metric of one set of rows."""
    return Scored(probabilities, targets, bins).metrics()


def bootstrap(scored: Measured, resamples: int, seed: int = 0) -> dict[str, Interval]:
    """Every metric with its 95 % interval by the percentile bootstrap over rows (Efron, 1979)."""
    value = scored.metrics()
    draws = [scored.metrics(weights) for weights in _resamples(len(scored), resamples, seed)]
    result = {}
    for name in value:
        low, high = np.percentile([draw[name] for draw in draws], [2.5, 97.5])
        result[name] = Interval(value=value[name], low=float(low), high=float(high))
    return result


def paired_difference(new: Measured, old: Measured, metric: str, resamples: int, seed: int = 0) -> Interval:
    """How much better `new` is than `old` on the same rows (positive is better), with its paired bootstrap 95 % interval."""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0

    def difference(weights: Weights | None) -> float:
        return sign * (new.metrics(weights)[metric] - old.metrics(weights)[metric])

    low, high = np.percentile([difference(w) for w in _resamples(len(new), resamples, seed)], [2.5, 97.5])
    return Interval(value=_exact(difference(None)), low=_exact(float(low)), high=_exact(float(high)))


def drop(metric: str, new: float, old: float) -> float:
    """How much worse `new` is than `old`: positive is worse, whichever way the metric points."""
    return _exact(new - old if metric in LOWER_IS_BETTER else old - new)


def _exact(difference: float) -> float:
    """Without the last bits of a subtraction, by which 0.97 − 0.96 would be over a limit of 0.01."""
    return round(difference, 12)


def _resamples(rows: int, count: int, seed: int) -> Iterator[Weights]:
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield np.bincount(random.integers(0, rows, rows), minlength=rows).astype(np.float64)
