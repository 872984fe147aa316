"""A prepared split on disk: an uncompressed Arrow file, memory-mapped, so that memory does not grow with the data."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.core.config import Config
from tasks.core.dataset import SPLITS, SplitName
from tasks.core.errors import DataError

EXAMPLE = "_example"
"""The column with each example's content digest (uint64): its identity across versions of the dataset."""
TARGET = "_target"
"""The column with the index of the class (int64), 0 in every row where there is no label."""


class PreparedSummary(Config):
    """`summary.json` beside the prepared splits: rows by split and class, none where there is no label, and rows dropped by reason."""

    rows: dict[str, int]
    classes: dict[str, dict[str, int]]
    dropped: dict[str, int]


@dataclass(frozen=True)
class Split:
    """Rows of one split: the dataset's feature columns, EXAMPLE and TARGET."""

    name: SplitName
    table: pa.Table

    @classmethod
    def open(cls, prepared: Path, name: SplitName) -> Self:
        """Map `<prepared>/<name>.arrow`. Raises DataError."""
        path = prepared / f"{name}.arrow"
        try:
            return cls(name, pa.ipc.open_file(pa.memory_map(str(path))).read_all())
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path} cannot be read: {error}", "delete the dataset's prepared folder and run again") from None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.table[TARGET].to_numpy())

    @property
    def examples(self) -> npt.NDArray[np.uint64]:
        return np.asarray(self.table[EXAMPLE].to_numpy())

    def columns(self, names: list[str], start: int = 0, stop: int | None = None) -> dict[str, Any]:
        """The named columns for a range of rows: numbers as float64 with NaN for what is missing, all else as Python values."""
        part = self.table.select(names).slice(start, (len(self) if stop is None else stop) - start)
        return {name: _values(part[name]) for name in names}

    def chunks(self, names: list[str], rows: int = 4096) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self), rows):
            yield self.columns(names, start, min(start + rows, len(self)))


def _values(column: pa.ChunkedArray) -> Any:
    return column.to_numpy() if pa.types.is_floating(column.type) else column.to_pylist()


def read_summary(prepared: Path) -> PreparedSummary:
    return PreparedSummary.parse(json.loads((prepared / "summary.json").read_text()))


def write_split(prepared: Path, name: SplitName, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write `<prepared>/<name>.arrow` batch by batch; the number of rows."""
    rows = 0
    with pa.OSFile(str(prepared / f"{name}.arrow"), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


__all__ = ["EXAMPLE", "SPLITS", "TARGET", "PreparedSummary", "Split", "read_summary", "write_split"]
