"""Servers that count together, in a real Redis that may go away."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.core.api_keys import create_key
from tests.serving.conftest import Running, Served, Start, end, start_server

ROW = {"instances": [{"age": 40, "height": 1.7, "color": "blue"}]}
AWAY = "requests are not counted until it is back"


class Redis:
    """A server that keeps nothing on disk, on a port that it keeps when it is started again."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def start(self) -> None:
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        self.process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        wait_until(self._listens)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def connections(self) -> int:
        """How many were made to it so far, this one too."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as asking:
            asking.sendall(b"INFO stats\r\n")
            told = asking.makefile("rb")
            return next(int(line.split(b":")[1]) for line in told if line.startswith(b"total_connections_received"))

    def _listens(self) -> bool:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", self.port)) == 0


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def redis() -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server: install Redis")
    server = Redis()
    server.start()
    yield server
    server.kill()


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """Of a key that may ask once in a thousand seconds."""
    return create_key(tmp_path / "keys.json", "app", requests_per_second=0.001)[1]


@pytest.fixture
def pair(served: Served, tmp_path: Path, redis: Redis, secret: str) -> Iterator[list[Running]]:
    """Two servers on the same Redis; their logs are `0.log` and `1.log`."""
    served.serve("people", "1")
    options = ("--keys", str(tmp_path / "keys.json"), "--redis", f"redis://127.0.0.1:{redis.port}/0")
    started = [start_server(served.folder, tmp_path / f"{number}.log", *options) for number in range(2)]
    yield started
    for running in started:
        end(running)


def statuses(servers: list[Running], secret: str, times: int = 1) -> list[int]:
    headers = {"Authorization": f"Bearer {secret}"}
    return [
        server.client.post("/v1/models/people/predict", json=ROW, headers=headers).status_code for _ in range(times) for server in servers
    ]


def test_two_servers_share_what_a_key_has_left(pair: list[Running], secret: str) -> None:
    assert statuses(pair, secret, 2) == [200, 429, 429, 429]


def test_while_redis_is_away_requests_go_on_and_are_counted_when_it_is_back(
    pair: list[Running], secret: str, redis: Redis, tmp_path: Path
) -> None:
    assert statuses(pair, secret) == [200, 429]
    redis.kill()
    assert statuses(pair, secret, 20) == [200] * 40
    redis.start()
    wait_until(lambda: 429 in statuses(pair[:1], secret))
    log = (tmp_path / "0.log").read_text()
    assert log.count(AWAY) == 1, "it is said once, not for each request"
    assert "Redis is back" in log
    assert "Traceback" not in log


def test_a_redis_that_hangs_is_asked_by_few_requests(pair: list[Running], secret: str, redis: Redis, tmp_path: Path) -> None:
    assert statuses(pair, secret) == [200, 429]
    before = redis.connections()
    redis.process.send_signal(signal.SIGSTOP)
    assert statuses(pair[:1], secret, 100) == [200] * 100
    redis.process.send_signal(signal.SIGCONT)
    # Who gave up waiting has ended its connection.
    assert redis.connections() - before < 50
    wait_until(lambda: 429 in statuses(pair[:1], secret))
    assert (tmp_path / "0.log").read_text().count(AWAY) == 1


def test_a_server_starts_before_redis_does(served: Served, start: Start, tmp_path: Path, redis: Redis, secret: str) -> None:
    redis.kill()
    served.serve("people", "1")
    running = start("--keys", str(tmp_path / "keys.json"), "--redis", f"redis://127.0.0.1:{redis.port}/0")
    assert statuses([running], secret, 2) == [200, 200]
    redis.start()
    wait_until(lambda: 429 in statuses([running], secret))
