"""Parquet files."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from tasks.core.dataset import Dataset
from tasks.core.errors import SourceError
from tasks.core.raw import read_parquet
from tasks.core.workspace import Workspace
from tasks.sources import Part, Source


class ParquetSource(Source):
    """A file, a folder of files, or `{train: …, test: …}` where the data comes with its own splits."""

    path: str | dict[Part, str]

    def files(self, workspace: Workspace) -> tuple[Path, ...]:
        return tuple(workspace.root / path for path in self._parts().values())

    def read(self, dataset: Dataset, workspace: Workspace) -> Iterator[tuple[Part, pa.RecordBatch]]:
        for part, path in self._parts().items():
            for file in _files(workspace.root / path, path):
                for batch in read_parquet(file, dataset):
                    yield part, batch

    def _parts(self) -> dict[Part, str]:
        return {"all": self.path} if isinstance(self.path, str) else self.path


def _files(path: Path, given: str) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("*.parquet"))
    if not found:
        raise SourceError(f"there is no .parquet file in the folder {given}", "correct `source.path` in the dataset file")
    return found
