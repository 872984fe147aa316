"""Table rows to tensors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from tasks.core.config import Config
from tasks.core.dataset import Column
from tasks.core.errors import InputError, did_you_mean
from tasks.core.transforms.fitted import Arrays, Chunks, Columns, Fitted, Tensors, TensorSpec, missing

_LARGEST = float(np.finfo(np.float32).max)


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
    """Number and category columns to `x`: float32 [batch, features], numbers standardised, categories one-hot."""

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
        width = sum(1 + number.nullable for number in self.numbers) + sum(len(category.values) + 1 for category in self.categories)
        return (TensorSpec(name="x", dtype="FP32", shape=(width,)),)

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
        """float32 [rows, features]. Raises InputError for a text where a number belongs, or a missing value that may not miss."""
        rows = len(next(iter(columns.values())))
        (spec,) = self.inputs
        x = np.zeros((rows, *spec.shape), np.float32)
        slot = 0
        for number in self.numbers:
            values = _numbers(columns[number.column], number)
            gaps = np.isnan(values)
            with np.errstate(over="ignore"):
                scaled = np.where(gaps, 0.0, (values - number.mean) / number.std)
            for row in np.flatnonzero(np.abs(scaled) > _LARGEST).tolist():
                raise InputError(f"item {row}: '{number.column}' is {values[row]:g}, too far from what the model was trained on")
            x[:, slot] = scaled
            slot += 1
            if number.nullable:
                x[:, slot] = gaps
                slot += 1
        for category in self.categories:
            x[np.arange(rows), slot + _codes(columns[category.column], category)] = 1.0
            slot += len(category.values) + 1
        return {"x": x}

    def tensors(self, encoded: Arrays) -> Tensors:
        x = encoded["x"]
        assert isinstance(x, np.ndarray)
        return {"x": x}


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


def _codes(values: Sequence[Any] | npt.NDArray[Any], category: CategoryColumn) -> npt.NDArray[np.int64]:
    """Each value's place among those seen in training, the one after the last for any other. Raises InputError."""
    place, unknown = {value: index for index, value in enumerate(category.values)}, len(category.values)

    def code(row: int, value: Any) -> int:
        if isinstance(value, str):
            return place.get(value, unknown)
        if not missing(value):
            return place.get(str(value), unknown)
        if not category.nullable:
            raise InputError(f"item {row}: '{category.column}' is missing and may not be")
        return unknown

    return np.fromiter((code(row, value) for row, value in enumerate(values)), np.int64, len(values))


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
