"""The datasets that come with maasflow."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tasks import versioning
from tasks.core.dataset import SPLITS
from tasks.core.splits import Split
from tasks.core.transforms import open_image
from tasks.core.workspace import Workspace
from tasks.fetch import fetch
from tasks.prepare import prepare
from tasks.sources import SOURCES
from tasks.validate import validate

REPOSITORY = Workspace(Path(__file__).parents[2])


@pytest.mark.parametrize("name", REPOSITORY.datasets())
def test_its_file_is_read_and_its_version_is_pinned(name: str) -> None:
    dataset = REPOSITORY.dataset(name)
    SOURCES.build(dataset.source)
    assert dataset.description
    assert dataset.license
    assert (REPOSITORY.data / f"{name}.yaml").read_text().startswith("# yaml-language-server: $schema=../docs/schema/dataset.json\n")
    assert versioning.version(REPOSITORY, name) is not None


def test_what_dvc_reads_agrees_with_the_dataset_files(workspace: Workspace) -> None:
    for name in REPOSITORY.datasets():
        shutil.copy(REPOSITORY.data / f"{name}.yaml", workspace.data)
    versioning._write_datasets(workspace)
    found = json.loads((workspace.data / "datasets.json").read_text())
    assert found == json.loads((REPOSITORY.data / "datasets.json").read_text()), "build any dataset, and commit data/datasets.json"


def test_digits(workspace: Workspace) -> None:
    shutil.copy(REPOSITORY.data / "digits.yaml", workspace.data)
    fetch(workspace, "digits")
    assert validate(workspace, "digits").rows == {"all": 1797}
    summary = prepare(workspace, "digits")
    assert sum(summary.rows.values()) == 1797
    for name in SPLITS:
        split = Split.open(workspace.prepared("digits"), name)
        shares = np.bincount(split.targets) / len(split)
        assert shares == pytest.approx([0.1] * 10, abs=0.05)
        image = open_image(split.columns(["image"], stop=1)["image"][0], "L")
        assert image.size == (8, 8)


def test_digits_low_and_high_are_the_digits_cut_in_two(workspace: Workspace) -> None:
    rows = {}
    for name in ("digits-low", "digits-high"):
        shutil.copy(REPOSITORY.data / f"{name}.yaml", workspace.data)
        fetch(workspace, name)
        assert validate(workspace, name).rows == {"all": 1797}
        rows[name] = prepare(workspace, name).rows
    assert {name: sum(found.values()) for name, found in rows.items()} == {"digits-low": 901, "digits-high": 896}
    assert rows["digits-high"]["test"] / 896 == pytest.approx(0.45, abs=0.05)


def test_shakespeare_is_the_whole_text_in_order(workspace: Workspace, mirror: Path) -> None:
    shutil.copy(REPOSITORY.data / "shakespeare.yaml", workspace.data)
    fetch(workspace, "shakespeare")
    assert validate(workspace, "shakespeare").success
    prepare(workspace, "shakespeare")
    pieces = [piece for name in SPLITS for piece in Split.open(workspace.prepared("shakespeare"), name).table["text"].to_pylist()]
    assert "".join(pieces).encode() == (mirror / "tinyshakespeare" / "input.txt").read_bytes()


@pytest.mark.parametrize(
    ("name", "rows", "dropped"),
    [
        ("hotel-zh", 7765, {"empty": 1}),
        ("titanic", 891, {}),
        ("sst2", 7783, {"duplicate": 9}),
        ("imdb", 49_877, {"also_held_out": 123}),
    ],
)
@pytest.mark.usefixtures("mirror")
def test_rows_that_are_left_of_the_mirrored_datasets(workspace: Workspace, name: str, rows: int, dropped: dict[str, int]) -> None:
    shutil.copy(REPOSITORY.data / f"{name}.yaml", workspace.data)
    fetch(workspace, name)
    assert validate(workspace, name).success
    summary = prepare(workspace, name)
    assert sum(summary.rows.values()) == rows
    assert {reason: count for reason, count in summary.dropped.items() if count} == dropped
