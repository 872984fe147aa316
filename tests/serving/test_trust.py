"""A server that serves signed versions alone."""

from pathlib import Path

import pytest

from deploy.serving.__main__ import main
from tasks.core.signature import SETTING, create_signing_key, sign_if_configured
from tests.serving.conftest import Served, Start, until


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The public key of the private one that signs."""
    monkeypatch.setenv(SETTING, str(tmp_path / "key"))
    return create_signing_key(tmp_path / "key")


def serve_signed(served: Served, name: str, version: str) -> None:
    sign_if_configured(served.add(name, version))
    served.point(name, version)


def test_the_version_before_goes_on_until_one_is_signed(served: Served, start: Start, trusted: Path) -> None:
    serve_signed(served, "people", "1")
    running = start("--trust", str(trusted))
    served.serve("people", "2")
    told = until(running, "people", lambda reply: "problem" in reply.json()["properties"])
    assert told["versions"] == ["1"]
    assert told["properties"]["problem"] == "version 2 cannot be served: its folder has no signature"
    assert 'maasflow_reloads_total{model="people",outcome="failed"} 1.0' in running.client.get("/metrics").text
    serve_signed(served, "people", "3")
    until(running, "people", lambda reply: reply.json()["versions"] == ["3"])


def test_a_key_that_is_added_while_it_runs_is_trusted(served: Served, start: Start, trusted: Path, tmp_path: Path) -> None:
    other = create_signing_key(tmp_path / "other")
    serve_signed(served, "people", "1")
    running = start("--trust", str(other))
    assert "by none of the keys" in running.client.get("/v2/health/ready").json()["error"]
    other.write_bytes(other.read_bytes() + trusted.read_bytes())
    served.point("people", "1")
    until(running, "people", lambda reply: reply.status_code == 200)


def test_a_version_of_another_model_is_refused(served: Served, start: Start, trusted: Path) -> None:
    sign_if_configured(served.add("people", "1"))
    (served.folder / "people").rename(served.folder / "others")
    served.point("others", "1")
    error = start("--trust", str(trusted)).client.get("/v2/health/ready").json()["error"]
    assert error == "others: version 1 cannot be served: it was signed as a version of 'people'"


def test_it_does_not_start_with_keys_that_it_cannot_read(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--served", str(served.folder), "--port", "0", "--trust", str(tmp_path / "none.pem")]) == 1
    assert "none.pem cannot be read" in capsys.readouterr().err
