"""Preparation: what cleaning does, and that a row's side depends on its content and the seed alone."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.content import digests
from tasks.core.dataset import SPLITS, Splitting
from tasks.core.errors import DataError
from tasks.core.raw import PARTS
from tasks.core.splits import EXAMPLE, TARGET, Split, read_summary
from tasks.core.workspace import Workspace
from tasks.fetch import fetch
from tasks.prepare import _Rows, _sides, prepare

AddDataset = Callable[..., str]

TEXTS = {"text": {"type": "text"}, "label": {"type": "label", "classes": ["no", "yes"]}}


def texts(workspace: Workspace, add_dataset: AddDataset, rows: list[tuple[Any, str]], **sections: Any) -> str:
    table = pa.table({"text": pa.array([text for text, _ in rows], pa.string()), "label": [label for _, label in rows]})
    pq.write_table(table, workspace.root / "texts.parquet")
    return add_dataset("texts", {"kind": "parquet", "path": "texts.parquet"}, TEXTS, **sections)


def prepared(workspace: Workspace, name: str) -> dict[str, Split]:
    fetch(workspace, name)
    prepare(workspace, name)
    return {split: Split.open(workspace.prepared(name), split) for split in SPLITS}


def values(splits: dict[str, Split], column: str = "text") -> list[Any]:
    return sorted(value for split in splits.values() for value in split.table[column].to_pylist())


def many(count: int, start: int = 0) -> list[tuple[Any, str]]:
    return [(f"text {row}", "yes" if row % 3 else "no") for row in range(start, start + count)]


def rows_of(contents: list[int], part: str = "all") -> _Rows:
    content = digests([pa.array(contents, pa.int64())])
    return _Rows(content, content, np.zeros(len(content), np.int64), np.full(len(content), PARTS.index(part), np.int8))


@given(
    first=st.lists(st.integers(-(2**40), 2**40), min_size=1, unique=True),
    more=st.lists(st.integers(-(2**40), 2**40)),
    seed=st.integers(-(2**63), 2**63),
)
def test_a_row_keeps_its_side_when_others_are_added_or_reordered(first: list[int], more: list[int], seed: int) -> None:
    split = Splitting(seed=seed)
    before = dict(zip(first, _sides(rows_of(first), split), strict=True))
    together = [*more, *reversed(first)]
    after = dict(zip(together, _sides(rows_of(together), split), strict=True))
    assert {value: after[value] for value in first} == before


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_shares_hold_but_for_chance(seed: int) -> None:
    side = _sides(rows_of(list(range(20_000))), Splitting(validation=0.1, test=0.2, seed=seed))
    assert np.bincount(side) / 20_000 == pytest.approx([0.7, 0.1, 0.2], abs=0.012)


def test_another_seed_is_another_split() -> None:
    rows = rows_of(list(range(1000)))
    assert (_sides(rows, Splitting(seed=0)) != _sides(rows, Splitting(seed=1))).mean() > 0.3


def test_what_is_on_disk(workspace: Workspace, add_dataset: AddDataset) -> None:
    splits = prepared(workspace, texts(workspace, add_dataset, many(300)))
    assert splits["train"].table.schema == pa.schema([("text", pa.string()), (EXAMPLE, pa.uint64()), (TARGET, pa.int64())])
    assert values(splits) == sorted(text for text, _ in many(300))
    labels = {text: label == "yes" for text, label in many(300)}
    for split in splits.values():
        assert [labels[text] for text in split.table["text"].to_pylist()] == split.targets.tolist()
    summary = read_summary(workspace.prepared("texts"))
    assert summary.rows == {name: len(split) for name, split in splits.items()}
    assert summary.classes["train"] == {"no": int((splits["train"].targets == 0).sum()), "yes": int((splits["train"].targets == 1).sum())}
    assert {path.name for path in workspace.prepared("texts").iterdir()} == {
        "train.arrow",
        "validation.arrow",
        "test.arrow",
        "summary.json",
    }


def test_the_same_bytes_every_time(workspace: Workspace, add_dataset: AddDataset) -> None:
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in workspace.prepared("texts").iterdir()}

    prepared(workspace, texts(workspace, add_dataset, many(300)))
    first = files()
    prepared(workspace, "texts")
    assert files() == first


def test_more_rows_move_none_that_were_there(workspace: Workspace, add_dataset: AddDataset) -> None:
    before = {name: set(split.examples.tolist()) for name, split in prepared(workspace, texts(workspace, add_dataset, many(300))).items()}
    after = prepared(workspace, texts(workspace, add_dataset, many(300, start=300)[::-1] + many(300)))
    for name, examples in before.items():
        assert examples <= set(after[name].examples.tolist())


def test_cleaning(workspace: Workspace, add_dataset: AddDataset) -> None:
    nfd = unicodedata.normalize("NFD", "café")
    dirty: list[tuple[Any, str]] = [(f"  {nfd}\n", "yes"), ("café", "yes"), ("", "no"), ("   ", "no"), (None, "no"), ("text 1", "yes")]
    splits = prepared(workspace, texts(workspace, add_dataset, many(300) + dirty))
    assert values(splits) == sorted(["café", *(text for text, _ in many(300))])
    assert read_summary(workspace.prepared("texts")).dropped == {
        "empty": 3,
        "unusable": 0,
        "other_class": 0,
        "duplicate": 2,
        "also_held_out": 0,
    }
    splits = prepared(workspace, texts(workspace, add_dataset, [*many(300), *dirty[:2], dirty[-1]], cleaning=[]))
    assert values(splits) == sorted([f"  {nfd}\n", "café", "text 1", *(text for text, _ in many(300))])


def test_equal_content_with_different_labels_shares_a_side(workspace: Workspace, add_dataset: AddDataset) -> None:
    rows = many(300)
    splits = prepared(workspace, texts(workspace, add_dataset, rows + [(text, "no" if label == "yes" else "yes") for text, label in rows]))
    sides = {name: set(split.table["text"].to_pylist()) for name, split in splits.items()}
    assert not sides["train"] & sides["validation"]
    assert not sides["train"] & sides["test"]
    assert sum(map(len, splits.values())) == 600
    assert len({example for split in splits.values() for example in split.examples.tolist()}) == 600


def test_a_sources_own_test_split_stays_and_takes_its_rows_out_of_training(workspace: Workspace, add_dataset: AddDataset) -> None:
    def write(name: str, rows: list[tuple[Any, str]]) -> str:
        pq.write_table(pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]}), workspace.root / name)
        return name

    paths = {"train": write("train.parquet", many(300)), "test": write("test.parquet", many(60, start=290))}
    splits = prepared(workspace, add_dataset("texts", {"kind": "parquet", "path": paths}, TEXTS))
    assert sorted(splits["test"].table["text"].to_pylist()) == sorted(text for text, _ in many(60, start=290))
    assert len(splits["train"]) + len(splits["validation"]) == 290
    assert 10 < len(splits["validation"]) < 60
    assert read_summary(workspace.prepared("texts")).dropped["also_held_out"] == 10


def test_numbers_categories_and_labels_are_read_by_their_type(workspace: Workspace, add_people: AddDataset) -> None:
    columns = {
        "age": {"type": "number", "nullable": True},
        "port": {"type": "category", "nullable": True},
        "survived": {"type": "label", "classes": [False, True]},
    }
    rows = [f"{'' if row % 5 == 0 else row / 4},{'' if row % 7 == 0 else row % 3},{'TRUE' if row % 2 else 'false'}" for row in range(300)]
    splits = prepared(workspace, add_people(*rows, columns=columns, cleaning=[]))
    table = pa.concat_tables([split.table for split in splits.values()])
    assert table.schema.field("age").type == pa.float64()
    assert set(table["port"].to_pylist()) == {"0", "1", "2", None}
    assert table["age"].null_count == 60
    assert set(table[TARGET].to_pylist()) == {0, 1}


def test_rows_of_other_classes_are_dropped_and_counted(workspace: Workspace, add_dataset: AddDataset) -> None:
    rows = [*many(300), *((f"other {row}", "maybe") for row in range(40))]
    name = texts(workspace, add_dataset, rows)
    columns = TEXTS | {"label": {"type": "label", "classes": ["no", "yes"], "others": "drop"}}
    add_dataset(name, {"kind": "parquet", "path": "texts.parquet"}, columns)
    assert values(prepared(workspace, name)) == sorted(text for text, _ in many(300))
    dropped = read_summary(workspace.prepared(name)).dropped
    assert (dropped["other_class"], dropped["unusable"]) == (40, 0)


def test_by_order_the_last_rows_are_held_out_and_none_is_taken_out(workspace: Workspace, add_dataset: AddDataset) -> None:
    rows = [(text, label) for text, label in many(50) for _ in range(2)]
    splits = prepared(workspace, texts(workspace, add_dataset, rows, cleaning=[], split={"by": "order", "validation": 0.05, "test": 0.1}))
    read = {name: split.table["text"].to_pylist() for name, split in splits.items()}
    assert [text for name in ("train", "validation", "test") for text in read[name]] == [text for text, _ in rows]
    assert {name: len(found) for name, found in read.items()} == {"train": 85, "validation": 5, "test": 10}


def test_by_order_a_sources_own_split_is_kept(workspace: Workspace, add_dataset: AddDataset) -> None:
    paths = {}
    for part, count, start in (("train", 100, 0), ("test", 20, 90)):
        pq.write_table(pa.table({"text": [text for text, _ in many(count, start)]}), workspace.root / f"{part}.parquet")
        paths[part] = f"{part}.parquet"
    columns = {"text": {"type": "text"}}
    splits = prepared(workspace, add_dataset("x", {"kind": "parquet", "path": paths}, columns, cleaning=[], split={"by": "order"}))
    assert splits["train"].table["text"].to_pylist() == [text for text, _ in many(90)]
    assert splits["validation"].table["text"].to_pylist() == [text for text, _ in many(10, 90)]
    assert splits["test"].table["text"].to_pylist() == [text for text, _ in many(20, 90)]


def test_a_label_sorted_by_class_cannot_be_split_by_order(workspace: Workspace, add_dataset: AddDataset) -> None:
    rows = sorted(many(100), key=lambda row: row[1])
    fetch(workspace, texts(workspace, add_dataset, rows, split={"by": "order"}))
    with pytest.raises(DataError, match="validation has no row of class 'no'; test has no row of class 'no'") as caught:
        prepare(workspace, "texts")
    assert "`split.by: content`" in caught.value.do


def test_without_a_label_every_target_is_0_and_there_are_no_classes(workspace: Workspace, add_dataset: AddDataset) -> None:
    pq.write_table(pa.table({"text": [text for text, _ in many(60)]}), workspace.root / "x.parquet")
    name = add_dataset("x", {"kind": "parquet", "path": "x.parquet"}, {"text": {"type": "text"}})
    splits = prepared(workspace, name)
    assert {target for split in splits.values() for target in split.targets.tolist()} == {0}
    summary = read_summary(workspace.prepared(name))
    assert summary.classes == {"train": {}, "validation": {}, "test": {}}
    assert summary.rows == {name: len(split) for name, split in splits.items()}
    assert sum(summary.rows.values()) == 60


def test_too_few_rows_without_a_label(workspace: Workspace, add_dataset: AddDataset) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), workspace.root / "x.parquet")
    source, columns = {"kind": "parquet", "path": "x.parquet"}, {"text": {"type": "text"}}
    fetch(workspace, add_dataset("x", source, columns, split={"by": "order"}))
    with pytest.raises(DataError, match=r"data/x\.yaml: 2 rows are too few to split: train has no row\n") as caught:
        prepare(workspace, "x")
    assert caught.value.do.startswith("add rows, enlarge `split.validation`")


def test_too_few_rows_name_the_class_and_a_seed_that_helps(workspace: Workspace, add_dataset: AddDataset) -> None:
    fetch(workspace, texts(workspace, add_dataset, many(12)))
    with pytest.raises(DataError, match=r"data/texts\.yaml: 12 rows are too few to split: ") as caught:
        prepare(workspace, "texts")
    assert "has no row of class" in caught.value.what
    seed = int(caught.value.do.partition("split.seed: ")[2].split("`")[0])
    assert prepared(workspace, texts(workspace, add_dataset, many(12), split={"seed": seed}))
    fetch(workspace, texts(workspace, add_dataset, many(2)))
    with pytest.raises(DataError, match="2 rows are too few") as caught:
        prepare(workspace, "texts")
    assert "add rows" in caught.value.do


def test_memory_is_that_of_a_batch(workspace: Workspace, add_dataset: AddDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.core.raw.batch_rows", lambda _: 7)
    whole = values(prepared(workspace, texts(workspace, add_dataset, many(100))))
    assert whole == sorted(text for text, _ in many(100))


def test_digests_tell_contents_apart() -> None:
    def digest(*columns: pa.Array) -> int:
        (found,) = digests(columns).tolist()
        return int(found)

    one = [
        digest(pa.array(["a"]), pa.array(["b"])),
        digest(pa.array(["b"]), pa.array(["a"])),
        digest(pa.array(["ab"]), pa.array([""])),
        digest(pa.array([None], pa.string()), pa.array(["b"])),
        digest(pa.array([0.0]), pa.array(["b"])),
    ]
    assert len(set(one)) == len(one)
    assert digest(pa.array([0.0])) == digest(pa.array([-0.0]))
    # Pinned: another value would give every dataset another split.
    assert digest(pa.array(["a"]), pa.array([1.5])) == 11903557635181455192


def test_mnist_keeps_its_official_test_split(workspace: Workspace, mirror: Path, add_dataset: AddDataset) -> None:
    columns = {"image": {"type": "image"}, "label": {"type": "label", "classes": list(range(10))}}
    splits = prepared(workspace, add_dataset("mnist", {"kind": "huggingface", "id": "ylecun/mnist", "config": "mnist"}, columns))
    assert mirror.is_dir()
    assert len(splits["test"]) == 10_000
    assert len(splits["validation"]) / 60_000 == pytest.approx(0.1, abs=0.005)
    held = np.concatenate([splits["test"].examples, splits["validation"].examples])
    assert not np.isin(splits["train"].examples, held).any()
