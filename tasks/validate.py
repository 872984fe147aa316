"""Validate: the raw data against what its dataset file says → `data/<name>/validated/{report.json,index.html}`.

The raw data is read once, batch by batch. Great Expectations judges single rows, some ten thousand at a time, on frames of
what the checks need (an image becomes the reason why it cannot be decoded), so that memory does not grow with images.
Of every row 16 bytes are kept, to find repeats. Only the columns that `expectations.extra` names are held in full.
Rows of classes that the dataset file drops are counted and otherwise treated as if they were not there.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks import expectations
from tasks.core.command import run_stage
from tasks.core.content import Digests, digests
from tasks.core.dataset import Column, Dataset
from tasks.core.errors import DataError, InputError
from tasks.core.raw import as_bytes, as_number, as_target, as_text, of_other_classes, read_raw
from tasks.core.report import EXAMPLES, Check, Report
from tasks.core.report import read_report as _read_report
from tasks.core.stages import whole_folder, write_text
from tasks.core.transforms import open_image
from tasks.core.workspace import Workspace
from tasks.report_page import page

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger("tasks.validate")

_FRAME_ROWS = 65_536


def validate(workspace: Workspace, name: str) -> Report:
    """Check one dataset and write the report. Raises DataError with the failures where it does not hold what it should."""
    dataset = workspace.dataset(name)
    report = judge(workspace, name, dataset)
    with whole_folder(workspace.validated(name)) as folder:
        write_text(folder / "report.json", report.model_dump_json(indent=1) + "\n")
        write_text(folder / "index.html", page(report, dataset))
    if not report.success:
        raise DataError(
            f"'{name}' failed {len(report.failed)} of {len(report.checks)} checks\n\n{report.table()}\n",
            f"mend the data, or edit {report.file} where an expectation is wrong; all checks: {workspace.shown(workspace.validated(name))}/index.html",
        )
    _log.info("validate %s: %d checks hold of %s rows", name, len(report.checks), f"{sum(report.rows.values()):,}")
    return report


def read_report(workspace: Workspace, name: str) -> Report:
    """The newest report of a dataset. Raises DataError where it was never validated."""
    try:
        return _read_report(workspace.validated(name) / "report.json")
    except FileNotFoundError:
        raise DataError(f"'{name}' was not validated yet", f"run `python -m tasks.validate {name}`") from None


def judge(workspace: Workspace, name: str, dataset: Dataset) -> Report:
    """Every check of the dataset, in one pass over its raw data."""
    extras, rowwise = expectations.of_dataset_file(dataset), expectations.of_schema(dataset)
    tally, kept = _Tally(), _Kept(_kept_columns(dataset, extras))
    for frame in _frames(_derived(workspace, name, dataset, tally)):
        expectations.evaluate(frame, rowwise)
        kept.add(frame)
    expectations.evaluate(kept.frame(), extras)
    checks = [item.check() for item in rowwise] + _of_table(dataset, tally) + [item.check() for item in extras]
    return Report(
        dataset=name, file=f"data/{name}.yaml", success=all(check.success for check in checks), rows=tally.rows, checks=tuple(checks)
    )


@dataclass
class _Tally:
    """What is counted over all rows."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows read, by part."""
    others: int = 0
    """Rows of other classes, which are dropped."""
    classes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    content: list[Digests] = field(default_factory=list)
    number: list[npt.NDArray[np.int64]] = field(default_factory=list)
    """Of each row in `content`, which of all rows read it is."""

    @property
    def kept(self) -> int:
        return sum(self.rows.values()) - self.others

    def place(self, number: int) -> str:
        """How a person would find the row with this number."""
        for part, rows in self.rows.items():
            if number < rows:
                return _place(part, number)
            number -= rows
        raise IndexError(number)


def _derived(workspace: Workspace, name: str, dataset: Dataset, tally: _Tally) -> Iterator[dict[str, Any]]:
    """For each raw batch the columns that the checks are evaluated on."""
    tally.classes = np.zeros(len(dataset.classes), np.int64)
    for part, raw_batch in read_raw(workspace.raw(name), dataset):
        start, before = tally.rows.get(part, 0), sum(tally.rows.values())
        batch, numbers = _of_classes(raw_batch, dataset, tally)
        columns: dict[str, Any] = {expectations.ROW: [_place(part, start + row) for row in numbers.tolist()]}
        typed = []
        for column, spec in dataset.columns.items():
            values, problems = _read(batch.column(column), spec)
            typed.append(values)
            columns[column] = pc.binary_length(values) if spec.type == "image" else values
            columns[expectations.problem(column)] = problems
            missing = pc.and_(values.is_null(), problems.is_null())
            columns[expectations.present(column)] = pc.if_else(missing, pa.scalar(None, pa.float64()), pa.scalar(1.0))
        tally.rows[part] = start + raw_batch.num_rows
        tally.content.append(digests(typed))
        tally.number.append(before + numbers)
        yield columns


def _of_classes(batch: pa.RecordBatch, dataset: Dataset, tally: _Tally) -> tuple[pa.RecordBatch, npt.NDArray[np.int64]]:
    """Count the classes; (the rows without those of other classes, where those are dropped; which rows of the batch they are)."""
    target = as_target(batch, dataset)
    if dataset.classes:
        known = target.drop_null().to_numpy(zero_copy_only=False)
        tally.classes += np.bincount(known, minlength=len(dataset.classes))
    others = of_other_classes(batch, target, dataset)
    if others is None:
        return batch, np.arange(batch.num_rows)
    keep = pc.invert(others)
    numbers = np.flatnonzero(keep.to_numpy(zero_copy_only=False))
    tally.others += batch.num_rows - len(numbers)
    return batch.filter(keep), numbers


def _place(part: str, row: int) -> str:
    return f"row {row + 1}" if part == "all" else f"{part} row {row + 1}"


def _read(array: pa.Array, column: Column) -> tuple[pa.Array, pa.Array]:
    """(values by the column's type, for each a text where it is not of that type)."""
    if column.type == "image":
        values = as_bytes(array)
        reasons = [None if value is None else _undecodable(value) for value in values.to_pylist()]
        wrong = pc.and_(array.is_valid(), values.is_null())
        return values, pc.if_else(wrong, pa.scalar(f"not bytes: {array.type}"), pa.array(reasons, pa.string()))
    if column.type == "number":
        values, bad = as_number(array)
    else:
        values = as_text(array)
        bad = pc.and_(array.is_valid(), values.is_null())
        if pa.types.is_floating(array.type):
            bad = pc.and_(bad, pc.invert(pc.fill_null(pc.is_nan(array), fill_value=True)))
    raw = (
        pa.array([str(value) if is_bad else None for value, is_bad in zip(array, bad.to_pylist(), strict=True)], pa.string())
        if _any(bad)
        else None
    )
    return values, raw if raw is not None else pa.nulls(len(array), pa.string())


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask).as_py())


def _undecodable(value: bytes) -> str | None:
    try:
        open_image(value, "L")
    except InputError as error:
        return error.what
    return None


def _frames(batches: Iterator[dict[str, Any]]) -> "Iterator[pd.DataFrame]":
    """Batches gathered into frames, because each evaluation costs the same whatever it is given."""
    import pandas as pd  # noqa: PLC0415 - takes a second

    gathered: list[pd.DataFrame] = []
    rows = 0
    for columns in batches:
        gathered.append(
            pd.DataFrame({name: values.to_pandas() if isinstance(values, pa.Array) else values for name, values in columns.items()})
        )
        rows += len(gathered[-1])
        if rows >= _FRAME_ROWS:
            yield pd.concat(gathered, ignore_index=True)
            gathered, rows = [], 0
    if gathered:
        yield pd.concat(gathered, ignore_index=True)


@dataclass
class _Kept:
    """The columns that the dataset file's own expectations need all rows of."""

    columns: list[str]
    frames: list[Any] = field(default_factory=list)

    def add(self, frame: "pd.DataFrame") -> None:
        if self.columns:
            self.frames.append(frame[[expectations.ROW, *self.columns]])

    def frame(self) -> Any:
        import pandas as pd  # noqa: PLC0415 - takes a second

        return pd.concat(self.frames, ignore_index=True) if self.frames else None


def _kept_columns(dataset: Dataset, extras: list[expectations.Expected]) -> list[str]:
    named = {column for item in extras for column in expectations.named_columns(item.kwargs)}
    of_table = any(not expectations.named_columns(item.kwargs) for item in extras)
    return [column for column in dataset.columns if of_table or column in named]


def _of_table(dataset: Dataset, tally: _Tally) -> list[Check]:
    """What must hold of all rows together. Counted here: Great Expectations would want all of them in memory."""
    wanted, rows = dataset.expectations, tally.kept
    repeats, examples = _repeats(tally)
    checks = [
        Check(
            expectation="expect_table_row_count_to_be_between",
            success=rows >= wanted.minimum_rows,
            detail=f"at least {wanted.minimum_rows:,} rows (`minimum_rows`); found {rows:,}",
        ),
        Check(
            expectation="expect_rows_to_be_distinct",
            success=repeats <= wanted.duplicates * rows,
            unexpected=repeats,
            examples=examples,
            detail=f"at most {wanted.duplicates:.2%} repeat another row (`duplicates`); found {repeats / max(rows, 1):.2%}",
        ),
    ]
    return checks + (_of_classes_together(dataset, dataset.label, tally) if dataset.label else [])


def _of_classes_together(dataset: Dataset, label: str, tally: _Tally) -> list[Check]:
    """What must hold of the label over all rows."""
    wanted, rows = dataset.expectations, tally.kept
    counted = list(zip(dataset.class_names, tally.classes.tolist(), strict=True))
    there = [name for name, count in counted if count]
    small = [
        f"class {name}: {count:,} rows ({count / max(rows, 1):.2%})"
        for name, count in counted
        if count < wanted.smallest_class * rows or not count
    ]
    checks = [
        Check(
            expectation="expect_two_classes_or_more",
            column=label,
            success=len(there) >= 2,
            detail=f"at least two classes; found {', '.join(there) or 'none'}"[:120],
        ),
        Check(
            expectation="expect_class_shares_to_be_at_least",
            column=label,
            success=not small,
            unexpected=len(small),
            examples=tuple(small[:EXAMPLES]),
            detail=f"each class at least {wanted.smallest_class:.2%} of all rows (`smallest_class`)",
        ),
    ]
    if dataset.columns[label].others == "drop":
        detail = f"rows of other classes are left out (`others: drop`); found {tally.others:,} of {sum(tally.rows.values()):,}"
        checks.append(
            Check(expectation="expect_other_classes_to_be_dropped", column=label, success=True, unexpected=tally.others, detail=detail)
        )
    return checks


def _repeats(tally: _Tally) -> tuple[int, tuple[str, ...]]:
    """Rows that repeat an earlier one, and the first of them."""
    content = np.concatenate(tally.content) if tally.content else np.empty(0, np.uint64)
    number = np.concatenate(tally.number) if tally.number else np.empty(0, np.int64)
    order = np.argsort(content, kind="stable")
    later = order[1:][content[order[1:]] == content[order[:-1]]]
    return len(later), tuple(_repeat(tally, content, number, row) for row in np.sort(later)[:EXAMPLES].tolist())


def _repeat(tally: _Tally, content: Digests, number: npt.NDArray[np.int64], row: int) -> str:
    first = int(np.argmax(content == content[row]))
    return f"{tally.place(int(number[row]))} repeats {tally.place(int(number[first]))}"


if __name__ == "__main__":
    run_stage(validate)
