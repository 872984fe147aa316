"""The health check of the images, against a real server."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.deploy.test_files import instruction
from tests.serving.conftest import Served, end, start_server


def check(port: int) -> int:
    """The Dockerfile's own check, at another port; its exit code."""
    _, _, command = instruction("server", "HEALTHCHECK").partition("CMD ")
    words = json.loads(command)
    assert (words[0], words[3]) == ("python", "8000")
    words = [sys.executable, *words[1:3], str(port), *words[4:]]
    return subprocess.run(words, cwd=REPOSITORY, capture_output=True, check=False).returncode


def test_a_server_is_healthy_once_it_has_a_model(tmp_path: Path) -> None:
    served = Served(tmp_path / "served")
    running = start_server(served.folder, tmp_path / "server.log")
    try:
        port = running.client.base_url.port
        assert port
        assert check(port) == 1
        served.serve("people", "1")
        end_of_patience = time.monotonic() + 10
        while running.client.get("/v2/health/ready").status_code != 200:
            assert time.monotonic() < end_of_patience
            time.sleep(0.05)
        assert check(port) == 0
    finally:
        end(running)


def test_where_nothing_listens_nothing_is_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert check(port) == 1
