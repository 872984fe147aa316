"""One version of a model, loaded and warm."""

import asyncio
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy.typing as npt

from deploy.serving.instances import example_instance
from deploy.serving.tensors import example_tensors
from tasks.core.bundle import Bundle, Manifest
from tasks.core.errors import BundleError, MaasflowError
from tasks.core.generator import Generator
from tasks.core.predictor import Prediction, Predictor
from tasks.core.transforms import Tensors, TextTransform

# Handing work to a thread and back takes about 0.1 ms, in which the event loop answers two rows of a small model. What
# takes longer than this would keep the other clients waiting.
_INLINE_SECONDS: Final = 0.001
_WARM_UP: Final = 5


class LoadError(MaasflowError):
    """A version that cannot be served. Its text is safe to send to a client; what it was raised from is not."""


@dataclass(frozen=True)
class Model:
    """What answers a request. A request keeps the version that it began with, whatever is swapped in meanwhile."""

    name: str
    version: str
    predictor: Predictor
    row_seconds: float
    """What one row took when the model was loaded; a row of one token, where rows differ in length."""
    generator: Generator | None = None
    """For a language model."""

    @classmethod
    def load(cls, folder: Path, name: str, version: str) -> Self:
        """Verify a bundle, load its chosen variant and run it. Takes as long as the bundle is large. Raises LoadError."""
        try:
            bundle = Bundle.open(folder)
        except BundleError as error:
            what = error.what.replace(f"{folder}{os.sep}", "").replace(str(folder), "its folder")
            raise LoadError(f"version {version} cannot be served: {what}") from error
        except OSError as error:
            raise LoadError(f"version {version} cannot be served: its files cannot be read") from error
        try:
            predictor = Predictor(bundle)
            generator = Generator(predictor) if predictor.manifest.task == "language_modelling" else None
            return cls(name, version, predictor, _warm(predictor), generator)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            what = f"ONNX Runtime cannot load and run its variant '{bundle.manifest.chosen}'"
            raise LoadError(f"version {version} cannot be served: {what}") from error

    @property
    def manifest(self) -> Manifest:
        return self.predictor.manifest

    async def run(self, names: list[str], tensors: Tensors) -> list[npt.NDArray[Any]]:
        """The named outputs, each [batch, …]. Quick work is done at once, the rest in a thread beside the event loop."""
        first = next(iter(tensors.values()))
        rows = first.size if self.predictor.dynamic else len(first)
        if rows * self.row_seconds < _INLINE_SECONDS:
            return self.predictor.run(names, tensors)
        return await asyncio.to_thread(self.predictor.run, names, tensors)

    async def predict(self, instances: Sequence[Any]) -> list[Prediction]:
        """One prediction for each raw instance; in a thread, as an image takes long to decode. Raises InputError."""
        return await asyncio.to_thread(self.predictor.predict, instances)


def _warm(predictor: Predictor) -> float:
    """Seconds for one short row, the fastest of a few runs. Raises ValueError for an output of the wrong shape."""
    manifest = predictor.manifest
    if isinstance(manifest.transform, TextTransform):
        # The tokenizer is read when it is first needed.
        manifest.transform.encode(manifest.transform.columns([example_instance(manifest.transform)]))
    tensors, names = example_tensors(manifest.inputs), [spec.name for spec in manifest.outputs]
    fastest = math.inf
    for _ in range(_WARM_UP):
        start = time.perf_counter()
        outputs = predictor.run(names, tensors)
        fastest = min(fastest, time.perf_counter() - start)
    expected = {spec.name: (1, *(max(size, 1) for size in spec.shape)) for spec in manifest.outputs}
    if manifest.labels:
        expected["logits"] = (1, len(manifest.labels))
    for name, output in zip(names, outputs, strict=True):
        if output.shape != expected[name]:
            raise ValueError(f"the output '{name}' has the shape {output.shape}, expected {expected[name]}")
    return fastest
