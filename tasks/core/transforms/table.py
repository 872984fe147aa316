"""Table rows to tensors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from tasks.core.config import Config
from tasks.core.dataset import Column
from tasks.core.errors import InputError, did_you_mean
from tasks.core.transforms.fitted import Arrays, Chunks, Columns, Fitted, Tensors, TensorSpec, missing

_LARGEST = float(np.finfo(np.float32).max)
_NUMBERS, _SLOTS = "numbers", "slots"
_SMALL = 2**16
"""Slots that a uint16 tells apart."""


class NumberColumn(Config):
    """A standardised number; a missing one becomes the mean, with an indicator beside it where the column is nullable."""

    column: str
    mean: float
    std: float
    nullable: bool


class CategoryColumn(Config):
    """One slot for each value seen in training, one more for anything else."""

    column: str
    values: tuple[str, ...]
    nullable: bool


class TableTransform(Fitted):
    """Number and category columns to `x`: float32 [batch, features], numbers standardised, categories one-hot.

    Encoded, a category is the one slot of `x` that it sets, so that thousands of values take no more room than two.
    """

    stored: ClassVar[tuple[str, ...]] = (_NUMBERS, _SLOTS)

    kind: Literal["table"] = "table"
    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]

    @classmethod
    def fit(cls, columns: Mapping[str, Column], chunks: Chunks) -> Self:
        moments = {name: _Moments() for name, column in columns.items() if column.type == "number"}
        seen: dict[str, set[str]] = {name: set() for name in columns if name not in moments}
        for chunk in chunks():
            for name, values in chunk.items():
                if name in moments:
                    moments[name].add(np.asarray(values, np.float64))
                else:
                    seen[name].update(str(value) for value in set(values) if not missing(value))
        return cls(
            numbers=tuple(
                NumberColumn(column=name, mean=found.mean, std=found.std, nullable=columns[name].nullable)
                for name, found in moments.items()
            ),
            categories=tuple(
                CategoryColumn(column=name, values=tuple(sorted(found)), nullable=columns[name].nullable) for name, found in seen.items()
            ),
        )

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(name="x", dtype="FP32", shape=(self._width,)),)

    def columns(self, instances: Sequence[Any]) -> Columns:
        """Rows as objects, as columns. A key left out counts as missing. Raises InputError for an unknown key."""
        known = [number.column for number in self.numbers] + [category.column for category in self.categories]
        for row, item in enumerate(instances):
            if not isinstance(item, dict):
                raise InputError(f"item {row}: expected an object with the keys {', '.join(known)}, found {type(item).__name__}")
            for key in item:
                if key not in known:
                    raise InputError(f"item {row}: unknown key '{key}'{did_you_mean(key, known) or '.'} Known keys: {', '.join(known)}")
        return {name: [item.get(name) for item in instances] for name in known}

    def encode(self, columns: Columns) -> Arrays:
        """float32 [rows, numbers] and uint16 or int32 [rows, categories].

        Raises InputError for a text where a number belongs, or a missing value that may not miss.
        """
        rows = len(next(iter(columns.values())))
        numbers = np.empty((rows, self._width - sum(map(_slots, self.categories))), np.float32)
        slots = np.empty((rows, len(self.categories)), np.uint16 if self._width <= _SMALL else np.int32)
        place = 0
        for number in self.numbers:
            values = _numbers(columns[number.column], number)
            gaps = np.isnan(values)
            with np.errstate(over="ignore"):
                scaled = np.where(gaps, 0.0, (values - number.mean) / number.std)
            for row in np.flatnonzero(np.abs(scaled) > _LARGEST).tolist():
                raise InputError(f"item {row}: '{number.column}' is {values[row]:g}, too far from what the model was trained on")
            numbers[:, place] = scaled
            place += 1
            if number.nullable:
                numbers[:, place] = gaps
                place += 1
        for index, (category, slot_of) in enumerate(zip(self.categories, self._slot_of, strict=True)):
            slots[:, index] = _slots_of(columns[category.column], category, slot_of, place + len(category.values))
            place += _slots(category)
        return {_NUMBERS: numbers, _SLOTS: slots}

    def tensors(self, encoded: Arrays) -> Tensors:
        numbers, slots = encoded[_NUMBERS], encoded[_SLOTS]
        assert isinstance(numbers, np.ndarray)
        assert isinstance(slots, np.ndarray)
        if not self.categories:
            return {"x": numbers}
        x = np.zeros((len(numbers), self._width), np.float32)
        x[:, : numbers.shape[1]] = numbers
        x[np.arange(len(x))[:, None], slots] = 1.0
        return {"x": x}

    @cached_property
    def _width(self) -> int:
        return sum(1 + number.nullable for number in self.numbers) + sum(map(_slots, self.categories))

    @cached_property
    def _slot_of(self) -> tuple[dict[str, int], ...]:
        """For each category, the slot in `x` of each value."""
        found, start = [], sum(1 + number.nullable for number in self.numbers)
        for category in self.categories:
            found.append({value: slot for slot, value in enumerate(category.values, start)})
            start += _slots(category)
        return tuple(found)


@dataclass
class _Moments:
    """Mean and standard deviation of numbers that come in chunks (Chan et al., 1983); NaN is missing."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: npt.NDArray[np.float64]) -> None:
        known = values[~np.isnan(values)]
        if not known.size:
            return
        mean = float(known.mean())
        total, gap = self.count + known.size, mean - self.mean
        self.squares += float(((known - mean) ** 2).sum()) + gap * gap * self.count * known.size / total
        self.mean += gap * known.size / total
        self.count = total
        self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))

    @property
    def std(self) -> float:
        """1 for a constant, whose own is rounding noise that no threshold tells from a column of small numbers."""
        return (math.sqrt(self.squares / self.count) if self.high > self.low else 0.0) or 1.0


def _slots(category: CategoryColumn) -> int:
    return len(category.values) + 1


def _slots_of(
    values: Sequence[Any] | npt.NDArray[Any], category: CategoryColumn, slot_of: Mapping[str, int], unknown: int
) -> npt.NDArray[np.int64]:
    """Each value's slot, `unknown` for one that was not seen in training. Raises InputError."""

    def slot(row: int, value: Any) -> int:
        if isinstance(value, str):
            return slot_of.get(value, unknown)
        if not missing(value):
            return slot_of.get(str(value), unknown)
        if not category.nullable:
            raise InputError(f"item {row}: '{category.column}' is missing and may not be")
        return unknown

    return np.fromiter((slot(row, value) for row, value in enumerate(values)), np.int64, len(values))


def _numbers(values: Sequence[Any] | npt.NDArray[Any], number: NumberColumn) -> npt.NDArray[np.float64]:
    """The values as float64, a missing one as NaN. Raises InputError."""
    if isinstance(values, np.ndarray) and values.dtype == np.float64 and (number.nullable or not np.isnan(values).any()):
        # A prepared split's, whose numbers are finite.
        return values
    result = np.empty(len(values))
    for row, value in enumerate(values):
        if missing(value):
            if not number.nullable:
                raise InputError(f"item {row}: '{number.column}' is missing and may not be")
            result[row] = math.nan
            continue
        try:
            result[row] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"item {row}: '{number.column}' is {str(value)[:60]!r}, expected a number") from None
        if not math.isfinite(result[row]):
            raise InputError(f"item {row}: '{number.column}' is {value!r}, expected a finite number")
    return result
