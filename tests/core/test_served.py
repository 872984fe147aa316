"""The served folder: what is told there is read there, and what is no telling is none."""

from pathlib import Path

import pytest

from tasks.core.served import Problem, problem_in, problems_below, tell_problem

PROBLEM = Problem("version 4 cannot be brought here: \u00e4", 2)


def test_a_problem_is_told_and_taken_away(tmp_path: Path) -> None:
    tell_problem(tmp_path / "people", PROBLEM)
    assert problem_in(tmp_path / "people") == PROBLEM
    assert problems_below(tmp_path) == {"people": PROBLEM}
    tell_problem(tmp_path / "people", None)
    tell_problem(tmp_path / "people", None)
    assert problems_below(tmp_path) == {}
    assert list((tmp_path / "people").iterdir()) == []


def test_where_nothing_can_be_written_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "people").touch()
    tell_problem(tmp_path / "people", PROBLEM)
    tell_problem(tmp_path / "people", None)
    assert problems_below(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"what": "x"}', '{"what": "x", "tries": "many"}', "\x00"])
def test_a_problem_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "problem.json").write_text(text)
    assert problems_below(tmp_path) == {}
