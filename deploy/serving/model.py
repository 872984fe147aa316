"""One version of a model, loaded and warm."""

import asyncio
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from tasks.core.bundle import Bundle, Manifest
from tasks.core.errors import BundleError, MaasflowError
from tasks.core.predictor import Prediction, Predictor
from tasks.core.transforms import Arrays

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
    """What one row took when the model was loaded."""

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
            return cls(name, version, predictor, _warm(predictor))
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            what = f"ONNX Runtime cannot load and run its variant '{bundle.manifest.chosen}'"
            raise LoadError(f"version {version} cannot be served: {what}") from error

    @property
    def manifest(self) -> Manifest:
        return self.predictor.manifest

    async def logits(self, tensors: Arrays) -> npt.NDArray[np.float32]:
        """float32 [batch, labels]. Quick work is done at once, the rest in a thread beside the event loop."""
        rows = len(next(iter(tensors.values())))
        if rows * self.row_seconds < _INLINE_SECONDS:
            return self.predictor.logits(tensors)
        return await asyncio.to_thread(self.predictor.logits, tensors)

    async def predict(self, instances: Sequence[Any]) -> list[Prediction]:
        """One prediction for each raw instance; in a thread, as an image takes long to decode. Raises InputError."""
        return await asyncio.to_thread(self.predictor.predict, instances)


def _warm(predictor: Predictor) -> float:
    """Seconds for one row of zeros, the fastest of a few runs. Raises ValueError for an output of the wrong shape."""
    manifest = predictor.manifest
    dtypes = {"FP32": np.float32, "INT64": np.int64}
    tensors = {spec.name: np.zeros((1, *(max(size, 1) for size in spec.shape)), dtypes[spec.dtype]) for spec in manifest.inputs}
    fastest = math.inf
    for _ in range(_WARM_UP):
        start = time.perf_counter()
        logits = predictor.logits(tensors)
        fastest = min(fastest, time.perf_counter() - start)
    if logits.shape != (1, len(manifest.labels)):
        raise ValueError(f"the output 'logits' has the shape {logits.shape}, expected (1, {len(manifest.labels)})")
    return fastest
