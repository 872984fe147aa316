"""Image files in one folder for each class."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from tasks.core.dataset import Dataset
from tasks.core.errors import ConfigError, SourceError
from tasks.core.raw import batch_rows
from tasks.core.workspace import Workspace
from tasks.sources import Part, Source

_BATCH_BYTES = 64 << 20


class ImagesSource(Source):
    """`<path>/<class>/<file>`, or `{train: <path>, test: <path>}` where the data comes with its own splits.

    The folders' names are the raw labels. Every file that is not hidden is read: a broken one is for the validation to name.
    """

    path: str | dict[Part, str]

    def files(self, workspace: Workspace) -> tuple[Path, ...]:
        return tuple(workspace.root / path for path in self._parts().values())

    def read(self, dataset: Dataset, workspace: Workspace) -> Iterator[tuple[Part, pa.RecordBatch]]:
        images = [name for name, column in dataset.features.items() if column.type == "image"]
        if len(images) != 1 or len(dataset.features) != 1 or dataset.label is None:
            raise ConfigError(
                f"a source of images fills one image column and the label, the dataset file asks for {', '.join(dataset.columns)}",
                "keep one column of type image and one of type label",
            )
        for part, path in self._parts().items():
            for batch in _batches(_labelled(workspace.root / path, path), images[0], dataset.label, batch_rows(dataset)):
                yield part, batch

    def _parts(self) -> dict[Part, str]:
        return {"all": self.path} if isinstance(self.path, str) else self.path


def _labelled(folder: Path, given: str) -> list[tuple[str, Path]]:
    """(class, file) in an order that is the same on every machine."""
    if not folder.is_dir():
        raise SourceError(f"there is no folder {given}", "correct `source.path` in the dataset file: it is relative to the workspace")
    classes = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    found = [
        (child.name, file) for child in classes for file in sorted(child.rglob("*")) if file.is_file() and not file.name.startswith(".")
    ]
    if not found:
        raise SourceError(f"there are no images in {given}", "expected one folder for each class, with image files in it")
    return found


def _batches(labelled: list[tuple[str, Path]], image: str, label: str, rows: int) -> Iterator[pa.RecordBatch]:
    values: list[bytes] = []
    labels: list[str] = []
    size = 0
    for name, file in labelled:
        values.append(file.read_bytes())
        labels.append(name)
        size += len(values[-1])
        if len(values) == rows or size >= _BATCH_BYTES:
            yield _batch(values, labels, image, label)
            values, labels, size = [], [], 0
    if values:
        yield _batch(values, labels, image, label)


def _batch(values: list[bytes], labels: list[str], image: str, label: str) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({image: pa.array(values, pa.binary()), label: pa.array(labels, pa.string())})
