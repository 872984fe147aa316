"""Prepare: raw data → cleaned, split and written as `data/<name>/prepared/{train,validation,test}.arrow`.

A row's side is decided by its own content and the seed alone. So it keeps its side when rows are added or reordered,
equal rows never stand on two sides, and every class has the wanted share in each split but for chance. Where the dataset
file splits by order, it is decided by the row's place alone. In either case rows keep their order within each split.

Two passes: the first cleans into a file on disk and keeps 25 bytes for each row, from which it is decided which rows stay
and where they go; the second copies them there. Memory holds one batch beside that.
"""

import logging
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.core.command import run_stage
from tasks.core.content import Digests, digests, scatter
from tasks.core.dataset import SPLITS, Dataset, SplitName, Splitting
from tasks.core.errors import DataError
from tasks.core.raw import PARTS, as_bytes, as_number, as_target, as_text, of_other_classes, read_raw
from tasks.core.splits import EXAMPLE, TARGET, PreparedSummary, write_split
from tasks.core.stages import whole_folder, write_text
from tasks.core.workspace import Workspace

_log = logging.getLogger("tasks.prepare")

Side = npt.NDArray[np.int8]
"""For each row the index of its split in SPLITS, or _DROPPED."""

_Shares = dict[SplitName, float]

_DROPPED = -1
_SEEDS_TRIED = 200


def prepare(workspace: Workspace, name: str) -> PreparedSummary:
    """Clean and split one dataset. Raises DataError where a split would lack a class, or rows where there are no classes."""
    dataset = workspace.dataset(name)
    with whole_folder(workspace.prepared(name)) as folder:
        cleaned = folder / "cleaned.arrow"
        rows, dropped = _clean(workspace.raw(name), dataset, cleaned)
        side = _sides(rows, dataset.split)
        dropped |= _drop_repeats(rows, side, dataset.split, duplicates="drop_duplicates" in dataset.cleaning)
        _require_rows(rows, side, dataset, f"data/{name}.yaml")
        summary = _summary(rows, side, dataset, dropped)
        _write(folder, cleaned, side)
        cleaned.unlink()
        write_text(folder / "summary.json", summary.model_dump_json(indent=1) + "\n")
    _log.info("prepare %s: %s", name, ", ".join(f"{count:,} {split}" for split, count in summary.rows.items()))
    return summary


@dataclass(frozen=True)
class _Rows:
    """What the decisions need to know of every row that cleaning left."""

    content: Digests
    """Of the features alone: rows that differ only in their label share a side."""
    example: Digests
    """Of features and label."""
    target: npt.NDArray[np.int64]
    part: Side
    """The index in PARTS of the part that the source put the row into."""


def _clean(raw: Path, dataset: Dataset, file: Path) -> tuple[_Rows, dict[str, int]]:
    """Write the cleaned rows of all parts into one file; what is known of them, and rows dropped by reason."""
    found: list[_Rows] = []
    dropped = {"empty": 0, "unusable": 0, "other_class": 0}
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, _schema(dataset)) as writer:
        for part, raw_batch in read_raw(raw, dataset):
            batch, target, others = _of_classes(raw_batch, dataset)
            dropped["other_class"] += others
            arrays = [_typed(batch.column(name), dataset, name) for name in dataset.features]
            empty, unusable = _unfit(arrays, target, dataset)
            dropped["empty"] += pc.sum(empty).as_py() or 0
            dropped["unusable"] += pc.sum(unusable).as_py() or 0
            keep = pc.invert(pc.or_(empty, unusable))
            arrays, target = [array.filter(keep) for array in arrays], target.filter(keep)
            content = digests(arrays)
            targets = target.to_numpy(zero_copy_only=False).astype(np.int64)
            example = scatter(content ^ scatter(targets.astype(np.uint64)))
            writer.write_batch(pa.RecordBatch.from_arrays([*arrays, pa.array(example), target], schema=_schema(dataset)))
            found.append(_Rows(content, example, targets, np.full(len(content), PARTS.index(part), np.int8)))
    return _joined(found), dropped


def _of_classes(batch: pa.RecordBatch, dataset: Dataset) -> tuple[pa.RecordBatch, pa.Array, int]:
    """(the rows without those of other classes, where those are to be dropped; their targets; how many were dropped)."""
    target = as_target(batch, dataset)
    others = of_other_classes(batch, target, dataset)
    if others is None:
        return batch, target, 0
    keep = pc.invert(others)
    return batch.filter(keep), target.filter(keep), batch.num_rows - (pc.sum(keep).as_py() or 0)


def _joined(found: list[_Rows]) -> _Rows:
    return _Rows(
        np.concatenate([rows.content for rows in found]),
        np.concatenate([rows.example for rows in found]),
        np.concatenate([rows.target for rows in found]),
        np.concatenate([rows.part for rows in found]),
    )


def _schema(dataset: Dataset) -> pa.Schema:
    types = {"image": pa.binary(), "number": pa.float64(), "text": pa.string(), "category": pa.string()}
    fields = [(name, types[column.type]) for name, column in dataset.features.items()]
    return pa.schema([*fields, (EXAMPLE, pa.uint64()), (TARGET, pa.int64())])


def _typed(array: pa.Array, dataset: Dataset, name: str) -> pa.Array:
    """The values by the column's type, and texts cleaned as the dataset file says."""
    kind = dataset.columns[name].type
    if kind == "image":
        return as_bytes(array)
    if kind == "number":
        return as_number(array)[0]
    text = as_text(array)
    if "unicode_nfc" in dataset.cleaning and not pc.all(pc.string_is_ascii(text)).as_py():
        text = pa.array([value if value is None else unicodedata.normalize("NFC", value) for value in text.to_pylist()], pa.string())
    return pc.utf8_trim_whitespace(text) if "trim" in dataset.cleaning else text


def _unfit(arrays: list[pa.Array], target: pa.Array, dataset: Dataset) -> tuple[pa.Array, pa.Array]:
    """(rows without a text or an image, if those are to be dropped; rows that lack something else that may not be missing)."""
    nothing = pa.array(np.zeros(len(target), np.bool_))
    empty, unusable = nothing, target.is_null()
    for array, column in zip(arrays, dataset.features.values(), strict=True):
        if column.type in ("text", "image") and "drop_empty" in dataset.cleaning:
            size = pc.binary_length(array)
            empty = pc.or_(empty, pc.fill_null(pc.equal(size, 0), fill_value=True))
        elif not column.nullable:
            unusable = pc.or_(unusable, array.is_null())
    return empty, pc.and_not(unusable, empty)


def _sides(rows: _Rows, split: Splitting) -> Side:
    """Each row's split: the source's own where it delivers it, else by content and seed, or by order."""
    held_out: tuple[SplitName, ...] = ("test", "validation")
    given = [name for name in held_out if (rows.part == PARTS.index(name)).any()]
    shares: _Shares = {name: share for name, share in zip(held_out, (split.test, split.validation), strict=True) if name not in given}
    side: Side = np.full(len(rows.part), SPLITS.index("train"), np.int8)
    for name in given:
        side[rows.part == PARTS.index(name)] = SPLITS.index(name)
    (_by_order if split.by == "order" else _by_content)(rows, side, shares, split.seed)
    return side


def _by_content(rows: _Rows, side: Side, shares: _Shares, seed: int) -> None:
    salt = np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)
    # 53 bits, as many as a float holds exactly.
    place = (scatter(rows.content ^ scatter(salt)) >> np.uint64(11)).astype(np.float64) / 2.0**53
    free = side == SPLITS.index("train")
    start = 0.0
    for name, share in shares.items():
        side[free & (place >= start) & (place < start + share)] = SPLITS.index(name)
        start += share


def _by_order(rows: _Rows, side: Side, shares: _Shares, seed: int) -> None:  # noqa: ARG001 - as _by_content
    free = np.flatnonzero(side == SPLITS.index("train"))
    stop = len(free)
    for name, share in shares.items():
        start = max(stop - max(round(share * len(free)), 1), 0)
        side[free[start:stop]] = SPLITS.index(name)
        stop = start


def _drop_repeats(rows: _Rows, side: Side, split: Splitting, *, duplicates: bool) -> dict[str, int]:
    """Mark as dropped in `side` the rows that also stand in a split held out, and those that repeat another; rows by reason.

    Where the order counts, only duplicates that `cleaning` drops are taken out: a running text has no gaps, whatever it repeats.
    """
    held_out = _held_out_elsewhere(rows, side) if split.by == "content" else np.zeros(len(side), np.bool_)
    side[held_out] = _DROPPED
    repeats = np.zeros(len(side), np.bool_)
    if duplicates:
        left = np.flatnonzero(~held_out)
        repeats[left] = True
        repeats[left[np.unique(rows.example[left], return_index=True)[1]]] = False
        side[repeats] = _DROPPED
    return {"duplicate": int(repeats.sum()), "also_held_out": int(held_out.sum())}


def _held_out_elsewhere(rows: _Rows, side: Side) -> npt.NDArray[np.bool_]:
    """Rows whose content also stands in a later split of SPLITS, whatever its label there."""
    found = np.zeros(len(side), np.bool_)
    for index in range(len(SPLITS) - 1):
        here = side == index
        found[here] = np.isin(rows.content[here], rows.content[side > index])
    return found


def _require_rows(rows: _Rows, side: Side, dataset: Dataset, file: str) -> None:
    """Raises DataError unless every split holds every class, or a row where there are no classes."""
    lacking = []
    for index, split in enumerate(SPLITS):
        counts = np.bincount(rows.target[side == index], minlength=max(len(dataset.classes), 1))
        missing = np.flatnonzero(counts == 0)[:5]
        if len(missing):
            names = f" of class {', '.join(repr(dataset.class_names[place]) for place in missing)}" if dataset.classes else ""
            lacking.append(f"{split} has no row{names}")
    if lacking:
        kept = int((side != _DROPPED).sum())
        raise DataError(f"{file}: {kept} rows are too few to split: {'; '.join(lacking)}", _advice(rows, dataset))


def _advice(rows: _Rows, dataset: Dataset) -> str:
    """How every split would get what it lacks."""
    more = "rows of those classes" if dataset.classes else "rows"
    if dataset.split.by == "order":
        return f"add {more}, enlarge `split.validation` and `split.test`, or set `split.by: content` if the order means nothing"
    return _better_seed(rows, dataset) or f"add {more}, or enlarge `split.validation` and `split.test`"


def _better_seed(rows: _Rows, dataset: Dataset) -> str:
    """The first seed that puts every class into every split, as advice."""
    classes = max(len(dataset.classes), 1)
    hopeless = np.bincount(rows.target, minlength=classes).min() < len(SPLITS)
    for seed in range(0 if hopeless else _SEEDS_TRIED):
        split = dataset.split.model_copy(update={"seed": seed})
        side = _sides(rows, split)
        _drop_repeats(rows, side, split, duplicates=False)
        cells = np.unique(side[side >= 0].astype(np.int64) * classes + rows.target[side >= 0])
        if len(cells) == classes * len(SPLITS):
            what = "rows of those classes" if dataset.classes else "rows"
            return f"add {what}, or set `split.seed: {seed}`, with which every split holds {'every class' if dataset.classes else 'rows'}"
    return ""


def _summary(rows: _Rows, side: Side, dataset: Dataset, dropped: dict[str, int]) -> PreparedSummary:
    rows_of: dict[str, int] = {}
    by_class: dict[str, dict[str, int]] = {}
    for index, split in enumerate(SPLITS):
        counts = np.bincount(rows.target[side == index], minlength=len(dataset.classes)).tolist()
        rows_of[split] = sum(counts)
        by_class[split] = dict(zip(dataset.class_names, counts, strict=True)) if dataset.classes else {}
    return PreparedSummary(rows=rows_of, classes=by_class, dropped=dropped)


def _write(folder: Path, cleaned: Path, side: Side) -> None:
    # Not mapped: pages of a mapped file count as memory of this process until it ends.
    with pa.OSFile(str(cleaned)) as source, pa.ipc.open_file(source) as reader:
        for index, split in enumerate(SPLITS):
            write_split(folder, split, _of_side(reader, side, index), reader.schema)


def _of_side(reader: Any, side: Side, index: int) -> Iterator[pa.RecordBatch]:
    start = 0
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        keep = side[start : start + batch.num_rows] == index
        start += batch.num_rows
        if keep.any():
            yield batch.filter(pa.array(keep))


if __name__ == "__main__":
    run_stage(prepare)
