"""The text source: the file in pieces, nothing added and nothing lost, through to the prepared splits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.core.dataset import SPLITS
from tasks.core.errors import ConfigError, SourceError
from tasks.core.splits import Split, read_summary
from tasks.core.workspace import Workspace
from tasks.fetch import fetch
from tasks.prepare import prepare
from tasks.sources import SOURCES
from tasks.validate import validate

COLUMNS: dict[str, Any] = {"text": {"type": "text"}}
REPETITIVE = "the same\r\n\r\n  \t e\u0301 \u00e9 \r\n" * 400 + "\n\n\n" + " " * 500 + "\ufeffend\r"


@pytest.fixture
def running_text(workspace: Workspace, add_dataset: Callable[..., str]) -> Callable[..., str]:
    def add(content: bytes, columns: dict[str, Any] = COLUMNS, cleaning: tuple[str, ...] = (), **options: Any) -> str:
        (workspace.root / "input.txt").write_bytes(content)
        split = {"by": "order", "test": 0.1, "validation": 0.05}
        expectations = {"minimum_rows": 1, "duplicates": 1.0}
        source = {"kind": "text", "path": "input.txt", **options}
        return add_dataset("letters", source, columns, cleaning=cleaning, split=split, expectations=expectations)

    return add


def read(workspace: Workspace, name: str) -> list[str]:
    dataset = workspace.dataset(name)
    batches = [batch for part, batch in SOURCES.build(dataset.source).read(dataset, workspace) if part == "all"]
    return [piece for batch in batches for piece in batch.column("text").to_pylist()]


@given(text=st.text(), characters=st.integers(1, 9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_the_pieces_are_the_file(workspace: Workspace, running_text: Callable[..., str], text: str, characters: int) -> None:
    pieces = read(workspace, running_text(text.encode(), characters=characters))
    assert "".join(pieces) == text
    assert all(len(piece) == characters for piece in pieces[:-1])


def test_repeated_and_blank_pieces_reach_the_prepared_splits_in_order(workspace: Workspace, running_text: Callable[..., str]) -> None:
    name = running_text(REPETITIVE.encode(), characters=24)
    fetch(workspace, name)
    assert validate(workspace, name).success
    prepare(workspace, name)
    texts = {split: Split.open(workspace.prepared(name), split).table["text"].to_pylist() for split in SPLITS}
    assert "".join(piece for split in SPLITS for piece in texts[split]) == REPETITIVE
    assert len(texts["test"]) == round(0.1 * sum(map(len, texts.values())))
    assert not any(read_summary(workspace.prepared(name)).dropped.values())


def test_memory_is_that_of_a_batch(workspace: Workspace, running_text: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.sources.text._BATCH_CHARACTERS", 64)
    name = running_text(b"0123456789" * 100, characters=10)
    dataset = workspace.dataset(name)
    batches: list[pa.RecordBatch] = [batch for _, batch in SOURCES.build(dataset.source).read(dataset, workspace)]
    assert {batch.num_rows for batch in batches} == {6, 4}


def test_another_encoding(workspace: Workspace, running_text: Callable[..., str]) -> None:
    assert read(workspace, running_text("café".encode("latin-1"), encoding="latin-1")) == ["café"]
    with pytest.raises(SourceError, match=r"input\.txt cannot be read as text: 'utf-8' codec") as caught:
        read(workspace, running_text("café".encode("latin-1")))
    assert "`source.encoding`" in caught.value.do
    with pytest.raises(SourceError, match=r"unknown encoding 'utf-9' for input\.txt"):
        read(workspace, running_text(b"x", encoding="utf-9"))


def test_what_does_not_fit_a_running_text(workspace: Workspace, running_text: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match="fills one text column, the dataset file asks for text, label"):
        read(workspace, running_text(b"x", columns=COLUMNS | {"label": {"type": "label", "classes": [0, 1]}}))
    with pytest.raises(ConfigError, match=r"`cleaning: \[trim, drop_empty\]` would change it") as caught:
        read(workspace, running_text(b"x", cleaning=("trim", "drop_empty")))
    assert caught.value.do == "set `cleaning: []` in the dataset file"


def test_no_such_file_and_an_empty_one(workspace: Workspace, running_text: Callable[..., str]) -> None:
    name = running_text(b"")
    with pytest.raises(SourceError, match="the source of 'letters' is empty"):
        fetch(workspace, name)
    Path("input.txt").unlink()
    with pytest.raises(SourceError, match=r"there is no file input\.txt"):
        read(workspace, name)
