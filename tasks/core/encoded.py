"""An encoded dataset on disk: the fitted transform and every split's compact arrays, memory-mapped."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from tasks.core.dataset import SplitName
from tasks.core.transforms import Arrays, ImageTransform, TableTransform, Transform

_TRANSFORM: TypeAdapter[ImageTransform | TableTransform] = TypeAdapter(Transform)
_TARGETS, _EXAMPLES = "targets", "examples"


@dataclass(frozen=True)
class EncodedSplit:
    """Compact arrays by input name, the class index (int64) and the content digest (uint64) of each row."""

    transform: ImageTransform | TableTransform
    arrays: Arrays
    targets: npt.NDArray[np.int64]
    examples: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.targets)

    def tensors(self, rows: Any) -> Arrays:
        """The model's input tensors for a slice or an array of row numbers."""
        return self.transform.tensors({name: np.array(array[rows]) for name, array in self.arrays.items()})


@dataclass(frozen=True)
class Encoded:
    """The folder that the encode stage wrote."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, transform: ImageTransform | TableTransform) -> Self:
        (folder / "transform.json").write_text(transform.model_dump_json())
        return cls(folder)

    @cached_property
    def transform(self) -> ImageTransform | TableTransform:
        return _TRANSFORM.validate_json((self.folder / "transform.json").read_bytes())

    def split(self, name: SplitName) -> EncodedSplit:
        arrays = {spec.name: self._map(name, spec.name) for spec in self.transform.inputs}
        return EncodedSplit(self.transform, arrays, np.array(self._map(name, _TARGETS)), np.array(self._map(name, _EXAMPLES)))

    def write(
        self, split: SplitName, rows: int, chunks: Iterable[Arrays], targets: npt.NDArray[np.int64], examples: npt.NDArray[np.uint64]
    ) -> None:
        """Write a split from encoded chunks that together have `rows` rows."""
        files: dict[str, BinaryIO] = {}
        with ExitStack() as stack:
            for chunk in chain(chunks, [{_TARGETS: targets, _EXAMPLES: examples}]):
                for name, array in chunk.items():
                    if name not in files:
                        files[name] = stack.enter_context(self._path(split, name).open("wb"))
                        _write_header(files[name], array.dtype, (rows, *array.shape[1:]))
                    # Not through a memory map: on a full disk that is a signal, which kills the process without a word.
                    files[name].write(np.ascontiguousarray(array).data)

    def _path(self, split: SplitName, array: str) -> Path:
        return self.folder / f"{split}.{array}.npy"

    def _map(self, split: SplitName, array: str) -> npt.NDArray[Any]:
        return np.asanyarray(np.load(self._path(split, array), mmap_mode="r"))


def _write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
