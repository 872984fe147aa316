"""What every fitted transform is."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tasks.core.config import Config
from tasks.core.ragged import Ragged

Tensors = dict[str, npt.NDArray[Any]]
"""A model's inputs by name, each [batch, …]."""
Arrays = dict[str, npt.NDArray[Any] | Ragged]
"""Encoded rows by name, compact enough to keep."""
Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]
"""Raw values by column name, all of one length."""
Chunks = Callable[[], Iterator[Columns]]
"""The training split in chunks, from its beginning at each call, so that fitting holds one chunk at a time."""


class TensorSpec(Config):
    """A model's input or output. `shape` is that of one row, without the batch dimension; −1 is any size from 1 on."""

    name: str
    dtype: Literal["FP32", "INT64"]
    shape: tuple[int, ...]
    vocabulary: int | None = None
    """For ids: how many there are. Each is from 0 to one less."""
    longest: int | None = None
    """The largest size of a dimension that is −1."""

    @property
    def numpy_type(self) -> type[np.number[Any]]:
        """numpy's type of its elements."""
        return np.float32 if self.dtype == "FP32" else np.int64


class Fitted(Config):
    """A transform in two steps, so that a training set can be kept decoded without being kept as floats:
    `encode` decodes raw values into compact arrays (an image stays uint8), `tensors` turns those into what the model takes.
    """

    stored: ClassVar[tuple[str, ...]] = ("x",)
    """The names of the encoded arrays."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `tensors` gives."""

    @property
    def files(self) -> dict[str, str]:
        """Files beside the manifest that belong to the transform: SHA-256 by name."""
        return {}

    def at(self, folder: Path) -> None:
        """Say in which folder the files are. They are read when they are first needed."""

    def limit(self, *, characters: int, pixels: int) -> None:
        """From now on `encode` takes at most so many characters of texts, or pixels of images, in one call: what it takes to read them
        shows in no other number that a client sends.
        """

    @abstractmethod
    def columns(self, instances: Sequence[Any]) -> Columns:
        """Instances as clients send them, as columns. Raises InputError."""

    @abstractmethod
    def encode(self, columns: Columns) -> Arrays:
        """The encoded rows. Raises InputError for one that cannot be used, with its index, and TooLargeError."""

    @abstractmethod
    def tensors(self, encoded: Arrays) -> Tensors:
        """The model's inputs."""


def missing(value: Any) -> bool:
    """None, or the NaN that stands for it in files and in some clients."""
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))
