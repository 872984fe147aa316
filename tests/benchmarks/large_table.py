"""Memory and time of the data stages on a large table: `python -m tests.benchmarks.large_table`.

Twelve numbers, three categories and a label, from Parquet in one row group and from CSV. Exits 1 where a stage holds too much.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tests.conftest import REPOSITORY

LIMIT_MB: Final = 1200
STEP: Final = 250_000
COLUMNS: Final = (
    {f"x{index}": {"type": "number", "nullable": index >= 6} for index in range(12)}
    | {f"c{index}": {"type": "category"} for index in range(3)}
    | {"label": {"type": "label", "classes": [0, 1]}}
)


def batches(rows: int) -> Iterator[pa.RecordBatch]:
    random = np.random.default_rng(0)
    for start in range(0, rows, STEP):
        count = min(STEP, rows - start)
        columns: dict[str, pa.Array] = {f"x{index}": pa.array(random.normal(size=count)) for index in range(12)}
        for index, values in enumerate((5, 50, 1000)):
            columns[f"c{index}"] = pa.array(np.array([f"v{value}" for value in range(values)])[random.integers(0, values, count)])
        yield pa.RecordBatch.from_pydict(columns | {"label": pa.array(random.integers(0, 2, count))})


def write(root: Path, rows: int) -> None:
    (root / "data").mkdir()
    for kind in ("parquet", "csv"):
        source = {"kind": kind, "path": f"table.{kind}"}
        (root / "data" / f"{kind}.yaml").write_text(json.dumps({"source": source, "columns": COLUMNS}))
    schema = next(batches(1)).schema
    with pa_csv.CSVWriter(root / "table.csv", schema) as writer:
        for batch in batches(rows):
            writer.write_batch(batch)
    pq.write_table(pa.Table.from_batches(batches(rows)), root / "table.parquet", row_group_size=rows)


def run(stage: str, dataset: str, root: Path) -> tuple[float, float]:
    """Seconds, and the most memory that was resident, in MB."""
    environment = os.environ | {"MAASFLOW_WORKSPACE": str(root), "PYTHONPATH": str(REPOSITORY)}
    start = time.perf_counter()
    command = [sys.executable, "-m", f"tasks.{stage}", dataset]
    process = os.posix_spawn(sys.executable, command, environment, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit(f"{stage} of {dataset} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    rows = parser.parse_args().rows
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        # In another process: Linux counts what the parent held as the child's before it became another program.
        writing = multiprocessing.get_context("spawn").Process(target=write, args=(Path(folder), rows))
        writing.start()
        writing.join()
        for kind in ("parquet", "csv"):
            size = Path(folder, f"table.{kind}").stat().st_size / 1e6
            for stage in ("fetch", "validate", "prepare"):
                seconds, megabytes = run(stage, kind, Path(folder))
                missed |= megabytes > LIMIT_MB
                verdict = "holds" if megabytes <= LIMIT_MB else "MISSED"
                print(
                    f"{stage:9s} {rows:,} rows of {kind:8s} ({size:,.0f} MB)  {seconds:6.1f} s  {megabytes:6,.0f} MB  (limit {LIMIT_MB:,} MB: {verdict})"
                )
    sys.exit(missed)


if __name__ == "__main__":
    main()
