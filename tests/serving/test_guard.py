"""API keys and what they allow, on a real server."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.serving.__main__ import main
from tasks.core.api_keys import ApiKeys, create_key, revoke_key
from tasks.core.errors import ConfigError
from tests.serving.conftest import Running, Served, Start

ROW = {"instances": [{"age": 40, "height": 1.7, "color": "blue"}]}
PREDICT = "/v1/models/people/predict"


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.json"


@pytest.fixture
def running(served: Served, start: Start, keys: Path) -> Running:
    served.serve("people", "1")
    served.serve("others", "1")
    return start("--keys", str(keys))


def status(running: Running, secret: str | None, path: str = PREDICT) -> int:
    return running.client.post(path, json=ROW, headers=bearer(secret) if secret else {}).status_code


def test_from_the_first_key_on_one_is_needed(running: Running, keys: Path) -> None:
    assert status(running, None) == 200
    _, secret = create_key(keys, "billing")
    wait_until(lambda: status(running, None) == 401)
    assert status(running, secret) == 200
    reply = running.client.post(PREDICT, json=ROW)
    assert reply.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in reply.json()["error"]


@pytest.mark.parametrize("presented", ["", "Bearer", "Bearer nonsense", "Basic abc", "Bearer maasflow_00000000_" + "a" * 43])
def test_another_key_is_refused_alike(running: Running, keys: Path, presented: str) -> None:
    create_key(keys, "billing")
    wait_until(lambda: status(running, None) == 401)
    reply = running.client.post(PREDICT, json=ROW, headers={"Authorization": presented})
    assert reply.status_code == 401
    assert set(reply.json()) == {"error"}


def test_a_changed_letter_is_another_key(running: Running, keys: Path) -> None:
    _, secret = create_key(keys, "billing")
    wait_until(lambda: status(running, secret) == 200 and status(running, None) == 401)
    changed = secret[:-2] + ("A" if secret[-2] != "A" else "B") + secret[-1]
    assert status(running, changed) == 401


def test_a_revoked_key_ends_while_the_server_runs(running: Running, keys: Path) -> None:
    key, secret = create_key(keys, "billing")
    wait_until(lambda: status(running, None) == 401)
    assert status(running, secret) == 200
    revoke_key(keys, key.id)
    wait_until(lambda: status(running, secret) == 401)
    assert status(running, None) == 401, "the last key that is revoked does not open the door"


def test_a_key_file_that_is_removed_or_broken_opens_nothing(running: Running, keys: Path) -> None:
    _, secret = create_key(keys, "billing")
    wait_until(lambda: status(running, None) == 401)
    for spoil in (lambda: keys.write_text("{"), keys.unlink):
        spoil()
        time.sleep(0.4)
        assert status(running, None) == 401
        assert status(running, secret) == 200


def test_a_key_asks_only_its_models_and_sees_no_others(running: Running, keys: Path) -> None:
    _, secret = create_key(keys, "billing", models=["peo*"])
    wait_until(lambda: status(running, None) == 401)
    assert status(running, secret) == 200
    assert status(running, secret, "/v1/models/others/predict") == 403
    assert status(running, secret, "/v1/models/nobody/predict") == 403
    listed = running.client.get("/v1/models", headers=bearer(secret)).json()["models"]
    assert [model["name"] for model in listed] == ["people"]
    document = running.client.get("/openapi.json", headers=bearer(secret)).json()
    assert [model["name"] for model in document["x-models"]] == ["people"]


def test_scopes(running: Running, keys: Path) -> None:
    _, infer = create_key(keys, "app")
    _, admin = create_key(keys, "prometheus", scopes=["admin"])
    wait_until(lambda: status(running, None) == 401)
    assert running.client.get("/metrics", headers=bearer(infer)).status_code == 403
    assert running.client.get("/metrics", headers=bearer(admin)).status_code == 200
    for path in ("/v2/health/live", "/v2/health/ready", "/docs"):
        assert running.client.get(path).status_code == 200, "what a load balancer and a browser ask first needs no key"


@pytest.mark.parametrize("limits", [{"requests_per_second": 3.0}, {"units_per_second": 3.0}])
def test_a_key_has_so_much_a_second(running: Running, keys: Path, limits: dict[str, float]) -> None:
    _, secret = create_key(keys, "app", **limits)
    wait_until(lambda: status(running, None) == 401)
    replies = [running.client.post(PREDICT, json=ROW, headers=bearer(secret)) for _ in range(8)]
    assert {reply.status_code for reply in replies} == {200, 429}
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    time.sleep(1.1)
    assert status(running, secret) == 200, "what is refused costs nothing"


def test_more_than_a_bucket_holds_is_still_answered_once(running: Running, keys: Path) -> None:
    _, secret = create_key(keys, "app", units_per_second=2.0)
    wait_until(lambda: status(running, None) == 401)
    many = {"instances": ROW["instances"] * 5}
    found = [running.client.post(PREDICT, json=many, headers=bearer(secret)).status_code for _ in range(2)]
    assert found == [200, 429]


def test_keys_are_kept_as_digests_that_only_their_owner_reads(keys: Path) -> None:
    _, secret = create_key(keys, "billing")
    assert secret.rpartition("_")[2] not in keys.read_text()
    assert keys.stat().st_mode & 0o077 == 0
    assert ApiKeys.read(keys).find(secret)


def test_a_server_does_not_start_with_keys_that_cannot_be_read(served: Served, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys.parent.mkdir()
    keys.write_text("{")
    assert main(["--served", str(served.folder), "--port", "0", "--keys", str(keys)]) != 0
    assert "cannot be read" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        create_key(keys, "billing")


def test_other_machines_are_served_with_keys_alone(served: Served, keys: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--served", str(served.folder), "--host", "0.0.0.0", "--port", "0"]) == 1
    assert "without an API key" in (said := capsys.readouterr().err)
    assert "maasflow keys create" in said
    assert "0.0.0.0" in start("--host", "0.0.0.0", "--insecure").line
    create_key(keys, "billing")
    assert "0.0.0.0" in start("--host", "0.0.0.0", "--keys", str(keys)).line


def test_what_is_counted(running: Running) -> None:
    for _ in range(3):
        assert status(running, None) == 200
    assert status(running, None, "/v1/models/made-up-name/predict") == 404
    text = running.client.get("/metrics").text
    assert 'maasflow_requests_total{model="people",operation="/v1/models/{name}/predict",status="200"} 3.0' in text
    assert 'maasflow_stage_seconds_count{model="people",stage="infer"} 3.0' in text
    assert 'maasflow_model_info{model="people",provider="CPUExecutionProvider",variant="fp32",version="1"} 1.0' in text
    assert "made-up-name" not in text
