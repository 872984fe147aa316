"""The images source: a folder for each class."""

from collections.abc import Callable

import pytest

from tasks.core.errors import ConfigError, SourceError
from tasks.core.workspace import Workspace
from tasks.sources import SOURCES

COLUMNS = {"photo": {"type": "image"}, "animal": {"type": "label", "classes": ["cat", "dog"]}}


def read(workspace: Workspace, name: str) -> list[tuple[str, bytes, str]]:
    dataset = workspace.dataset(name)
    batches = SOURCES.build(dataset.source).read(dataset, workspace)
    return [(part, row["photo"], row["animal"]) for part, batch in batches for row in batch.to_pylist()]


def write(workspace: Workspace, path: str, content: bytes) -> None:
    file = workspace.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def test_folders_are_labels_and_hidden_files_are_not_data(workspace: Workspace, add_dataset: Callable[..., str]) -> None:
    for path, content in (("pets/dog/1.png", b"d"), ("pets/cat/2.png", b"c2"), ("pets/cat/deep/1.png", b"c1"), ("pets/cat/.x", b"")):
        write(workspace, path, content)
    name = add_dataset("pets", {"kind": "images", "path": "pets"}, COLUMNS)
    assert read(workspace, name) == [("all", b"c2", "cat"), ("all", b"c1", "cat"), ("all", b"d", "dog")]


def test_parts(workspace: Workspace, add_dataset: Callable[..., str]) -> None:
    write(workspace, "a/dog/1.png", b"a")
    write(workspace, "b/dog/1.png", b"b")
    name = add_dataset("pets", {"kind": "images", "path": {"train": "a", "test": "b"}}, COLUMNS)
    assert read(workspace, name) == [("train", b"a", "dog"), ("test", b"b", "dog")]


def test_no_folder_and_no_images(workspace: Workspace, add_dataset: Callable[..., str]) -> None:
    name = add_dataset("pets", {"kind": "images", "path": "pets"}, COLUMNS)
    with pytest.raises(SourceError, match="there is no folder pets"):
        read(workspace, name)
    (workspace.root / "pets").mkdir()
    with pytest.raises(SourceError, match="there are no images in pets"):
        read(workspace, name)


def test_other_columns_are_refused(workspace: Workspace, add_dataset: Callable[..., str]) -> None:
    name = add_dataset("pets", {"kind": "images", "path": "pets"}, COLUMNS | {"age": {"type": "number"}})
    with pytest.raises(ConfigError, match="fills one image column and the label"):
        read(workspace, name)
