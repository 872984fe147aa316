"""What no client should send, on every route that takes a body: refused in the one shape, told nothing of the inside, survived."""

import base64
import gzip
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tasks.core.api_keys import create_key, revoke_key
from tests.serving.conftest import IMAGE, Running, Served, end, start_server
from tests.serving.test_uploads import bomb
from tests.texts import write_classifier, write_language_model

ROUTES: Final = (
    "/v1/models/people/predict",
    "/v1/models/marks/predict",
    "/v1/models/moods/predict",
    "/v2/models/people/infer",
    "/v2/models/people/versions/1/infer",
    "/v2/models/writer/infer",
    "/invocations/people",
    "/invocations/writer",
    "/endpoints/moods/invocations",
    "/v1/models/writer/generate",
    "/v1/completions",
)
DEEP: Final = b"[" * 9000 + b"]" * 9000
HUGE: Final = b"9" * 5000
FILLED: Final[dict[str, str]] = {
    "predict": '{"instances": [%s]}',
    "infer": '{"inputs": [{"name": "x", "shape": [1, 6], "datatype": "FP32", "data": [%s]}]}',
    "invocations": '{"inputs": [%s]}',
    "people": '{"inputs": [%s]}',
    "writer": '{"inputs": [%s]}',
    "generate": '{"prompt": %s}',
    "completions": '{"model": "writer", "prompt": %s}',
}
"""A body with one value open, by the last part of a route."""
INSIDE: Final = re.compile(r"Traceback|\.py\b|site-packages|[a-z]Error\b|Exception|onnxruntime|ONNX|/tmp|0x[0-9a-f]{6}", re.IGNORECASE)


@dataclass(frozen=True)
class Guarded:
    """A server that demands keys, and clients of it."""

    running: Running
    keys: Path
    secret: str
    log: Path

    def post(self, path: str, content: bytes, **headers: str) -> httpx.Response:
        return self.running.client.post(path, content=content, headers={"Authorization": f"Bearer {self.secret}", **headers})

    def raw(self, sent: bytes) -> bytes:
        """What comes back on a connection of its own, until the server ends it."""
        with socket.create_connection(("127.0.0.1", self.running.client.base_url.port or 0), timeout=10) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(2**16), b""))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    root = tmp_path_factory.mktemp("bad")
    served = Served(root / "served")
    served.serve("people", "1")
    served.serve("marks", "1", IMAGE)
    write_classifier(served.folder / "moods" / "1")
    served.point("moods", "1")
    write_language_model(served.folder / "writer" / "1")
    served.point("writer", "1")
    _, secret = create_key(root / "keys.json", "app")
    options = ("--keys", str(root / "keys.json"), "--max-body-bytes", "200000", "--access-log")
    running = start_server(served.folder, root / "server.log", *options)
    yield Guarded(running, root / "keys.json", secret, root / "server.log")
    running.process.terminate()
    running.process.wait(10)
    end(running)
    assert "Traceback" not in (root / "server.log").read_text()


def check(reply: httpx.Response, *statuses: int) -> None:
    """A refusal in the one shape, short, which tells nothing of the inside."""
    assert reply.status_code in statuses, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json()) == ["error"]
    assert len(reply.content) < 1000
    assert not INSIDE.search(reply.text), reply.text
    if reply.status_code in (429, 503):
        assert int(reply.headers["retry-after"]) >= 1


def filled(path: str, value: bytes) -> bytes:
    return FILLED[path.rpartition("/")[2]].encode().replace(b"%s", value)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"instances": [', id="truncated"),
        pytest.param(b"null", id="null"),
        pytest.param(b"\x00\x01\x02", id="no-text"),
        pytest.param(b'{"prompt": "\xff\xfe"}', id="not-utf-8"),
        pytest.param('{"prompt": "a"}'.encode("utf-16"), id="utf-16"),
        pytest.param(DEEP, id="deep"),
        pytest.param(b'{"a":' * 9000 + b"1" + b"}" * 9000, id="deep-objects"),
    ],
)
def test_a_body_that_cannot_be_read(guarded: Guarded, path: str, body: bytes) -> None:
    check(guarded.post(path, body), 400)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"NaN", id="nan"),
        pytest.param(b"-Infinity", id="infinity"),
        pytest.param(b"1e999", id="overflow"),
        pytest.param(HUGE, id="huge-integer"),
        pytest.param(b"18446744073709551616", id="65-bits"),
        pytest.param(DEEP, id="deep"),
        pytest.param(b"[" * 500 + b"]" * 500, id="deep-and-readable"),
        pytest.param(b"{}", id="object"),
        pytest.param(b'{"\\u0000": null}', id="strange-key"),
        pytest.param(b'"\\ud800"', id="half-a-character"),
        pytest.param(b"true", id="boolean"),
    ],
)
def test_a_value_that_cannot_be_used(guarded: Guarded, path: str, value: bytes) -> None:
    check(guarded.post(path, filled(path, value)), 400, 422)


@pytest.mark.parametrize("path", ROUTES)
def test_gzip(guarded: Guarded, path: str) -> None:
    check(guarded.post(path, gzip.compress(b" " * 50_000_000), **{"Content-Encoding": "gzip"}), 413)
    check(guarded.post(path, gzip.compress(filled(path, b"1"))[:-9], **{"Content-Encoding": "gzip"}), 400)
    check(guarded.post(path, b"\x1f\x8b" + bytes(50), **{"Content-Encoding": "gzip"}), 400)
    check(guarded.post(path, b"{}", **{"Content-Encoding": "br"}), 415)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("rest", "status"),
    [
        pytest.param(b"Content-Length: 100\r\n\r\n{", None, id="truncated"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", None, id="truncated-chunk"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n", 400, id="huge-chunk"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, id="no-chunk"),
        pytest.param(b"Content-Length: 99999999999999999999999\r\n\r\n", 400, id="huge-length"),
        pytest.param(b"Content-Length: -1\r\n\r\n", 400, id="negative-length"),
        pytest.param(b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, id="two-lengths"),
    ],
)
def test_a_message_that_is_broken(guarded: Guarded, path: str, rest: bytes, status: int | None) -> None:
    """There is nobody to answer where the client ended in the middle."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {guarded.secret}\r\n"
    answer = guarded.raw(head.encode() + rest)
    if status is None:
        assert not answer
    else:
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert list(json.loads(answer.partition(b"\r\n\r\n")[2])) == ["error"]
    assert guarded.running.client.get("/v2/health/live").status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"datatype": "FP64"},
        {"datatype": "BYTES"},
        {"datatype": 3},
        {"shape": [6]},
        {"shape": [10**18, 6]},
        {"shape": [2**63, 6]},
        {"shape": [-1, 6]},
        {"shape": [1, 6, 1]},
        {"shape": [[1], [6]]},
        {"data": [1, 2]},
        {"data": ["1"] * 6},
        {"data": [1e39] * 6},
        {"data": [None] * 6},
        {"data": "123456"},
    ],
)
def test_a_tensor_of_another_kind(guarded: Guarded, changes: dict[str, Any]) -> None:
    tensor = {"name": "x", "shape": [1, 6], "datatype": "FP32", "data": [0] * 6, **changes}
    check(guarded.post("/v2/models/people/infer", json.dumps({"inputs": [tensor]}).encode()), 400)


@pytest.mark.parametrize("path", ["/v1/models/marks/predict", "/invocations/marks"])
def test_a_hundred_megapixels(guarded: Guarded, path: str) -> None:
    image = base64.b64encode(bomb(10_000, 10_000))
    check(guarded.post(path, filled(path.replace("marks", "people"), b'"' + image + b'"')), 422)


@pytest.mark.parametrize("path", [*ROUTES, "/v2", "/v2/models/people", "/v1/models", "/metrics", "/version"])
def test_keys_that_are_wrong_revoked_or_for_another_model(guarded: Guarded, path: str) -> None:
    revoked, past = create_key(guarded.keys, "past")
    _, narrow = create_key(guarded.keys, "narrow", models=["nobody"])
    revoke_key(guarded.keys, revoked.id)
    method = "POST" if path in ROUTES else "GET"
    body = filled(path, b"1") if path in ROUTES else b""

    def ask(secret: str) -> httpx.Response:
        return guarded.running.client.request(method, path, content=body, headers={b"Authorization": f"Bearer {secret}".encode()})

    # The file is read again within a second.
    while ask(past).status_code != 401 or ask(narrow).status_code == 401:
        pass
    for secret in ("x", "nonsense", "maasflow_00000000_" + "a" * 43, past, "é"):
        check(ask(secret), 401)
    reply = ask(narrow)
    if path in ("/v2", "/v1/models", "/version"):
        assert reply.status_code == 200, "that says nothing of any model that it may not ask"
    else:
        check(reply, 403)


@pytest.mark.parametrize("path", ["/%00", "/%ff%fe", "/v2/models/%2e%2e%2f%2e%2e", "/v2/models/" + "a" * 5000, "/v1/models/💥/predict"])
def test_paths(guarded: Guarded, path: str) -> None:
    check(guarded.running.client.get(path, headers={"Authorization": f"Bearer {guarded.secret}"}), 403, 404, 405)
