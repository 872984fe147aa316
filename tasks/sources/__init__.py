"""Where raw data comes from."""

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa

from tasks.core.catalog import Catalog
from tasks.core.config import Config
from tasks.core.dataset import Dataset, SplitName
from tasks.core.workspace import Workspace

Part = SplitName | Literal["all"]
"""The split that the source itself assigns rows to, or `all` where it leaves that to the preparation."""


class Source(Config):
    """Options of one kind of source, and how to read it."""

    def files(self, workspace: Workspace) -> tuple[Path, ...]:  # noqa: ARG002 - part of the contract
        """Local files or folders that the data is read from; a change in them makes a new dataset version."""
        return ()

    @abstractmethod
    def read(self, dataset: Dataset, workspace: Workspace) -> Iterator[tuple[Part, pa.RecordBatch]]:
        """The dataset's columns, in batches, untouched: types and values are for the validation to judge.

        Raises SourceError: which source, why it cannot be read, and what to set.
        """


SOURCES: Catalog[Source] = Catalog(
    "source",
    {
        "sklearn": "tasks.sources.sklearn:SklearnSource",
        "csv": "tasks.sources.csv:CsvSource",
        "parquet": "tasks.sources.parquet:ParquetSource",
        "huggingface": "tasks.sources.huggingface:HuggingFaceSource",
        "images": "tasks.sources.images:ImagesSource",
    },
)
