"""The parquet source: files, folders, parts, and the hub's way to keep images."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import SourceError
from tasks.core.workspace import Workspace
from tasks.sources import SOURCES

COLUMNS = {"image": {"type": "image"}, "label": {"type": "label", "classes": [0, 1]}}


def read(workspace: Workspace, name: str) -> list[tuple[str, list[object]]]:
    dataset = workspace.dataset(name)
    batches = SOURCES.build(dataset.source).read(dataset, workspace)
    return [(part, batch.column("image").to_pylist()) for part, batch in batches]


def write(workspace: Workspace, path: str, images: list[bytes]) -> None:
    file = workspace.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [{"bytes": image, "path": "x"} for image in images], "label": [0] * len(images)}), file)


def test_a_file_and_the_bytes_of_the_hubs_image_structs(workspace: Workspace, add_dataset: Callable[..., str]) -> None:
    write(workspace, "x.parquet", [b"a", b"b"])
    assert read(workspace, add_dataset("x", {"kind": "parquet", "path": "x.parquet"}, COLUMNS)) == [("all", [b"a", b"b"])]


def test_a_folder_is_read_in_the_order_of_its_names(workspace: Workspace, add_dataset: Callable[..., str]) -> None:
    write(workspace, "many/1.parquet", [b"b"])
    write(workspace, "many/0.parquet", [b"a"])
    assert read(workspace, add_dataset("x", {"kind": "parquet", "path": "many"}, COLUMNS)) == [("all", [b"a"]), ("all", [b"b"])]


def test_parts(workspace: Workspace, add_dataset: Callable[..., str]) -> None:
    write(workspace, "a.parquet", [b"a"])
    write(workspace, "b.parquet", [b"b"])
    name = add_dataset("x", {"kind": "parquet", "path": {"train": "a.parquet", "test": "b.parquet"}}, COLUMNS)
    assert read(workspace, name) == [("train", [b"a"]), ("test", [b"b"])]


def test_a_missing_file_column_or_format(workspace: Workspace, add_dataset: Callable[..., str]) -> None:
    name = add_dataset("x", {"kind": "parquet", "path": "x.parquet"}, COLUMNS)
    with pytest.raises(SourceError, match=r"there is no file .*x\.parquet"):
        read(workspace, name)
    (workspace.root / "x.parquet").write_text("no parquet")
    with pytest.raises(SourceError, match="not a readable parquet file"):
        read(workspace, name)
    pq.write_table(pa.table({"img": [b""], "label": [0]}), workspace.root / "x.parquet")
    with pytest.raises(SourceError, match=r"no column 'image'; did you mean 'img'\?"):
        read(workspace, name)


def test_an_empty_folder(workspace: Workspace, add_dataset: Callable[..., str]) -> None:
    (workspace.root / "many").mkdir()
    with pytest.raises(SourceError, match=r"no \.parquet file in the folder many"):
        read(workspace, add_dataset("x", {"kind": "parquet", "path": "many"}, COLUMNS))
