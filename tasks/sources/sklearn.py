"""The small datasets that come with scikit-learn: no network, no file."""

import io
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from tasks.core.dataset import Dataset
from tasks.core.raw import require_columns
from tasks.core.workspace import Workspace
from tasks.sources import Part, Source


class SklearnSource(Source):
    """`digits` has the column `image` (8 × 8 grey PNG), the others their features under scikit-learn's names.

    The class index comes under the name that the dataset file gives its label.
    """

    name: Literal["digits", "iris", "wine", "breast_cancer"]

    def read(self, dataset: Dataset, workspace: Workspace) -> Iterator[tuple[Part, pa.RecordBatch]]:  # noqa: ARG002 - the contract's
        from sklearn import datasets  # noqa: PLC0415 - takes a second

        bunch: Any = getattr(datasets, f"load_{self.name}")()
        if self.name == "digits":
            columns = {"image": pa.array(map(_png, bunch.images), pa.binary())}
        else:
            columns = {str(name): pa.array(bunch.data[:, index]) for index, name in enumerate(bunch.feature_names)}
        if dataset.label:
            columns[dataset.label] = pa.array(bunch.target.astype(np.int64))
        require_columns(f"scikit-learn's {self.name}", list(columns), dataset)
        yield "all", pa.RecordBatch.from_pydict({name: columns[name] for name in dataset.columns})


def _png(pixels: npt.NDArray[np.float64]) -> bytes:
    """Grey values 0–16 [height, width] as a PNG of 0–255."""
    file = io.BytesIO()
    Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
