"""The CSV source: what it yields, and what it says of a file that it cannot read."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from tasks.core.errors import ConfigError, SourceError
from tasks.core.workspace import Workspace
from tasks.sources import SOURCES

LABEL = {"type": "label", "classes": [0, 1]}


def read(workspace: Workspace, name: str) -> pa.Table:
    dataset = workspace.dataset(name)
    source = SOURCES.build(dataset.source)
    return pa.Table.from_batches([batch for _, batch in source.read(dataset, workspace)])


@pytest.fixture
def reviews(workspace: Workspace, add_dataset: Callable[..., str]) -> Callable[..., str]:
    def add(content: bytes, **options: Any) -> str:
        (workspace.root / "reviews.csv").write_bytes(content)
        return add_dataset("reviews", {"kind": "csv", "path": "reviews.csv", **options}, {"text": {"type": "text"}, "label": LABEL})

    return add


def test_every_value_is_text_and_an_empty_field_is_missing_except_in_a_text(workspace: Workspace, reviews: Callable[..., str]) -> None:
    table = read(workspace, reviews(b'label,text,other\n1,"two\nlines, one text",x\n,,y\n'))
    assert table.to_pydict() == {"text": ["two\nlines, one text", ""], "label": ["1", None]}


def test_a_byte_order_mark_is_not_part_of_the_first_column(workspace: Workspace, reviews: Callable[..., str]) -> None:
    assert read(workspace, reviews(b"\xef\xbb\xbftext,label\na,1\n"))["text"].to_pylist() == ["a"]


def test_separator_and_encoding(workspace: Workspace, reviews: Callable[..., str]) -> None:
    table = read(workspace, reviews("text;label\ncafé;1\n".encode("latin-1"), separator=";", encoding="latin-1"))
    assert table["text"].to_pylist() == ["café"]


@pytest.mark.parametrize(
    ("content", "what", "do"),
    [
        (b"", "reviews.csv is empty", "a line with the names of the columns"),
        (b"txet,label\na,1\n", "no column 'text'; did you mean 'txet'?", "it has txet, label"),
        (b"text,label,text\na,1,b\n", "the column 'text' stands there twice", "rename"),
        (b"text,label\na,1\nb\n", "Expected 2 columns, got 1", "source.separator"),
        (b"text,label\n\xff\xfe,1\n", "cannot be read as CSV", "source.encoding"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(workspace: Workspace, reviews: Callable[..., str], content: bytes, what: str, do: str) -> None:
    with pytest.raises(SourceError) as caught:
        read(workspace, reviews(content))
    assert what in caught.value.what
    assert "reviews.csv" in caught.value.what
    assert do in caught.value.do


def test_no_such_file(workspace: Workspace, reviews: Callable[..., str]) -> None:
    name = reviews(b"")
    (workspace.root / "reviews.csv").unlink()
    with pytest.raises(SourceError, match=r"there is no file reviews\.csv"):
        read(workspace, name)


def test_an_unknown_encoding(workspace: Workspace, reviews: Callable[..., str]) -> None:
    with pytest.raises(SourceError, match="unknown encoding 'utf-9'"):
        read(workspace, reviews(b"text,label\na,1\n", encoding="utf-9"))


def test_a_file_of_another_machine_by_its_mirror(
    workspace: Workspace, add_dataset: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAASFLOW_MIRROR", "mirror")
    (workspace.root / "mirror").mkdir()
    (workspace.root / "mirror" / "x.csv").write_text("text,label\na,1\n")
    source = {"kind": "csv", "url": "https://example.org/reviews.csv", "mirror": "x.csv"}
    name = add_dataset("reviews", source, {"text": {"type": "text"}, "label": LABEL})
    assert read(workspace, name).to_pydict() == {"text": ["a"], "label": ["1"]}
    assert SOURCES.build(source).files(workspace) == ()
    (workspace.root / "mirror" / "x.csv").write_text("txet,label\na,1\n")
    with pytest.raises(SourceError, match=r"https://example\.org/reviews\.csv: no column 'text'"):
        read(workspace, name)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "give either 'path', for a file in the workspace, or 'url', for one elsewhere"),
        ({"path": "x.csv", "url": "https://example.org/x.csv"}, "give either 'path'"),
        ({"path": "x.csv", "sha256": "0" * 64}, "'sha256' and 'mirror' belong to a 'url', not to a 'path'"),
        ({"path": "x.csv", "mirror": "x.csv"}, "'sha256' and 'mirror' belong to a 'url', not to a 'path'"),
        ({"url": "http://example.org/x.csv"}, "url: 'http://example.org/x.csv': expected an address that begins with https://"),
        ({"url": "https://example.org/x.csv", "sha256": "12"}, "sha256"),
        ({"url": "https://example.org/x.csv", "mirror": "../x.csv"}, "'mirror' is a path below the mirror folder, not ../x.csv"),
        ({"url": "https://example.org/x.csv", "mirror": "/x.csv"}, "'mirror' is a path below the mirror folder, not /x.csv"),
    ],
)
def test_a_file_is_here_or_elsewhere(options: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SOURCES.build({"kind": "csv", **options})
    assert what in caught.value.what


def test_a_folder_is_no_file(workspace: Workspace, reviews: Callable[..., str]) -> None:
    name = reviews(b"")
    (workspace.root / "reviews.csv").unlink()
    (workspace.root / "reviews.csv").mkdir()
    with pytest.raises(SourceError, match=r"reviews\.csv is a folder, expected a file"):
        read(workspace, name)
