"""The Hugging Face source: the mirror first, then the hub, and what it says where neither helps."""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import SourceError
from tasks.core.workspace import Workspace
from tasks.sources import SOURCES

COLUMNS = {"text": {"type": "text"}, "label": {"type": "label", "classes": [0, 1]}}
SOURCE = {"kind": "huggingface", "id": "people/reviews", "config": "plain", "splits": {"train": "train", "validation": "dev"}}


class Hub:
    """The part of the hub's client that the source uses, over files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list_repo_files(self, id: str, *, repo_type: str, revision: str) -> list[str]:  # noqa: A002
        assert (id, repo_type, revision) == ("people/reviews", "dataset", "refs/convert/parquet")
        return [str(file.relative_to(self.folder)) for file in self.folder.rglob("*.parquet")]

    def download(self, id: str, name: str, *, repo_type: str, revision: str) -> str:  # noqa: A002
        return str(self.folder / name)


@pytest.fixture
def reviews(workspace: Workspace, add_dataset: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("MAASFLOW_MIRROR", raising=False)
    return add_dataset("reviews", SOURCE, COLUMNS)


def read(workspace: Workspace, name: str) -> list[tuple[str, list[str]]]:
    dataset = workspace.dataset(name)
    return [(part, batch.column("text").to_pylist()) for part, batch in SOURCES.build(dataset.source).read(dataset, workspace)]


def write(file: Path, texts: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts, "label": [0] * len(texts)}), file)


def no_network(self: object, *args: object, **kwargs: object) -> None:
    raise ConnectionError("Name or service not known\nand a long story")


def test_the_mirror_in_both_layouts(workspace: Workspace, reviews: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAASFLOW_MIRROR", "mirror")
    write(workspace.root / "mirror/reviews/train.parquet", ["a"])
    write(workspace.root / "mirror/reviews/plain/dev/0000.parquet", ["b"])
    write(workspace.root / "mirror/reviews/plain/dev/0001.parquet", ["c"])
    assert read(workspace, reviews) == [("train", ["a"]), ("validation", ["b"]), ("validation", ["c"])]


def test_the_hub_where_the_mirror_has_it_not(workspace: Workspace, reviews: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(workspace.root / "hub")
    write(hub.folder / "plain/train/0000.parquet", ["a"])
    write(hub.folder / "plain/dev/0000.parquet", ["b"])
    write(hub.folder / "other/train/0000.parquet", ["x"])
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    assert read(workspace, reviews) == [("train", ["a"]), ("validation", ["b"])]
    (hub.folder / "plain/dev/0000.parquet").unlink()
    with pytest.raises(SourceError, match="has no split 'plain/dev'") as caught:
        read(workspace, reviews)
    assert "it has other/train, plain/train" in caught.value.do


def test_of_several_names_the_first_that_exists_is_taken(
    workspace: Workspace, add_dataset: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = add_dataset("reviews", SOURCE | {"splits": {"train": "train", "test": ["test", "validation", "dev"]}}, COLUMNS)
    monkeypatch.setenv("MAASFLOW_MIRROR", "mirror")
    write(workspace.root / "mirror/reviews/train.parquet", ["a"])
    write(workspace.root / "mirror/reviews/dev.parquet", ["b"])
    assert read(workspace, name) == [("train", ["a"]), ("test", ["b"])]

    monkeypatch.delenv("MAASFLOW_MIRROR")
    hub = Hub(workspace.root / "hub")
    for split in ("train", "validation", "dev"):
        write(hub.folder / f"plain/{split}/0000.parquet", [split])
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    assert read(workspace, name) == [("train", ["train"]), ("test", ["validation"])]
    for split in ("validation", "dev"):
        (hub.folder / f"plain/{split}/0000.parquet").unlink()
    with pytest.raises(SourceError, match="has no split 'plain/test' or 'plain/validation' or 'plain/dev'"):
        read(workspace, name)


def test_a_hub_that_does_not_answer(workspace: Workspace, reviews: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", no_network)
    with pytest.raises(SourceError) as caught:
        read(workspace, reviews)
    assert (
        caught.value.what == "the split 'train' of 'people/reviews' cannot be fetched: the hub does not answer (Name or service not known)"
    )
    assert "set MAASFLOW_MIRROR to a folder with reviews/train.parquet" in caught.value.do
    assert "kind: parquet" in caught.value.do


def test_a_mirror_that_lacks_the_dataset_is_named_too(workspace: Workspace, reviews: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace.root / "mirror").mkdir()
    monkeypatch.setenv("MAASFLOW_MIRROR", "mirror")
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", no_network)
    with pytest.raises(SourceError, match=r"MAASFLOW_MIRROR has no reviews/train\.parquet, and the hub"):
        read(workspace, reviews)


def test_a_mirror_that_is_not_there(workspace: Workspace, reviews: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAASFLOW_MIRROR", "nowhere")
    with pytest.raises(SourceError, match="MAASFLOW_MIRROR is nowhere, where there is no folder"):
        read(workspace, reviews)
