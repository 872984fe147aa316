"""What the images do: how they start the server, and how they check its health."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tasks.core.api_keys import create_key
from tests.conftest import REPOSITORY
from tests.deploy.test_files import instruction, server_arguments
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


@pytest.mark.parametrize("number", range(3), ids=["image", "compose", "kubernetes"])
def test_its_arguments_start_a_server_that_wants_a_key(number: int, tmp_path: Path) -> None:
    Served(tmp_path / "served").serve("people", "1")
    _, key = create_key(tmp_path / "keys" / "keys.json", "me")
    arguments = [re.sub(r"(?<![\w.])/(served|keys)", rf"{tmp_path}/\1", each) for each in server_arguments()[number]]
    arguments = [each for each in arguments if not each.startswith("--port")] + ["--port=0", "--drain=0"]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.serving", *arguments], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout
            found = re.search(r":(\d+) ", server.stdout.readline())
            assert found
            assert check(int(found[1])) == 0
            with httpx.Client(base_url=f"http://127.0.0.1:{found[1]}", trust_env=False) as client:
                assert client.get("/v2/models/people").status_code == 401
                assert client.get("/v2/models/people", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


def test_without_a_key_the_image_does_not_start(tmp_path: Path) -> None:
    arguments = [re.sub(r"(?<![\w.])/(served|keys)", rf"{tmp_path}/\1", each) for each in json.loads(instruction("server", "CMD"))]
    command = [sys.executable, "-m", "deploy.serving", *arguments, "--port=0"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "without an API key" in done.stderr
