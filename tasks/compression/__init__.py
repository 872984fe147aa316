"""Ways to make a model small: from an ONNX file to a smaller one."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from tasks.core.catalog import Catalog
from tasks.core.config import Config
from tasks.core.dataset import Task
from tasks.core.encoded import Encoded, EncodedSplit
from tasks.core.machine import Machine, device_for, this_machine
from tasks.core.recipe import Recipe
from tasks.core.transforms import Tensors


@dataclass(frozen=True)
class Subject:
    """What is compressed, beside its fp32 file: the recipe that it was trained by, and its rows."""

    recipe: Recipe
    encoded: Encoded
    classes: int = 0
    """0 for a language model."""
    trained: Path | None = None
    """The folder with the trained weights, where they are at hand."""
    machine: Machine = field(default_factory=this_machine)

    @property
    def family(self) -> str:
        return str(self.recipe.model["family"])

    @property
    def task(self) -> Task:
        return self.encoded.task

    @property
    def on_cuda(self) -> bool:
        """Whether it is to be served on a CUDA device."""
        return device_for(self.recipe.serving.device) == "cuda"

    @cached_property
    def train(self) -> EncodedSplit:
        """Training rows, to calibrate on. The other splits are for measuring."""
        return self.encoded.split("train")


class Compressor(Config):
    """Options of one way to compress, and how to do it."""

    begins_trained: ClassVar[bool] = False
    """Whether it begins with the trained module, rather than with the file that is there."""

    def taught(self, share: float) -> "Compressor | None":  # noqa: ARG002 - most need no training
        """The same with so much of the training that follows, from 0 to 1. None where there is none."""
        return None

    def unfit(self, subject: Subject) -> str | None:  # noqa: ARG002 - most fit all
        """Why it makes no sense for such a model or on such a machine, as in "there is no CUDA device"; None where it does."""
        return None

    @abstractmethod
    def compress(self, source: Path, target: Path, subject: Subject) -> None:
        """Write a smaller form of the file `source` to `target`."""


def weights_beside(model: Path) -> Path:
    """The file beside an ONNX one, which holds at most 2 GiB, for the weights of a larger model."""
    return model.with_name(f"{model.name}.data")


def remove_model(model: Path) -> None:
    """Remove an ONNX file, and its weights beside it."""
    for file in (model, weights_beside(model)):
        file.unlink(missing_ok=True)


def calibration_batches(rows: EncodedSplit, count: int, size: int = 32) -> Iterator[Tensors]:
    """Input tensors of `count` rows spread evenly over the split, so that all of it is represented."""
    chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)
    return (rows.tensors(chosen[start : start + size]) for start in range(0, len(chosen), size))


COMPRESSORS: Catalog[Compressor] = Catalog(
    "compressor",
    {
        "graph": "tasks.compression.graph:GraphOptimized",
        "fp16": "tasks.compression.fp16:Fp16",
        "int8_dynamic": "tasks.compression.int8_dynamic:Int8Dynamic",
        "int8_rows": "tasks.compression.int8_rows:Int8Rows",
        "int8_static": "tasks.compression.int8_static:Int8Static",
        "int8_weights": "tasks.compression.int8_weights:Int8Weights",
        "int4_weights": "tasks.compression.int4_weights:Int4Weights",
        "prune": "tasks.compression.prune:Prune",
        "distill": "tasks.compression.distill:Distill",
    },
)
