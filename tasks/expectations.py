"""Great Expectations: the one place that knows it.

It is imported at use, because that takes seconds, and driven with frames that `tasks.validate` derives from the raw data.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tasks.core.config import Origin
from tasks.core.dataset import Column, Dataset
from tasks.core.errors import ConfigError, did_you_mean
from tasks.core.imports import quick_imports
from tasks.core.report import EXAMPLES, Check

ROW = "row of the data"
"""The frame's column that says where a row stands."""


def present(column: str) -> str:
    """The frame's column that is null where the column's value is missing."""
    return f"{column} is present"


def problem(column: str) -> str:
    """The frame's column that says what is wrong with a value that is not of the column's type, and is null elsewhere."""
    return f"{column} is unreadable"


@dataclass
class Expected:
    """An expectation to evaluate, `kind` and `kwargs` in Great Expectations' names, and what the runs so far found."""

    kind: str
    kwargs: dict[str, Any]
    column: str = ""
    name: str = ""
    """What the report calls it, where `kind` is evaluated on a derived column."""
    detail: str = ""
    success: bool = True
    unexpected: int = 0
    examples: list[str] = field(default_factory=list)

    def check(self) -> Check:
        return Check(
            expectation=self.name or self.kind,
            column=self.column,
            success=self.success,
            unexpected=self.unexpected,
            examples=tuple(self.examples),
            detail=self.detail,
        )


def of_schema(dataset: Dataset) -> list[Expected]:
    """What the columns' types imply for every single row."""
    return [expected for name, column in dataset.columns.items() for expected in _of_column(name, column)]


def _of_column(name: str, column: Column) -> list[Expected]:
    nulls = "expect_column_values_to_be_null"
    found = []
    if not column.nullable:
        detail = "no missing values" + ("" if column.type == "label" else "; allow them with `nullable: true`")
        found.append(Expected("expect_column_values_to_not_be_null", {"column": present(name)}, name, detail=detail))
    if column.type == "image":
        found.append(
            Expected(nulls, {"column": problem(name)}, name, "expect_column_values_to_be_decodable_images", "files that Pillow can decode")
        )
    elif column.type == "number":
        found.append(Expected(nulls, {"column": problem(name)}, name, "expect_column_values_to_be_numbers", "finite numbers"))
    else:
        found.append(Expected(nulls, {"column": problem(name)}, name, "expect_column_values_to_be_texts", "UTF-8 texts or whole numbers"))
    allowed = column.classes or column.categories
    if allowed:
        shown = ", ".join(map(str, allowed[:12])) + (", …" if len(allowed) > 12 else "")
        found.append(
            Expected(
                "expect_column_values_to_be_in_set", {"column": name, "value_set": _spellings(allowed)}, name, detail=f"one of {shown}"
            )
        )
    if column.minimum is not None or column.maximum is not None:
        kwargs: dict[str, Any] = {"column": name, "min_value": column.minimum, "max_value": column.maximum}
        ends = [
            f"at least {column.minimum:g}" if column.minimum is not None else "",
            f"at most {column.maximum:g}" if column.maximum is not None else "",
        ]
        found.append(Expected("expect_column_values_to_be_between", kwargs, name, detail=" and ".join(filter(None, ends))))
    return found


def of_dataset_file(dataset: Dataset) -> list[Expected]:
    """The expectations that the dataset file adds. Raises ConfigError for one that Great Expectations would not take."""
    return [
        _extra(spec, dataset, dataset.origin.below("expectations", "extra", index)) for index, spec in enumerate(dataset.expectations.extra)
    ]


def _extra(spec: Mapping[str, Any], dataset: Dataset, origin: Origin) -> Expected:
    kind, kwargs = spec.get("type"), spec.get("kwargs", {})
    if not isinstance(kind, str) or not isinstance(kwargs, dict) or set(spec) - {"type", "kwargs"}:
        raise origin.error((), f"{dict(spec)!r} is not an expectation", "write it as {type: expect_…, kwargs: {column: …}}")
    _, registry = _library()
    known = registry.list_registered_expectation_implementations()
    if kind not in known:
        raise origin.error(
            ("type",), f"unknown expectation '{kind}'{did_you_mean(kind, known)}", "the gallery of Great Expectations lists them"
        )
    for column in named_columns(kwargs):
        if column not in dataset.columns:
            raise origin.error(
                ("kwargs",), f"unknown column '{column}'{did_you_mean(column, dataset.columns)}", f"known: {', '.join(dataset.columns)}"
            )
    try:
        registry.get_expectation_impl(kind)(**kwargs)
    except (ValueError, TypeError) as error:
        reasons = (
            [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()] if hasattr(error, "errors") else [str(error)]
        )
        raise origin.error(("kwargs",), f"{kind} does not take these: {'; '.join(reasons)}") from None
    shown = ", ".join(f"{key} {value}" for key, value in kwargs.items() if key not in ("column", "column_list", "column_A", "column_B"))
    return Expected(kind, dict(kwargs), ", ".join(named_columns(kwargs)), detail=shown)


def named_columns(kwargs: Mapping[str, Any]) -> list[str]:
    """The columns that an expectation's arguments name."""
    single = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    return [*single, *kwargs.get("column_list", ())]


def evaluate(frame: Any, expected: Sequence[Expected]) -> None:
    """Add to each expectation what holds of this pandas frame, which has ROW."""
    if not expected:
        return
    gx, registry = _library()
    suite = gx.ExpectationSuite(
        name="dataset",
        expectations=[
            registry.get_expectation_impl(item.kind)(**item.kwargs, meta={"index": index}) for index, item in enumerate(expected)
        ],
    )
    result_format = {
        "result_format": "COMPLETE",
        "unexpected_index_column_names": [ROW],
        "return_unexpected_index_query": False,
        "partial_unexpected_count": EXAMPLES,
    }
    for result in _frames().get_batch({"dataframe": frame}).validate(suite, result_format=result_format).results:
        _add(expected[result.expectation_config.meta["index"]], result)


def _add(expected: Expected, result: Any) -> None:
    found = result.result
    expected.success &= bool(result.success)
    expected.unexpected += int(found.get("unexpected_count", 0) or 0)
    room = EXAMPLES - len(expected.examples)
    expected.examples += [_example(expected, row) for row in found.get("partial_unexpected_index_list", [])[:room] if isinstance(row, dict)]
    if "observed_value" in found:
        expected.detail += f"{'; ' if expected.detail else ''}found {_plain(found['observed_value'])}"
    if result.exception_info and not result.success:
        infos = [info for info in result.exception_info.values() if isinstance(info, dict)] or [result.exception_info]
        reasons = {str(info["exception_message"]).splitlines()[0] for info in infos if info.get("exception_message")}
        if reasons:
            expected.detail = f"could not be evaluated: {'; '.join(sorted(reasons))}"


def _example(expected: Expected, row: Mapping[str, Any]) -> str:
    values = [_plain(value) for key, value in row.items() if key != ROW]
    shown = "missing" if expected.kwargs.get("column") == present(expected.column) else ", ".join(values)
    return f"{row[ROW]}: {shown}"


def _plain(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _spellings(allowed: Sequence[Any]) -> list[str]:
    """The texts that `tasks.core.raw` reads values as."""
    return [
        text
        for value in allowed
        for text in ({str(value), str(value).lower(), str(value).upper()} if isinstance(value, bool) else {str(value)})
    ]


@cache
def _library() -> tuple[Any, Any]:
    """(great_expectations, its registry of expectations)."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    try:
        with quick_imports():
            import great_expectations as gx  # noqa: PLC0415 - takes seconds
            from great_expectations.expectations import registry  # noqa: PLC0415
    except ImportError:
        raise ConfigError(
            "validation needs Great Expectations, which is not installed", "in maasflow's folder: pip install '.[pipeline]'"
        ) from None
    return gx, registry


@cache
def _frames() -> Any:
    """The batch definition that takes any frame. Great Expectations keeps one context for each process."""
    from great_expectations.data_context.types.base import ProgressBarsConfig  # noqa: PLC0415

    gx, _ = _library()
    # It sets its own level, below which it tells of a folder that nobody needs.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context.data_sources.add_pandas("frames").add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
