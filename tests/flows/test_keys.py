"""`maasflow keys signing`: a key pair, and what to do with it."""

from pathlib import Path

from tasks.core.signature import Trust
from tests.flows.conftest import maasflow


def test_a_key_that_signs_is_made_once(tmp_path: Path) -> None:
    made = maasflow(tmp_path, "keys", "signing", "release.pem")
    assert (made.code, made.err) == (0, "")
    assert "MAASFLOW_SIGNING_KEY=release.pem" in made.out
    assert len(Trust.read(tmp_path / "release.pem.pub").keys) == 1
    again = maasflow(tmp_path, "keys", "signing", "release.pem")
    assert (again.code, again.err.splitlines()[0]) == (1, "error: release.pem exists already")


def test_a_folder_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    ended = maasflow(tmp_path, "keys", "signing", "nowhere/release.pem")
    assert (ended.code, ended.err.splitlines()[0]) == (1, "error: nowhere/release.pem cannot be written: No such file or directory")
