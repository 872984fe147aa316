"""Errors that a person can act on."""

import errno
import pickle
import sqlite3

import pytest

from tasks.core import errors
from tasks.core.errors import ConfigError, MaasflowError, did_you_mean, explain


def test_an_error_shows_what_and_what_to_do() -> None:
    assert str(MaasflowError("it broke", "mend it")) == "it broke\n  → mend it"
    assert str(MaasflowError("it broke")) == "it broke"


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MaasflowError)])
def test_an_error_crosses_processes_whole(kind: type[MaasflowError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("it broke", "mend it")))
    assert (type(copy), copy.what, copy.do) == (kind, "it broke", "mend it")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "big.onnx"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        sqlite3.OperationalError("database or disk is full"),
        RuntimeError("write failed: No space left on device"),
    ],
)
def test_a_full_disk_is_told_however_a_library_puts_it(error: Exception) -> None:
    found = explain(error)
    assert found is not None
    assert "disk is full" in found.what
    assert "maasflow clean" in found.do


def test_a_full_disk_names_the_file_where_it_is_known() -> None:
    found = explain(OSError(errno.ENOSPC, "", "big.onnx"))
    assert found is not None
    assert found.what.endswith("while writing big.onnx")


def test_a_missing_permission_names_the_file() -> None:
    found = explain(PermissionError(errno.EACCES, "", "secret"))
    assert found is not None
    assert found.what == "no permission for secret"


def test_a_read_only_disk_is_told() -> None:
    found = explain(OSError(errno.EROFS, "", "mlruns"))
    assert found is not None
    assert found.what == "mlruns is on a read-only disk"


def wrapped(cause: Exception, *, explicitly: bool) -> Exception:
    try:
        try:
            raise cause
        except Exception as error:
            if explicitly:
                raise RuntimeError("saving failed") from error
            raise RuntimeError("saving failed")  # noqa: B904 - what libraries do
    except RuntimeError as error:
        return error


@pytest.mark.parametrize("explicitly", [True, False])
def test_the_cause_is_found_under_what_libraries_wrap_around_it(explicitly: bool) -> None:
    assert str(explain(wrapped(ConfigError("bad key"), explicitly=explicitly))) == "bad key"


def test_a_cause_that_was_hidden_on_purpose_stays_hidden() -> None:
    error = wrapped(OSError(errno.ENOSPC, ""), explicitly=False)
    error.__suppress_context__ = True
    assert explain(error) is None


def test_causes_that_run_in_a_circle_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert explain(first) is None


def test_a_bug_is_left_to_its_traceback() -> None:
    assert explain(KeyError("x")) is None


@pytest.mark.parametrize(("value", "expected"), [("adm", "; did you mean 'adam'?"), ("ADAM", "; did you mean 'adam'?"), ("x", ""), (3, "")])
def test_the_closest_choice_is_suggested(value: object, expected: str) -> None:
    assert did_you_mean(value, ["adam", "sgd"]) == expected
