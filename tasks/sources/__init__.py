"""Where raw data comes from."""

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

import pyarrow as pa
from pydantic import ConfigDict, Field, field_validator, model_validator

from tasks.core.catalog import Catalog
from tasks.core.config import Config
from tasks.core.dataset import Dataset, SplitName
from tasks.core.errors import SourceError
from tasks.core.remote import is_allowed, place_in_mirror, remote_file
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


class FileSource(Source):
    """One file: `path` where it is in the workspace, `url` where it is elsewhere."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["path"]}, {"required": ["url"]}]})

    path: str | None = None
    """Relative to the workspace."""
    url: str | None = None
    """An https address. The file is downloaded into `.maasflow/downloads`, unless the mirror has it."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """The digest of the file at `url`: one with another digest is refused."""
    mirror: str | None = None
    """The path of the file at `url` below the mirror folder; the address's host and path where not given."""

    @field_validator("url")
    @classmethod
    def _is_secure(cls, url: str | None) -> str | None:
        if url is not None and not is_allowed(url):
            raise ValueError("expected an address that begins with https://")
        return url

    @model_validator(mode="after")
    def _is_one_file(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("give either 'path', for a file in the workspace, or 'url', for one elsewhere")
        if self.path is not None and (self.sha256 or self.mirror):
            raise ValueError("'sha256' and 'mirror' belong to a 'url', not to a 'path'")
        place = Path(self.mirror or (place_in_mirror(self.url) if self.url else ""))
        if place.is_absolute() or ".." in place.parts:
            raise ValueError(f"'mirror' is a path below the mirror folder, not {place}")
        return self

    @property
    def shown(self) -> str:
        """The file as the dataset file names it."""
        return str(self.path or self.url)

    def files(self, workspace: Workspace) -> tuple[Path, ...]:
        return (workspace.root / self.path,) if self.path else ()

    def file(self, workspace: Workspace) -> Path:
        """The file on this machine, downloaded if need be. Raises SourceError."""
        if self.url:
            return remote_file(self.url, workspace, digest=self.sha256, mirror=self.mirror)
        path = workspace.root / str(self.path)
        if path.is_dir():
            raise SourceError(f"{self.path} is a folder, expected a file", "name the file in `source.path`")
        if not path.is_file():
            raise SourceError(f"there is no file {self.path}", "correct `source.path` in the dataset file: it is relative to the workspace")
        return path


SOURCES: Catalog[Source] = Catalog(
    "source",
    {
        "sklearn": "tasks.sources.sklearn:SklearnSource",
        "csv": "tasks.sources.csv:CsvSource",
        "parquet": "tasks.sources.parquet:ParquetSource",
        "huggingface": "tasks.sources.huggingface:HuggingFaceSource",
        "text": "tasks.sources.text:TextSource",
        "images": "tasks.sources.images:ImagesSource",
    },
)
