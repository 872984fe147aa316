"""HTTP/1.1 as clients really send it, byte by byte."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.conftest import Running, Served, end, start_server

ROW = {"age": 40, "height": 1.7, "color": "blue"}
BODY = json.dumps({"instances": [ROW]}).encode()
PATH = b"/v1/models/people/predict"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("connection")
    served = Served(root / "served")
    served.serve("people", "3")
    server = start_server(served.folder, root / "server.log", "--max-body-bytes", "20000", "--read", "0.6", "--keep-alive", "0.6")
    yield server
    end(server)


@pytest.fixture
def connection(running: Running) -> Iterator[socket.socket]:
    with socket.create_connection((running.client.base_url.host, running.client.base_url.port or 0), timeout=10) as opened:
        yield opened


def post(*headers: bytes, body: bytes = BODY, path: bytes = PATH, version: bytes = b"1.1") -> bytes:
    lines = (b"POST " + path + b" HTTP/" + version, b"Host: x", b"Content-Length: %d" % len(body), *headers, b"", body)
    return b"\r\n".join(lines)


def get(path: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    return method + b" " + path + b" HTTP/" + version + b"\r\nHost: x\r\n\r\n"


def replies(connection: socket.socket, count: int, *, heads: bool = False) -> list[tuple[int, dict[str, str], bytes]]:
    """So many answers: status, headers in lower case, body."""
    found = []
    file = connection.makefile("rb")
    for _ in range(count):
        status = int(file.readline().split()[1])
        headers = {}
        while (line := file.readline().decode().strip()) != "":
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        found.append((status, headers, b"" if heads else file.read(int(headers.get("content-length", 0)))))
    return found


def ended(connection: socket.socket) -> bool:
    return connection.recv(1) == b""


def test_calls_sent_ahead_are_answered_in_order(connection: socket.socket) -> None:
    asked = [get(b"/v2"), post(), get(b"/nowhere"), post(body=b"{"), get(b"/v2/health/live")] * 5
    connection.sendall(b"".join(asked))
    assert [status for status, _, _ in replies(connection, 25)] == [200, 200, 404, 400, 200] * 5


def test_a_large_body_may_be_followed_by_a_part_of_the_next_call(connection: socket.socket) -> None:
    large = json.dumps({"instances": [ROW] * 300}).encode()
    sent = post(body=large) * 4 + post()
    connection.sendall(sent[:-60])
    assert [status for status, _, _ in replies(connection, 4)] == [200] * 4
    connection.sendall(sent[-60:])
    assert replies(connection, 1)[0][0] == 200


def test_a_call_may_come_a_byte_at_a_time(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in post():
        connection.sendall(bytes([byte]))
    ((status, _, body),) = replies(connection, 1)
    assert status == 200
    assert json.loads(body)["predictions"][0]["label"] == "high"


def test_a_body_may_come_in_chunks(connection: socket.socket) -> None:
    parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:])]
    head = b"POST " + PATH + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head + b"".join(parts) + b"0\r\n\r\n" + get(b"/v2"))
    assert [status for status, _, _ in replies(connection, 2)] == [200, 200]


def test_a_client_that_asks_for_http_2_is_answered_in_1_1(connection: socket.socket) -> None:
    connection.sendall(post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA") + post())
    assert [status for status, _, _ in replies(connection, 2)] == [200, 200]


def test_a_client_that_waits_is_told_to_go_on(connection: socket.socket) -> None:
    head, _, body = post(b"Expect: 100-continue").partition(b"\r\n\r\n")
    connection.sendall(head + b"\r\n\r\n")
    assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(body)
    assert replies(connection, 1)[0][0] == 200


def test_a_client_that_waits_need_not_send_what_is_refused(connection: socket.socket) -> None:
    head, _, _ = post(b"Expect: 100-continue", path=b"/nowhere").partition(b"\r\n\r\n")
    connection.sendall(head + b"\r\n\r\n")
    assert replies(connection, 1)[0][0] == 404
    assert ended(connection)


def test_http_1_0_is_answered_once(connection: socket.socket) -> None:
    connection.sendall(post(version=b"1.0"))
    ((status, headers, _),) = replies(connection, 1)
    assert (status, headers["connection"]) == (200, "close")
    assert ended(connection)


def test_head_has_no_body(connection: socket.socket) -> None:
    connection.sendall(get(b"/v2", b"HEAD"))
    ((_, told, _),) = replies(connection, 1, heads=True)
    connection.sendall(get(b"/v2"))
    ((status, headers, body),) = replies(connection, 1)
    assert status == 200
    assert int(told["content-length"]) == int(headers["content-length"]) == len(body)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_before_it_was_sent_and_the_answer_arrives(connection: socket.socket, chunked: bool) -> None:
    size = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 50000000"
    connection.sendall(b"POST " + PATH + b" HTTP/1.1\r\nHost: x\r\n" + size + b"\r\n\r\n" + b"1000\r\n" * chunked)
    for _ in range(20):
        connection.sendall(b"x" * 4096 + b"\r\n1000\r\n" * chunked)
        time.sleep(0.002)
    ((status, headers, body),) = replies(connection, 1)
    assert (status, headers["connection"]) == (413, "close")
    assert json.loads(body) == {"error": "the body is larger than 20,000 bytes: send less at once"}


def test_what_is_refused_leaves_the_connection_where_its_body_is_small(connection: socket.socket) -> None:
    connection.sendall(post(path=b"/nowhere") + post())
    assert [status for status, _, _ in replies(connection, 2)] == [404, 200]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nabc", 400),
        (b"GET /v2 HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nLong: " + b"a" * 100_000, 431),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 405),
    ],
)
def test_what_is_no_request_is_refused_in_the_shape_of_all_errors(connection: socket.socket, sent: bytes, status: int) -> None:
    connection.sendall(sent)
    ((found, _, body),) = replies(connection, 1)
    assert found == status
    assert set(json.loads(body)) == {"error"}


@pytest.mark.parametrize("sent", [post()[:-5], post()[:30], b"G"])
def test_a_request_that_is_not_sent_to_its_end_is_refused_in_time(connection: socket.socket, sent: bytes) -> None:
    connection.sendall(sent)
    ((status, _, body),) = replies(connection, 1)
    assert status == 408
    assert "not complete after 0.6 seconds" in json.loads(body)["error"]
    assert ended(connection)


def test_bytes_that_come_slowly_do_not_win_time(connection: socket.socket) -> None:
    start = time.monotonic()
    with pytest.raises(OSError):  # noqa: PT012 - which of the bytes fails is the system's choice
        for byte in post():
            connection.sendall(bytes([byte]))
            time.sleep(0.1)
            if time.monotonic() > start + 8:
                break
        raise ConnectionResetError
    assert time.monotonic() - start < 8


def test_a_connection_on_which_nothing_comes_is_closed(connection: socket.socket) -> None:
    connection.sendall(get(b"/v2"))
    assert replies(connection, 1)[0][0] == 200
    assert ended(connection)


def test_a_gzipped_body_is_unpacked(running: Running) -> None:
    reply = running.client.post(PATH.decode(), content=gzip.compress(BODY), headers={"Content-Encoding": "gzip"})
    assert reply.status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (gzip.compress(b" " * 10_000_000), 413, "larger than 20,000 bytes when it is unpacked"),
        (gzip.compress(BODY)[:-10], 400, "ends in the middle of its gzip"),
        (BODY, 400, "is not gzip"),
    ],
)
def test_a_body_that_is_no_good_gzip_is_refused(running: Running, content: bytes, status: int, says: str) -> None:
    reply = running.client.post(PATH.decode(), content=content, headers={"Content-Encoding": "gzip"})
    assert reply.status_code == status
    assert says in reply.json()["error"]


def test_two_hundred_who_send_nothing_hinder_nobody(running: Running) -> None:
    address = (running.client.base_url.host, running.client.base_url.port or 0)
    idle = [socket.create_connection(address) for _ in range(200)]
    try:
        assert running.client.post(PATH.decode(), content=BODY, headers={"Content-Type": "application/json"}).status_code == 200
    finally:
        for each in idle:
            each.close()


def test_all_of_it_left_no_traceback(running: Running, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert running.client.get("/v2/health/live").status_code == 200
    for log in Path(tmp_path_factory.getbasetemp()).glob("connection*/server.log"):
        assert "Traceback" not in log.read_text()
