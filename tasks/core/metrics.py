"""Metrics of a classifier from its probabilities, with bootstrap intervals.

Written over row weights in numpy rather than with scikit-learn's functions, because a bootstrap asks for each metric a
thousand times; a test holds them equal to scikit-learn's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from tasks.core.config import Config
from tasks.core.recipe import LOWER_IS_BETTER, METRICS

Probabilities = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]

BLOCKS: Final = 25_000
"""So many blocks of rows are drawn from, where there are more than four rows for each: a thousand draws of every row of
millions would take minutes. Sums over blocks of rows that were put together at random vary as those over rows do."""


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
class _Sums:
    """What every metric follows from, each a sum over rows times their weights."""

    count: Weights
    """[classes], of rows by target."""
    hits: Weights
    """[classes], of rows by target, where the prediction is right."""
    guesses: Weights
    """[classes], of rows by prediction."""
    gaps: Weights
    """[bins], of correctness less confidence, by confidence."""
    loss: float
    total: float

    def metrics(self) -> dict[str, float]:
        return {
            "accuracy": float(self.hits.sum() / self.total),
            "balanced_accuracy": self._balanced_accuracy(),
            "macro_f1": self._macro_f1(),
            "log_loss": self.loss / self.total,
            "calibration_error": float(np.abs(self.gaps).sum()) / self.total,
        }

    def _balanced_accuracy(self) -> float:
        """Mean recall over the classes that occur among the targets."""
        present = self.count > 0
        return float((self.hits[present] / self.count[present]).mean())

    def _macro_f1(self) -> float:
        """Mean F1 over the classes that occur among the targets or the predictions."""
        count = self.count + self.guesses
        present = count > 0
        return float((2 * self.hits[present] / count[present]).mean())


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
        if not self.answered:
            return dict.fromkeys(METRICS["classification"], np.nan)
        w = np.ones(len(self.targets)) if weights is None else weights
        classes = self.probabilities.shape[1]
        gap, place = self.gaps
        return _Sums(
            count=_tally(self.targets, w, classes),
            hits=_tally(self.targets, w * self.correct, classes),
            guesses=_tally(self.predicted, w, classes),
            gaps=_tally(place, w * gap, self.bins),
            loss=float((w * self.losses).sum()),
            total=float(w.sum()),
        ).metrics()

    def save(self, path: Path) -> None:
        np.savez(path, probabilities=self.probabilities, targets=self.targets, bins=self.bins)

    @cached_property
    def predicted(self) -> Targets:
        return np.asarray(self.probabilities.argmax(axis=1))

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.predicted == self.targets)

    @cached_property
    def answered(self) -> bool:
        """Whether every row has finite probabilities."""
        return bool(np.isfinite(self.probabilities).all())

    @cached_property
    def losses(self) -> Weights:
        likelihood = self.probabilities[np.arange(len(self.targets)), self.targets]
        return np.asarray(-np.log(np.clip(likelihood, np.finfo(np.float64).eps, 1)))

    @cached_property
    def gaps(self) -> tuple[Weights, Targets]:
        """Correctness less confidence, and the bin of the confidence: of equal width, as expected calibration error (Guo et al., 2017) has it."""
        confidence = self.probabilities.max(axis=1)
        return self.correct - confidence, np.minimum((confidence * self.bins).astype(np.int64), self.bins - 1)


@dataclass(frozen=True)
class _Blocks:
    """The sums of many rows by block; each array is [blocks, …] of what `_Sums` has."""

    count: Weights
    hits: Weights
    guesses: Weights
    gaps: Weights
    loss: Weights
    total: Weights

    @classmethod
    def of(cls, scored: Scored) -> Self:
        """Rows are dealt out by their number of rows alone, so that two models on the same rows have the same blocks."""
        block = np.random.default_rng(len(scored)).permutation(len(scored)) % BLOCKS
        classes = scored.probabilities.shape[1]
        gap, place = scored.gaps

        ones = np.ones(len(scored))

        def by_block(column: Targets, columns: int, values: Weights = ones) -> Weights:
            return _tally(block * columns + column, values, BLOCKS * columns).reshape(BLOCKS, columns)

        return cls(
            count=by_block(scored.targets, classes),
            hits=by_block(scored.targets, classes, scored.correct.astype(np.float64)),
            guesses=by_block(scored.predicted, classes),
            gaps=by_block(place, scored.bins, gap),
            loss=_tally(block, scored.losses, BLOCKS),
            total=_tally(block, ones, BLOCKS),
        )

    def __len__(self) -> int:
        return len(self.total)

    def metrics(self, weights: Weights | None = None) -> dict[str, float]:
        w = np.ones(len(self)) if weights is None else weights
        return _Sums(
            count=w @ self.count,
            hits=w @ self.hits,
            guesses=w @ self.guesses,
            gaps=w @ self.gaps,
            loss=float(w @ self.loss),
            total=float(w @ self.total),
        ).metrics()


def _tally(places: Targets, weights: Weights, size: int) -> Weights:
    """[size], the sum of the weights at each place."""
    return np.asarray(np.bincount(places, weights, size), np.float64)


def score(probabilities: Probabilities, targets: Targets, bins: int = 15) -> dict[str, float]:
    """Every metric of one set of rows."""
    return Scored(probabilities, targets, bins).metrics()


def bootstrap(scored: Measured, resamples: int, seed: int = 0) -> dict[str, Interval]:
    """Every metric with its 95 % interval by the percentile bootstrap over rows (Efron, 1979)."""
    value, drawn = scored.metrics(), _drawn(scored)
    draws = [drawn.metrics(weights) for weights in _resamples(len(drawn), resamples, seed)]
    result = {}
    for name in value:
        low, high = np.percentile([draw[name] for draw in draws], [2.5, 97.5])
        result[name] = Interval(value=value[name], low=float(low), high=float(high))
    return result


def paired_difference(new: Measured, old: Measured, metric: str, resamples: int, seed: int = 0) -> Interval:
    """How much better `new` is than `old` on the same rows (positive is better), with its paired bootstrap 95 % interval."""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0

    def difference(new: Measured, old: Measured, weights: Weights | None = None) -> float:
        return sign * (new.metrics(weights)[metric] - old.metrics(weights)[metric])

    here, there = _drawn(new), _drawn(old)
    low, high = np.percentile([difference(here, there, weights) for weights in _resamples(len(here), resamples, seed)], [2.5, 97.5])
    return Interval(value=_exact(difference(new, old)), low=_exact(float(low)), high=_exact(float(high)))


def drop(metric: str, new: float, old: float) -> float:
    """How much worse `new` is than `old`: positive is worse, whichever way the metric points."""
    return _exact(new - old if metric in LOWER_IS_BETTER else old - new)


def _exact(difference: float) -> float:
    """Without the last bits of a subtraction, by which 0.97 − 0.96 would be over a limit of 0.01."""
    return round(difference, 12)


def _drawn(scored: Measured) -> Measured:
    """What a resample draws: the rows, or blocks where they are many."""
    return _Blocks.of(scored) if isinstance(scored, Scored) and len(scored) > 4 * BLOCKS and scored.answered else scored


def _resamples(rows: int, count: int, seed: int) -> Iterator[Weights]:
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield np.bincount(random.integers(0, rows, rows), minlength=rows).astype(np.float64)
