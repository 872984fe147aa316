"""The scikit-learn source."""

import io
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_iris

from tasks.core.errors import ConfigError, SourceError
from tasks.core.workspace import Workspace
from tasks.sources import SOURCES


def read(workspace: Workspace, name: str) -> pa.RecordBatch:
    dataset = workspace.dataset(name)
    ((part, batch),) = SOURCES.build(dataset.source).read(dataset, workspace)
    assert part == "all"
    return batch


def test_digits_are_png_images_of_the_same_pixels(workspace: Workspace, add_dataset: Callable[..., str]) -> None:
    columns = {"image": {"type": "image"}, "digit": {"type": "label", "classes": list(range(10))}}
    batch = read(workspace, add_dataset("digits", {"kind": "sklearn", "name": "digits"}, columns))
    image = Image.open(io.BytesIO(batch.column("image")[7].as_py()))
    assert (image.format, image.mode, image.size) == ("PNG", "L", (8, 8))
    assert np.array_equal(np.rint(np.asarray(image) / 255 * 16), load_digits().images[7])
    assert batch.column("digit").to_pylist() == load_digits().target.tolist()


def test_tables_have_the_librarys_names(workspace: Workspace, add_dataset: Callable[..., str]) -> None:
    columns = {"petal width (cm)": {"type": "number"}, "species": {"type": "label", "classes": [0, 1, 2]}}
    batch = read(workspace, add_dataset("iris", {"kind": "sklearn", "name": "iris"}, columns))
    assert batch.schema.names == ["petal width (cm)", "species"]
    assert batch.column(0).to_pylist() == load_iris().data[:, 3].tolist()


def test_unknown_names(workspace: Workspace, add_dataset: Callable[..., str]) -> None:
    columns = {"petal width": {"type": "number"}, "species": {"type": "label", "classes": [0, 1, 2]}}
    with pytest.raises(SourceError, match=r"did you mean 'petal width \(cm\)'\?"):
        read(workspace, add_dataset("iris", {"kind": "sklearn", "name": "iris"}, columns))
    with pytest.raises(ConfigError, match="iris"):
        read(workspace, add_dataset("iris", {"kind": "sklearn", "name": "irsi"}, columns))
