"""How a command ends."""

import errno
from pathlib import Path

import pytest

from tasks.core.command import FAILURE_FILE, leave_failure, read_failure, report
from tasks.core.errors import DataError


def test_a_known_failure_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(DataError("too few rows", "add some")) == 1
    assert capsys.readouterr().err == "error: too few rows\n  → add some\n"
    assert report(OSError(errno.ENOSPC, "No space left on device", "x.arrow")) == 1
    assert "the disk is full while writing x.arrow" in capsys.readouterr().err


def test_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_defect_names_itself_and_debugging_raises(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert report(ZeroDivisionError("division by zero")) == 1
    assert "unexpected ZeroDivisionError: division by zero" in capsys.readouterr().err
    monkeypatch.setenv("MAASFLOW_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        report(ZeroDivisionError("division by zero"))


def test_a_failure_keeps_its_class_on_the_way_to_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAILURE_FILE, str(tmp_path / "failure.json"))
    assert read_failure(tmp_path / "failure.json") is None
    leave_failure(ZeroDivisionError())
    assert read_failure(tmp_path / "failure.json") is None
    leave_failure(DataError("too few rows", "add some"))
    found = read_failure(tmp_path / "failure.json")
    assert (type(found), str(found)) == (DataError, "too few rows\n  → add some")
