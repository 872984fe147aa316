"""A text file as one running text, for a language model."""

from collections.abc import Iterator
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from tasks.core.dataset import Dataset
from tasks.core.errors import ConfigError, SourceError
from tasks.core.workspace import Workspace
from tasks.sources import FileSource, Part

_BATCH_CHARACTERS = 4 << 20


class TextSource(FileSource):
    """The file in pieces, in order, as rows of the dataset's one text column: put together again they are the file."""

    encoding: str = "utf-8"
    characters: Annotated[int, Field(ge=1, le=1 << 20)] = 4096
    """The length of a piece; the last may be shorter."""

    def read(self, dataset: Dataset, workspace: Workspace) -> Iterator[tuple[Part, pa.RecordBatch]]:
        if dataset.task != "language_modelling":
            raise ConfigError(
                f"a running text fills one text column, the dataset file asks for {', '.join(dataset.columns)}",
                "keep one column of type text, or use another source for texts with labels",
            )
        if dataset.cleaning:
            raise ConfigError(
                f"a running text is kept as it is, and `cleaning: [{', '.join(dataset.cleaning)}]` would change it or leave parts of it out",
                "set `cleaning: []` in the dataset file",
            )
        (column,) = dataset.columns
        rows = max(_BATCH_CHARACTERS // self.characters, 1)
        pieces: list[str] = []
        for piece in self._pieces(workspace):
            pieces.append(piece)
            if len(pieces) == rows:
                yield "all", _batch(column, pieces)
                pieces = []
        if pieces:
            yield "all", _batch(column, pieces)

    def _pieces(self, workspace: Workspace) -> Iterator[str]:
        path = self.file(workspace)
        try:
            # Line ends stay as they are: newline="" translates none.
            with path.open(encoding=self.encoding, newline="") as file:
                while piece := file.read(self.characters):
                    yield piece
        except LookupError:
            raise SourceError(f"unknown encoding '{self.encoding}' for {self.shown}", "for example utf-8, latin-1 or gb18030") from None
        except UnicodeError as error:
            raise SourceError(
                f"{self.shown} cannot be read as text: {error}",
                f"it was read as {self.encoding}: set `source.encoding` in the dataset file, for example to latin-1 or gb18030",
            ) from None


def _batch(column: str, pieces: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({column: pa.array(pieces, pa.string())})
