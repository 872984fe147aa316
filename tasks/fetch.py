"""Fetch: a dataset's source → `data/<name>/raw/<part>.parquet`, untouched."""

import logging
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.command import run_stage
from tasks.core.errors import SourceError
from tasks.core.stages import whole_folder
from tasks.core.workspace import Workspace
from tasks.sources import SOURCES

_log = logging.getLogger("tasks.fetch")


def fetch(workspace: Workspace, name: str) -> dict[str, int]:
    """Read the source into parquet files, one for each part; rows by part. Raises ConfigError and SourceError."""
    dataset = workspace.dataset(name)
    source = SOURCES.build(dataset.source, dataset.origin.below("source"))
    rows: dict[str, int] = {}
    with whole_folder(workspace.raw(name)) as folder:
        with ExitStack() as stack:
            writers: dict[str, pq.ParquetWriter] = {}
            for part, batch in source.read(dataset, workspace):
                if part not in writers:
                    writers[part] = stack.enter_context(pq.ParquetWriter(folder / f"{part}.parquet", batch.schema, compression="zstd"))
                writers[part].write_batch(_as(writers[part].schema, batch, name))
                rows[part] = rows.get(part, 0) + batch.num_rows
        if not sum(rows.values()):
            raise SourceError(f"the source of '{name}' is empty: it has no rows", f"correct `source` in data/{name}.yaml, or the data")
    _log.info("fetch %s: %s", name, ", ".join(f"{count:,} rows ({part})" for part, count in rows.items()))
    return rows


def _as(schema: pa.Schema, batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    """A later file's batch in the types of the first."""
    if batch.schema == schema:
        return batch
    try:
        return batch.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise SourceError(
            f"the files of '{name}' disagree about a column's type: {error}", "write them again with the same types, or leave one out"
        ) from None


if __name__ == "__main__":
    run_stage(fetch)
