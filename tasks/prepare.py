"""Prepare: raw data → cleaned, split and written as `data/<name>/prepared/{train,validation,test}.arrow`.

A row's side is decided by its own content and the seed alone. So it keeps its side when rows are added or reordered,
equal rows never stand on two sides, and every class has the wanted share in each split but for chance.

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
from tasks.core.dataset import SPLITS, Dataset, Splitting
from tasks.core.errors import DataError
from tasks.core.raw import PARTS, as_bytes, as_class, as_number, as_text, read_raw
from tasks.core.splits import EXAMPLE, TARGET, PreparedSummary, write_split
from tasks.core.stages import whole_folder, write_text
from tasks.core.workspace import Workspace

_log = logging.getLogger("tasks.prepare")

Side = npt.NDArray[np.int8]
"""For each row the index of its split in SPLITS, or _DROPPED."""

_DROPPED = -1
_SEEDS_TRIED = 200


def prepare(workspace: Workspace, name: str) -> PreparedSummary:
    """Clean and split one dataset. Raises DataError where a split would lack a class."""
    dataset = workspace.dataset(name)
    with whole_folder(workspace.prepared(name)) as folder:
        cleaned = folder / "cleaned.arrow"
        rows, dropped = _clean(workspace.raw(name), dataset, cleaned)
        side = _sides(rows, dataset.split)
        dropped |= _drop_repeats(rows, side, duplicates="drop_duplicates" in dataset.cleaning)
        _require_classes(rows, side, dataset, f"data/{name}.yaml")
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
    dropped = {"empty": 0, "unusable": 0}
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, _schema(dataset)) as writer:
        for part, batch in read_raw(raw, dataset):
            arrays = [_typed(batch.column(name), dataset, name) for name in dataset.features]
            target = as_class(batch.column(dataset.label), dataset.classes)
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
    """Each row's split: the source's own where it delivers it, else by content and seed."""
    given = [name for name in ("test", "validation") if (rows.part == PARTS.index(name)).any()]
    shares = {name: share for name, share in (("test", split.test), ("validation", split.validation)) if name not in given}
    salt = np.array([split.seed & 0xFFFFFFFFFFFFFFFF], np.uint64)
    # 53 bits, as many as a float holds exactly.
    place = (scatter(rows.content ^ scatter(salt)) >> np.uint64(11)).astype(np.float64) / 2.0**53
    side: Side = np.full(len(place), SPLITS.index("train"), np.int8)
    start = 0.0
    for name, share in shares.items():
        side[(place >= start) & (place < start + share)] = SPLITS.index(name)
        start += share
    for name in given:
        side[rows.part == PARTS.index(name)] = SPLITS.index(name)
    return side


def _drop_repeats(rows: _Rows, side: Side, *, duplicates: bool) -> dict[str, int]:
    """Mark as dropped in `side` the rows that also stand in a split held out, and those that repeat another; rows by reason."""
    held_out = _held_out_elsewhere(rows, side)
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


def _require_classes(rows: _Rows, side: Side, dataset: Dataset, file: str) -> None:
    """Raises DataError unless every split holds every class."""
    counts = {split: np.bincount(rows.target[side == index], minlength=len(dataset.classes)) for index, split in enumerate(SPLITS)}
    lacking = [
        f"{split} has no row of class {', '.join(repr(dataset.class_names[index]) for index in np.flatnonzero(found == 0)[:5])}"
        for split, found in counts.items()
        if (found == 0).any()
    ]
    if lacking:
        kept = int((side != _DROPPED).sum())
        raise DataError(
            f"{file}: {kept} rows are too few to split: {'; '.join(lacking)}",
            _better_seed(rows, dataset) or "add rows of those classes, or enlarge `split.validation` and `split.test`",
        )


def _better_seed(rows: _Rows, dataset: Dataset) -> str:
    """The first seed that puts every class into every split, as advice."""
    classes = len(dataset.classes)
    hopeless = np.bincount(rows.target, minlength=classes).min() < len(SPLITS)
    for seed in range(0 if hopeless else _SEEDS_TRIED):
        side = _sides(rows, dataset.split.model_copy(update={"seed": seed}))
        _drop_repeats(rows, side, duplicates=False)
        cells = np.unique(side[side >= 0].astype(np.int64) * classes + rows.target[side >= 0])
        if len(cells) == classes * len(SPLITS):
            return f"add rows of those classes, or set `split.seed: {seed}`, with which every split holds every class"
    return ""


def _summary(rows: _Rows, side: Side, dataset: Dataset, dropped: dict[str, int]) -> PreparedSummary:
    by_class: dict[str, dict[str, int]] = {}
    for index, split in enumerate(SPLITS):
        counts = np.bincount(rows.target[side == index], minlength=len(dataset.classes))
        by_class[split] = dict(zip(dataset.class_names, map(int, counts), strict=True))
    return PreparedSummary(rows={split: sum(counts.values()) for split, counts in by_class.items()}, classes=by_class, dropped=dropped)


def _write(folder: Path, cleaned: Path, side: Side) -> None:
    with pa.ipc.open_file(pa.memory_map(str(cleaned))) as reader:
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
