"""The table of a search's candidates, wherever it is read."""

import csv
import io
from typing import Any

import pytest

from tasks.candidate import Miss
from tasks.candidate_table import COLUMNS, comma_separated, markdown, plain
from tasks.compress import CompressResult
from tasks.core.bundle import Invariance
from tests.test_compress import candidate

DISTURBED: dict[str, Any] = {"batch": "one", "invariance": Invariance(rows=256, changed=3, difference=0.31, tolerance=0.02)}
SLOW = Miss(what="median ms for one row", value=7, limit=5)
FOUND = CompressResult(
    chosen="quick",
    candidates=(candidate("fp32", misses=(SLOW,)), candidate("quick", calibration_error=0.0123, **DISTURBED)),
    failed={"fp16": "not applicable here: there is no CUDA device"},
)


def test_in_a_terminal_the_chosen_is_marked_and_what_was_not_made_says_why() -> None:
    head, fp32, quick, fp16 = plain(FOUND).splitlines()
    assert head.split()[0] == "variant"
    assert fp32.endswith("median ms for one row 7 is over 5")
    assert quick.startswith("→  quick ")
    assert "0.0123" in quick
    assert quick.endswith("one row at a time (beside others 3 of 256 labels change, probabilities by up to 0.31)")
    assert fp16.split(maxsplit=1) == ["fp16", "not applicable here: there is no CUDA device"]


def test_in_markdown_every_row_has_every_column() -> None:
    table, _, left_out = markdown(FOUND).partition("\n\n")
    assert [line.count("|") for line in table.splitlines()] == [len(COLUMNS) + 3] * 4
    assert "| **quick** |" in table
    assert left_out == "Not made:\n\n- fp16: not applicable here: there is no CUDA device"


def test_a_spreadsheet_gets_the_figures_as_they_were_measured() -> None:
    fp32, quick, fp16 = csv.DictReader(io.StringIO(comma_separated(FOUND)))
    assert float(quick["calibration_error"]) == 0.0123
    assert float(quick["batch_difference"]) == 0.31
    assert (fp32["chosen"], quick["chosen"], fp16["name"]) == ("False", "True", "fp16")


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.head)
def test_every_column_says_what_it_means(column: Any) -> None:
    assert column.means
    assert column.text(FOUND.candidates[0])


def test_a_language_model_has_no_calibration_error() -> None:
    found = CompressResult(chosen="fp32", candidates=(candidate("fp32", calibration_error=None),), failed={})
    assert "None" not in plain(found) + markdown(found) + comma_separated(found)
