"""Fetch: parquet files, whole or not at all, the same bytes for the same data."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import SourceError, explain
from tasks.core.workspace import Workspace
from tasks.fetch import fetch

AddDataset = Callable[..., str]


def test_the_same_bytes_every_time(workspace: Workspace, add_people: AddDataset) -> None:
    assert fetch(workspace, add_people()) == {"all": 200}
    first = (workspace.raw("people") / "all.parquet").read_bytes()
    fetch(workspace, "people")
    assert (workspace.raw("people") / "all.parquet").read_bytes() == first
    assert [path.name for path in (workspace.data / "people").iterdir()] == ["raw"]


def test_an_empty_source_leaves_what_was_there(workspace: Workspace, add_people: AddDataset) -> None:
    fetch(workspace, add_people())
    (workspace.root / "people.csv").write_text("age,port,survived\n")
    with pytest.raises(SourceError, match="the source of 'people' is empty") as caught:
        fetch(workspace, "people")
    assert "data/people.yaml" in caught.value.do
    assert pq.read_table(workspace.raw("people") / "all.parquet").num_rows == 200
    assert [path.name for path in (workspace.data / "people").iterdir()] == ["raw"]


def test_files_that_disagree_about_a_type(workspace: Workspace, add_dataset: AddDataset) -> None:
    (workspace.root / "many").mkdir()
    for index, values in enumerate(([1, 2], ["x", "y"])):
        pq.write_table(pa.table({"age": values, "label": [0, 1]}), workspace.root / "many" / f"{index}.parquet")
    columns = {"age": {"type": "number"}, "label": {"type": "label", "classes": [0, 1]}}
    with pytest.raises(SourceError, match="the files of 'x' disagree about a column's type"):
        fetch(workspace, add_dataset("x", {"kind": "parquet", "path": "many"}, columns))


def test_a_full_disk_is_told_and_leaves_nothing_behind(workspace: Workspace, add_dataset: AddDataset, small_disk: Path) -> None:
    columns = {"image": {"type": "image"}, "label": {"type": "label", "classes": list(range(10))}}
    add_dataset("digits", {"kind": "sklearn", "name": "digits"}, columns)
    (workspace.data / "digits").symlink_to(small_disk)
    (small_disk / "ballast").write_bytes(bytes((2 << 20) - 60_000))
    with pytest.raises(OSError) as caught:
        fetch(workspace, "digits")
    known = explain(caught.value)
    assert known is not None
    assert "the disk is full" in known.what
    (small_disk / "ballast").unlink()
    assert fetch(workspace, "digits") == {"all": 1797}


def run(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tasks.fetch", *arguments], cwd=workspace.root, capture_output=True, text=True, check=False
    )


def test_the_command(workspace: Workspace, add_people: AddDataset) -> None:
    done = run(workspace, add_people())
    assert (done.returncode, done.stdout, done.stderr) == (0, "fetch people: 200 rows (all)\n", "")
    done = run(workspace, "poeple")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no dataset 'poeple'; did you mean 'people'?")
    assert "Traceback" not in done.stderr
    assert run(workspace).returncode == 2
