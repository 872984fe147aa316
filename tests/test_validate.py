"""Validation: every kind of bad data is found, counted, shown and told with the file to edit."""

import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks.core.errors import ConfigError, DataError
from tasks.core.report import Check
from tasks.core.workspace import Workspace
from tasks.fetch import fetch
from tasks.validate import read_report, validate
from tests.conftest import PEOPLE

AddDataset = Callable[..., str]


def failures(workspace: Workspace, name: str) -> list[Check]:
    fetch(workspace, name)
    with pytest.raises(DataError):
        validate(workspace, name)
    report = read_report(workspace, name)
    assert not report.success
    return list(report.failed)


def lines(*bad: str) -> tuple[str, ...]:
    return (*(f"{20 + row / 4},{'SCQ'[row % 3]},{row % 2}" for row in range(200)), *bad)


def test_good_data_passes_with_the_same_bytes_every_time(workspace: Workspace, add_people: AddDataset) -> None:
    fetch(workspace, add_people())
    report = validate(workspace, "people")
    assert report.success
    assert report.rows == {"all": 200}
    assert read_report(workspace, "people") == report
    first = {path.name: path.read_bytes() for path in workspace.validated("people").iterdir()}
    validate(workspace, "people")
    assert {path.name: path.read_bytes() for path in workspace.validated("people").iterdir()} == first
    assert set(first) == {"report.json", "index.html"}


@pytest.mark.parametrize(
    ("row", "expectation", "column", "example"),
    [
        ("abc,S,1", "expect_column_values_to_be_numbers", "age", "row 201: abc"),
        ("inf,S,1", "expect_column_values_to_be_numbers", "age", "row 201: inf"),
        (",S,1", "expect_column_values_to_not_be_null", "age", "row 201: missing"),
        ("121,S,1", "expect_column_values_to_be_between", "age", "row 201: 121"),
        ("30,X,1", "expect_column_values_to_be_in_set", "port", "row 201: X"),
        ("30,S,maybe", "expect_column_values_to_be_in_set", "survived", "row 201: maybe"),
        ("30,S,", "expect_column_values_to_not_be_null", "survived", "row 201: missing"),
    ],
)
def test_one_bad_row_fails_one_check(
    workspace: Workspace, add_people: AddDataset, row: str, expectation: str, column: str, example: str
) -> None:
    (check,) = failures(workspace, add_people(*lines(row)))
    assert (check.expectation, check.column, check.unexpected, check.examples) == (expectation, column, 1, (example,))


def test_a_nullable_column_may_miss_values(workspace: Workspace, add_people: AddDataset) -> None:
    columns = {"age": {"type": "number", "nullable": True, "maximum": 80}, "survived": {"type": "label", "classes": [0, 1]}}
    fetch(workspace, add_people(*lines(",S,1"), columns=columns))
    assert validate(workspace, "people").success


def test_ten_rows_of_one_class(workspace: Workspace, add_people: AddDataset) -> None:
    checks = {check.expectation: check for check in failures(workspace, add_people(*(f"{row},S,1" for row in range(10))))}
    assert set(checks) == {"expect_table_row_count_to_be_between", "expect_two_classes_or_more", "expect_class_shares_to_be_at_least"}
    assert checks["expect_table_row_count_to_be_between"].detail == "at least 50 rows (`minimum_rows`); found 10"
    assert checks["expect_class_shares_to_be_at_least"].examples == ("class died: 0 rows (0.00%)",)


def test_rows_of_other_classes_are_counted_and_else_as_if_they_were_not_there(workspace: Workspace, add_people: AddDataset) -> None:
    columns = PEOPLE | {"survived": PEOPLE["survived"] | {"others": "drop"}}
    bad = ("none,X,lost", "none,X,lost", "99,S,1", "none,X,lost", "99,S,1")
    fetch(workspace, add_people(*lines(*bad), columns=columns, expectations={"minimum_rows": 202}))
    report = validate(workspace, "people")
    assert report.rows == {"all": 205}
    checks = {check.expectation: check for check in report.checks}
    assert checks["expect_table_row_count_to_be_between"].detail.endswith("found 202")
    assert checks["expect_rows_to_be_distinct"].examples == ("row 205 repeats row 203",)
    dropped = checks["expect_other_classes_to_be_dropped"]
    assert (dropped.column, dropped.unexpected) == ("survived", 3)
    assert dropped.detail == "rows of other classes are left out (`others: drop`); found 3 of 205"
    assert "<code>others: drop</code>" in (workspace.validated("people") / "index.html").read_text()
    (missing,) = failures(workspace, add_people(*lines("30,S,"), columns=columns))
    assert (missing.expectation, missing.examples) == ("expect_column_values_to_not_be_null", ("row 201: missing",))


def test_without_a_label_there_are_no_checks_of_classes(workspace: Workspace, add_dataset: AddDataset) -> None:
    pq.write_table(pa.table({"text": [f"text {row}" for row in range(60)]}), workspace.root / "x.parquet")
    name = add_dataset("x", {"kind": "parquet", "path": "x.parquet"}, {"text": {"type": "text"}})
    fetch(workspace, name)
    report = validate(workspace, name)
    assert [check.expectation for check in report.checks] == [
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_be_texts",
        "expect_table_row_count_to_be_between",
        "expect_rows_to_be_distinct",
    ]
    assert "class" not in (workspace.validated(name) / "index.html").read_text().replace("class=", "")


def test_repeated_rows(workspace: Workspace, add_people: AddDataset) -> None:
    (check,) = failures(workspace, add_people(*lines(*["99,S,1"] * 20)))
    assert (check.expectation, check.unexpected, check.examples[0]) == ("expect_rows_to_be_distinct", 19, "row 202 repeats row 201")


def test_images_that_cannot_be_decoded(workspace: Workspace, add_dataset: AddDataset) -> None:
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "PNG")
    good, labels = file.getvalue(), [0, 1] * 30
    images = [good] * 57 + [b"no image", good[:40], None]
    pq.write_table(pa.table({"image": images, "label": labels}), workspace.root / "x.parquet")
    columns = {"image": {"type": "image"}, "label": {"type": "label", "classes": [0, 1]}}
    name = add_dataset("x", {"kind": "parquet", "path": {"train": "x.parquet"}}, columns, expectations={"duplicates": 1.0})
    missing, broken = failures(workspace, name)
    assert (missing.expectation, missing.examples) == ("expect_column_values_to_not_be_null", ("train row 60: missing",))
    assert (broken.expectation, broken.unexpected) == ("expect_column_values_to_be_decodable_images", 2)
    assert broken.examples[0] == "train row 58: the image cannot be decoded (8 bytes): broken, or of an unknown format"


def test_columns_of_another_type(workspace: Workspace, add_dataset: AddDataset) -> None:
    table = pa.table({"image": [1] * 60, "text": [[b"\xff"]] * 60, "age": [[1]] * 60, "label": [0.0, 1.0] * 30})
    pq.write_table(table, workspace.root / "x.parquet")
    columns: dict[str, Any] = {name: {"type": name} for name in ("image", "text")}
    columns |= {"age": {"type": "number"}, "label": {"type": "label", "classes": [0, 1]}}
    name = add_dataset("x", {"kind": "parquet", "path": "x.parquet"}, columns, expectations={"duplicates": 1.0})
    assert [(check.column, check.unexpected) for check in failures(workspace, name)] == [("image", 60), ("text", 60), ("age", 60)]


def test_the_error_has_the_table_and_the_file_to_edit(workspace: Workspace, add_people: AddDataset) -> None:
    fetch(workspace, add_people(*lines("abc,X,1")))
    with pytest.raises(DataError) as caught:
        validate(workspace, "people")
    table = caught.value.what.splitlines()
    assert table[0] == "'people' failed 2 of 13 checks"
    assert table[2].split() == ["expectation", "column", "rows", "expected"]
    assert table[3].split()[:3] == ["expect_column_values_to_be_numbers", "age", "1"]
    assert table[4].strip() == "row 201: abc"
    assert "edit data/people.yaml" in caught.value.do
    assert "data/people/validated/index.html" in caught.value.do


def test_the_page_stands_alone_and_escapes_what_the_data_says(workspace: Workspace, add_people: AddDataset) -> None:
    failures(workspace, add_people(*lines("<script>alert(1)</script>,S,1")))
    page = (workspace.validated("people") / "index.html").read_text()
    assert "&lt;script&gt;" in page
    assert not any(text in page for text in ("<script", "http://", "https://", "<link", "@import"))
    assert "data/people.yaml" in page


def extra(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"extra": [{"type": kind, "kwargs": kwargs}]}


def test_expectations_of_the_dataset_file(workspace: Workspace, add_people: AddDataset) -> None:
    name = add_people(expectations=extra("expect_column_mean_to_be_between", column="age", min_value=50))
    (mean,) = failures(workspace, name)
    assert (mean.expectation, mean.column, mean.detail) == ("expect_column_mean_to_be_between", "age", "min_value 50; found 44.875")
    (unique,) = failures(workspace, add_people(expectations=extra("expect_column_values_to_be_unique", column="port")))
    assert unique.unexpected == 200
    (count,) = failures(workspace, add_people(expectations=extra("expect_table_row_count_to_equal", value=7)))
    assert (count.column, count.detail) == ("", "value 7; found 200")


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"type": "expect_column_mean_to_be_betwen", "kwargs": {}}, "did you mean 'expect_column_mean_to_be_between'?"),
        ({"type": "expect_column_mean_to_be_between", "kwargs": {"column": "aeg"}}, "unknown column 'aeg'; did you mean 'age'?"),
        ({"type": "expect_column_mean_to_be_between", "kwargs": {"column": "age", "least": 3}}, "least: extra fields not permitted"),
        ({"expectation": "expect_x"}, "is not an expectation"),
    ],
)
def test_a_mistaken_expectation_points_at_its_line(workspace: Workspace, add_people: AddDataset, spec: dict[str, Any], what: str) -> None:
    name = add_people(expectations={"extra": [spec]})
    fetch(workspace, name)
    with pytest.raises(ConfigError, match=r"data/people\.yaml:1: expectations\.extra\.0") as caught:
        validate(workspace, name)
    assert what in caught.value.what


def test_a_failed_report_replaces_the_good_one(workspace: Workspace, add_people: AddDataset) -> None:
    fetch(workspace, add_people())
    validate(workspace, "people")
    failures(workspace, add_people(*lines("abc,S,1")))
    assert json.loads((workspace.validated("people") / "report.json").read_text())["success"] is False


def test_many_rows_in_several_frames(workspace: Workspace, add_people: AddDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.validate._FRAME_ROWS", 40)
    monkeypatch.setattr("tasks.core.raw.batch_rows", lambda _: 25)
    (check,) = failures(workspace, add_people(*lines(*(f"old {row},S,1" for row in range(9)))))
    assert (check.unexpected, check.examples[-1]) == (9, "row 205: old 4")


def test_nothing_was_validated_or_fetched(workspace: Workspace, add_people: AddDataset) -> None:
    name = add_people()
    with pytest.raises(DataError, match="was not validated yet"):
        read_report(workspace, name)
    with pytest.raises(DataError, match="there is no raw data"):
        validate(workspace, name)
