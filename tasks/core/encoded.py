"""An encoded dataset on disk: the fitted transform and every split's compact arrays, memory-mapped."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from tasks.core.dataset import SplitName, Task
from tasks.core.ragged import Ragged
from tasks.core.transforms import Arrays, Tensors, TextTransform, Transform

_TRANSFORM: TypeAdapter[Transform] = TypeAdapter(Transform)
_TOKENS = 8192
"""Of texts that go through a model together, so that attention's memory stays small."""
_TARGETS, _EXAMPLES, _OFFSETS = "targets", "examples", "offsets"


@dataclass(frozen=True)
class EncodedSplit:
    """Compact arrays by name, the class index (int64) and the content digest (uint64) of each row."""

    transform: Transform
    arrays: Arrays
    targets: npt.NDArray[np.int64]
    examples: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.targets)

    def tensors(self, rows: Any) -> Tensors:
        """The model's input tensors for a slice or an array of row numbers."""
        return self.transform.tensors(
            {name: array.take(rows) if isinstance(array, Ragged) else np.array(array[rows]) for name, array in self.arrays.items()}
        )

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64] | None:
        """int64 [rows], the tokens of each row; None where all rows are of one size."""
        return next((array.lengths for array in self.arrays.values() if isinstance(array, Ragged)), None)

    def calls(self, size: int) -> list[npt.NDArray[np.int64]]:
        """Row numbers in batches of at most `size`; texts of like length together, and fewer where they are long."""
        if self.lengths is None:
            order = np.arange(len(self))
            return [order[start : start + size] for start in range(0, len(self), size)]
        order, found, start = np.argsort(self.lengths, kind="stable")[::-1], [], 0
        while start < len(order):
            rows = max(1, min(size, _TOKENS // int(self.lengths[order[start]])))
            found.append(order[start : start + rows])
            start += rows
        return found

    @property
    def tokens(self) -> npt.NDArray[Any]:
        """The token ids of all rows end to end: a language model's text."""
        ids = self.arrays["ids"]
        assert isinstance(ids, Ragged)
        return ids.values


@dataclass(frozen=True)
class Encoded:
    """The folder that the encode stage wrote."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, transform: Transform) -> Self:
        (folder / "transform.json").write_text(transform.model_dump_json())
        return cls(folder)

    @cached_property
    def transform(self) -> Transform:
        transform = _TRANSFORM.validate_json((self.folder / "transform.json").read_bytes())
        transform.at(self.folder)
        return transform

    @property
    def task(self) -> Task:
        return "language_modelling" if isinstance(self.transform, TextTransform) and self.transform.length is None else "classification"

    def split(self, name: SplitName) -> EncodedSplit:
        arrays: Arrays = {stored: self._array(name, stored) for stored in self.transform.stored}
        return EncodedSplit(self.transform, arrays, np.array(self._map(name, _TARGETS)), self._map(name, _EXAMPLES))

    def write(self, split: SplitName, chunks: Iterable[Arrays], targets: npt.NDArray[np.int64], examples: npt.NDArray[np.uint64]) -> None:
        """Write a split from encoded chunks, with the target and the digest of each of their rows."""
        with ExitStack() as stack:
            files: dict[str, _ArrayFile] = {}

            def append(name: str, array: npt.NDArray[Any]) -> None:
                if name not in files:
                    files[name] = stack.enter_context(_ArrayFile(self._path(split, name), array))
                files[name].append(array)

            last: Arrays = {_TARGETS: targets, _EXAMPLES: examples}
            for chunk in chain(chunks, [last]):
                for name, array in chunk.items():
                    if isinstance(array, Ragged):
                        offsets = f"{name}.{_OFFSETS}"
                        before = files[name].rows if name in files else 0
                        append(offsets, array.offsets + before if offsets not in files else array.offsets[1:] + before)
                        append(name, array.values)
                    else:
                        append(name, array)

    def _path(self, split: SplitName, array: str) -> Path:
        return self.folder / f"{split}.{array}.npy"

    def _array(self, split: SplitName, name: str) -> npt.NDArray[Any] | Ragged:
        if not self._path(split, f"{name}.{_OFFSETS}").exists():
            return self._map(split, name)
        return Ragged(self._map(split, name), np.array(self._map(split, f"{name}.{_OFFSETS}")))

    def _map(self, split: SplitName, array: str) -> npt.NDArray[Any]:
        return np.asanyarray(np.load(self._path(split, array), mmap_mode="r"))


class _ArrayFile:
    """A .npy file that grows along its first dimension. Its header is written again at the end, in the same place.

    Not through a memory map: on a full disk that is a signal, which kills the process without a word.
    """

    def __init__(self, path: Path, first: npt.NDArray[Any]) -> None:
        self.rows, self._dtype, self._shape = 0, first.dtype, first.shape[1:]
        self._file = path.open("wb")
        self._write_header()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._file:
            if error is None:
                self._file.seek(0)
                self._write_header()

    def append(self, array: npt.NDArray[Any]) -> None:
        self.rows += len(array)
        self._file.write(np.ascontiguousarray(array).data)

    def _write_header(self) -> None:
        # numpy leaves room in it for the first dimension to grow.
        np.lib.format.write_array_header_1_0(
            self._file,
            {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.rows, *self._shape)},
        )
