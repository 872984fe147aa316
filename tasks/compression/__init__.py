"""Ways to make a model small: from an ONNX file to a smaller one."""

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from tasks.core.catalog import Catalog
from tasks.core.config import Config
from tasks.core.dataset import Task
from tasks.core.encoded import EncodedSplit
from tasks.core.transforms import Tensors


class Compressor(Config):
    """Options of one way to compress, and how to do it."""

    tasks: ClassVar[tuple[Task, ...]] = ("classification", "language_modelling")
    """What it can compress models for."""

    @abstractmethod
    def compress(self, source: Path, target: Path, calibration: EncodedSplit) -> None:
        """Write a smaller form of the fp32 file `source` to `target`; `calibration` holds training rows."""


def weights_beside(model: Path) -> Path:
    """The file beside an ONNX one, which holds at most 2 GiB, for the weights of a larger model."""
    return model.with_name(f"{model.name}.data")


def calibration_batches(rows: EncodedSplit, count: int, size: int = 32) -> Iterator[Tensors]:
    """Input tensors of `count` rows spread evenly over the split, so that all of it is represented."""
    chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)
    return (rows.tensors(chosen[start : start + size]) for start in range(0, len(chosen), size))


COMPRESSORS: Catalog[Compressor] = Catalog(
    "compressor",
    {
        "int8_dynamic": "tasks.compression.int8_dynamic:Int8Dynamic",
        "int8_static": "tasks.compression.int8_static:Int8Static",
    },
)
