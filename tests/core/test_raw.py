"""How raw values are read by the type of their column, and that memory does not grow with the file."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.dataset import Dataset
from tasks.core.raw import as_number, as_text, read_parquet


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["1", "-2.5e3", "", None, "nan"]), [1.0, -2500.0, None, None, None]),
        (pa.array([" 1 ", "1_000", "+7", "  "]), [1.0, 1000.0, 7.0, None]),
        (pa.array(["0.1", "1e-310", "123456789012345678"], pa.large_string()), [0.1, 1e-310, 123456789012345680.0]),
        (pa.array(["1", "2", "1"]).dictionary_encode(), [1.0, 2.0, 1.0]),
        (pa.array([True, None, False]), [1.0, None, 0.0]),
        (pa.array([[1], [2]]), [None, None]),
    ],
)
def test_numbers_however_they_are_written(values: pa.Array, expected: list[float | None]) -> None:
    assert as_number(values)[0].to_pylist() == expected


@pytest.mark.parametrize("text", ["abc", "inf", "-Infinity", "1,5", "0x10"])
def test_what_is_no_finite_number_is_marked(text: str) -> None:
    values, bad = as_number(pa.array(["1.5", text]))
    assert (values.to_pylist(), bad.to_pylist()) == ([1.5, None], [False, True])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([3.0, 2.5, None, float("nan"), 3.0]), ["3", "2.5", None, None, "3"]),
        (pa.array(np.array([1, 2.5], np.float16)), ["1", "2.5"]),
        (pa.array([b"a", b"\xff", None]), ["a", None, None]),
        (pa.array([True, False, None]), ["True", "False", None]),
        (pa.array([None, None]), [None, None]),
        (pa.array([["a"], None]), [None, None]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    ],
)
def test_texts_as_a_client_would_type_them(values: pa.Array, expected: list[str | None]) -> None:
    assert as_text(values).to_pylist() == expected


def write(path: Path, columns: dict[str, pa.Array], specs: dict[str, Any], rows_in_a_group: int) -> Dataset:
    pq.write_table(pa.table(columns), path, row_group_size=rows_in_a_group)
    return Dataset.parse({"source": {}, "columns": specs})


@pytest.mark.parametrize("rows_in_a_group", [100_000, 2_000_000])
def test_reading_holds_batches_and_not_the_file(tmp_path: Path, rows_in_a_group: int) -> None:
    random = np.random.default_rng(0)
    columns = {name: pa.array(random.normal(size=1_000_000)) for name in "abc"} | {"y": pa.array(np.zeros(1_000_000))}
    specs = {name: {"type": "number"} for name in "abc"} | {"y": {"type": "label", "classes": [0, 1]}}
    dataset = write(tmp_path / "x.parquet", columns, specs, rows_in_a_group)
    del columns
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    for batch in read_parquet(tmp_path / "x.parquet", dataset):
        most, rows = max(most, pa.total_allocated_bytes() - before), rows + batch.num_rows
    assert rows == 1_000_000
    assert most < 16 << 20 < (tmp_path / "x.parquet").stat().st_size


def test_long_texts_come_in_smaller_batches(tmp_path: Path) -> None:
    text = "".join(map(str, range(20_000)))
    columns = {"text": pa.array([f"{row} {text}" for row in range(1000)])}
    dataset = write(tmp_path / "x.parquet", columns, {"text": {"type": "text"}}, 100)
    batches = list(read_parquet(tmp_path / "x.parquet", dataset))
    assert max(batch.nbytes for batch in batches) < 80 << 20
    assert sum(batch.num_rows for batch in batches) == 1000
