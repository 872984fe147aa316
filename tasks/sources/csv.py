"""A CSV file."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from pydantic import Field

from tasks.core.dataset import Dataset
from tasks.core.errors import SourceError
from tasks.core.raw import require_columns
from tasks.core.workspace import Workspace
from tasks.sources import FileSource, Part

_BLOCK_BYTES = 8 << 20


class CsvSource(FileSource):
    """A file with a header line. Every value is read as text: what it should be is for the validation to judge."""

    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: str = "utf-8"

    def read(self, dataset: Dataset, workspace: Workspace) -> Iterator[tuple[Part, pa.RecordBatch]]:
        path = self.file(workspace)
        header = self._header(path)
        require_columns(self.shown, header, dataset)
        try:
            with pa_csv.open_csv(
                path,
                read_options=pa_csv.ReadOptions(encoding=self.encoding, block_size=_BLOCK_BYTES),
                parse_options=pa_csv.ParseOptions(delimiter=self.separator, newlines_in_values=True),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=list(dataset.columns), column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
                ),
            ) as reader:
                for batch in reader:
                    yield "all", _with_nulls(batch, dataset)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise SourceError(f"{self.shown} cannot be read as CSV: {error}", self._advice(str(error))) from None

    def _header(self, path: Path) -> list[str]:
        try:
            with path.open(encoding="utf-8-sig" if self.encoding.lower() in ("utf-8", "utf8") else self.encoding, newline="") as file:
                header = next(csv.reader(file, delimiter=self.separator), [])
        except LookupError:
            raise SourceError(f"unknown encoding '{self.encoding}' for {self.shown}", "for example utf-8, latin-1 or gb18030") from None
        except (UnicodeError, csv.Error) as error:
            raise SourceError(f"{self.shown} cannot be read as CSV: {error}", self._advice("UTF")) from None
        if not header:
            raise SourceError(f"{self.shown} is empty", "expected a line with the names of the columns, then a line for each row")
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise SourceError(
                f"{self.shown}: the column {', '.join(map(repr, twice))} stands there twice", "rename one of them in the file"
            )
        return header

    def _advice(self, reason: str) -> str:
        if "utf" in reason.lower():
            return f"it was read as {self.encoding}: set `source.encoding` in the dataset file, for example to latin-1 or gb18030"
        return f"rows are separated by '{self.separator}', as `source.separator` says: correct that, or the file"


def _with_nulls(batch: pa.RecordBatch, dataset: Dataset) -> pa.RecordBatch:
    """An empty field is an empty text in a text column, and a missing value in any other: CSV cannot tell them apart."""
    arrays = [
        array if dataset.columns[name].type == "text" else pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)
        for name, array in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)
