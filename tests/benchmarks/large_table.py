"""Memory and time of every stage on a large table: `python -m tests.benchmarks.large_table`.

Twelve numbers, three categories, of which one has a thousand values, and a label, from Parquet in one row group and from CSV;
then one epoch of a small net on the former. Each stage runs in a process of its own. Exits 1 where one holds too much.
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
"""Of a data stage."""
TRAINING_LIMIT_MB: Final = 1500
RECIPE: Final = """
dataset: parquet
model: {family: mlp, hidden: [64, 64]}
training: {epochs: 1, batch_size: 4096, device: cpu}
"""
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
    (root / "recipes").mkdir()
    (root / "recipes/large.yaml").write_text(RECIPE)
    for kind in ("parquet", "csv"):
        source = {"kind": kind, "path": f"table.{kind}"}
        (root / "data" / f"{kind}.yaml").write_text(json.dumps({"source": source, "columns": COLUMNS}))
    schema = next(batches(1)).schema
    with pa_csv.CSVWriter(root / "table.csv", schema) as writer:
        for batch in batches(rows):
            writer.write_batch(batch)
    pq.write_table(pa.Table.from_batches(batches(rows)), root / "table.parquet", row_group_size=rows)


def run(root: Path, module: str, *arguments: str) -> tuple[float, float]:
    """Run `python -m module` in the workspace `root`: seconds, and the most memory that was resident, in MB."""
    environment = os.environ | {"MAASFLOW_WORKSPACE": str(root), "PYTHONPATH": str(REPOSITORY)}
    start = time.perf_counter()
    command = [sys.executable, "-m", module, *arguments]
    process = os.posix_spawn(sys.executable, command, environment, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit(f"{' '.join((module, *arguments))} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # In another process: Linux counts what the parent held as the child's before it became another program.
        writing = multiprocessing.get_context("spawn").Process(target=write, args=(root, rows))
        writing.start()
        writing.join()
        held = True
        for kind in ("parquet", "csv"):
            print(f"{rows:,} rows of {kind}, {(root / f'table.{kind}').stat().st_size / 1e6:,.0f} MB")
            for stage in ("fetch", "validate", "prepare"):
                held &= show(stage, LIMIT_MB, *run(root, f"tasks.{stage}", kind))
        print("from parquet to a compressed model")
        for stage in ("encode", "train", "evaluate", "export", "compress"):
            held &= show(stage, TRAINING_LIMIT_MB, *run(root, "tests.benchmarks.large_training", stage))
    sys.exit(not held)


def show(stage: str, limit: int, seconds: float, megabytes: float) -> bool:
    """Print a stage's figures; whether it kept within the limit."""
    held = megabytes <= limit
    print(f"  {stage:9s} {seconds:6.1f} s  {megabytes:6,.0f} MB  (limit {limit:,} MB: {'holds' if held else 'MISSED'})", flush=True)
    return held


if __name__ == "__main__":
    main()
