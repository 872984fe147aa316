"""Webhooks: only what MLflow signed just now makes the deployer look, and no sender holds up the others for long."""

import base64
import hashlib
import hmac
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tasks import webhook as module
from tasks.core.errors import ConfigError
from tasks.webhook import SECRET, Webhook

BODY = b'{"entity": "model_version_alias", "action": "created", "data": {"name": "points", "alias": "champion", "version": "2"}}'


@pytest.fixture
def calls() -> threading.Event:
    return threading.Event()


@pytest.fixture
def address(calls: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv(SECRET, "hush")
    with Webhook.at("127.0.0.1:0", calls) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}"


def signed(body: bytes = BODY, secret: str = "hush", age: float = 0.0) -> dict[str, str]:
    """The headers with which MLflow sends a body (mlflow/webhooks/delivery.py)."""
    moment = str(int(time.time() - age))
    digest = hmac.new(secret.encode(), f"d-1.{moment}.{body.decode()}".encode(), hashlib.sha256).digest()
    return {"X-MLflow-Delivery-Id": "d-1", "X-MLflow-Timestamp": moment, "X-MLflow-Signature": f"v1,{base64.b64encode(digest).decode()}"}


def post(address: str, headers: dict[str, str], body: bytes = BODY) -> httpx.Response:
    return httpx.post(address, content=body, headers=headers, trust_env=False, timeout=30)


def test_a_signed_event_calls(address: str, calls: threading.Event) -> None:
    assert post(address, signed()).status_code == 200
    assert calls.is_set()


def test_what_an_event_says_is_not_read(address: str, calls: threading.Event) -> None:
    assert post(address, signed(b"{no JSON"), b"{no JSON").status_code == 200
    assert calls.is_set()


@pytest.mark.parametrize(
    ("signing", "changes", "says"),
    [
        ({}, {"X-MLflow-Timestamp": ""}, "X-MLflow-Timestamp is not a Unix time"),
        ({}, {"X-MLflow-Timestamp": "1e9"}, "X-MLflow-Timestamp is not a Unix time"),
        ({"age": 4000}, {}, "more than 300 s away from this machine's clock"),
        ({"age": -4000}, {}, "more than 300 s away from this machine's clock"),
        ({"secret": "another"}, {}, "X-MLflow-Signature does not fit"),
        ({"body": BODY.replace(b"2", b"3")}, {}, "X-MLflow-Signature does not fit"),
        ({}, {"X-MLflow-Delivery-Id": "d-2"}, "X-MLflow-Signature does not fit"),
        ({}, {"X-MLflow-Signature": ""}, "X-MLflow-Signature does not fit"),
    ],
)
def test_what_mlflow_did_not_sign_just_now_is_refused(
    address: str, calls: threading.Event, signing: dict[str, Any], changes: dict[str, str], says: str
) -> None:
    answer = post(address, signed(**signing) | changes)
    assert answer.status_code == 401
    assert says in answer.text
    assert not calls.is_set()


def test_refusals_are_told_once_in_a_row(address: str, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        post(address, signed(secret="another"))
    post(address, signed())
    post(address, {})
    assert [message.partition(":")[2].split()[0] for message in caplog.messages] == ["X-MLflow-Signature", "X-MLflow-Timestamp"]


def test_a_body_has_a_length_and_a_limit(address: str, calls: threading.Event) -> None:
    for head, status in (("Content-Length: 1048577", 413), ("Content-Length: " + 5000 * "9", 413), ("Transfer-Encoding: chunked", 411)):
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as sender:
            sender.sendall(f"POST / HTTP/1.1\r\n{head}\r\n\r\n".encode())
            assert sender.makefile().readline().split()[1] == str(status)
    assert httpx.get(address, trust_env=False).status_code == 501
    assert not calls.is_set()


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\nContent-Len", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"])
def test_a_sender_that_never_ends_is_given_up(sent: bytes, address: str, calls: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as slow:
        slow.sendall(sent)
        assert post(address, signed()).status_code == 200
    assert calls.is_set()


def test_it_needs_a_secret(monkeypatch: pytest.MonkeyPatch, calls: threading.Event) -> None:
    monkeypatch.delenv(SECRET, raising=False)
    with pytest.raises(ConfigError, match=f"{SECRET} is not set"), Webhook.at("127.0.0.1:0", calls):
        pass


@pytest.mark.parametrize("place", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000", "192.0.2.1:8080"])
def test_it_needs_an_address_of_this_machine(place: str, monkeypatch: pytest.MonkeyPatch, calls: threading.Event) -> None:
    monkeypatch.setenv(SECRET, "hush")
    with pytest.raises(ConfigError, match="webhooks cannot be taken on"), Webhook.at(place, calls):
        pass
