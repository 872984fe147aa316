"""Rows of different lengths, such as the token ids of texts, end to end in one array."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Ragged:
    """Row i is `values[offsets[i] : offsets[i + 1]]`; `offsets` is int64 [rows + 1] and begins with 0."""

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], dtype: npt.DTypeLike) -> Self:
        offsets = np.fromiter(accumulate(map(len, rows), initial=0), np.int64, len(rows) + 1)
        values = np.fromiter(chain.from_iterable(rows), dtype, int(offsets[-1]))
        return cls(values, offsets)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.values for part in parts]), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64 [rows]."""
        return self.offsets[1:] - self.offsets[:-1]

    def take(self, rows: Any) -> "Ragged":
        """The rows of a slice or of an array of row numbers."""
        numbers = np.arange(len(self))[rows]
        lengths = self.offsets[numbers + 1] - self.offsets[numbers]
        offsets = np.zeros(len(numbers) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        places = np.repeat(self.offsets[numbers] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(np.asarray(self.values[places]), offsets)

    def padded(self, fill: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(values, mask), both int64 [rows, longest row]; beyond a row's end `fill` and 0."""
        lengths = self.lengths
        longest = max(1, int(lengths.max(initial=0)))
        if len(self.values) == len(self) * longest:
            alike = self.values.reshape(-1, longest).astype(np.int64)
            return alike, np.ones(alike.shape, np.int64)
        here = np.arange(longest) < lengths[:, None]
        values = np.full(here.shape, fill, np.int64)
        values[here] = self.values
        return values, here.astype(np.int64)
