"""Prefect's API for a run on one machine: a server of our own beside the run, where no other is configured.

It keeps its state in the workspace's `.maasflow/prefect`. It is started before the heavy imports and is
up when they are done; Prefect's own temporary server starts only once a flow begins, with every service, and takes three
times as long.
"""

import argparse
import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import MaasflowError
from tasks.core.imports import quick_imports
from tasks.core.workspace import Workspace

_START_SECONDS = 120.0
_DATABASE_BYTES = 20 << 20
"""What Prefect's database may need as it is made."""


@dataclass(frozen=True)
class Server:
    """Prefect's API: that of our own process, or where Prefect is configured to look for it."""

    url: str | None = None
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Wait until the API answers, and let Prefect use it for the block. Raises MaasflowError where it does not answer."""
        import httpx
        from prefect.settings import PREFECT_API_URL, temporary_settings

        url = self.url or PREFECT_API_URL.value()
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                # Ours listens already: the one request waits until the server takes it.
                httpx.get(f"{url}/health", timeout=_START_SECONDS).raise_for_status()
                break
            except httpx.HTTPError as error:
                if self.process and self.process.poll() is None and time.monotonic() < end:
                    continue
                raise self._failure(url, error) from error
        with temporary_settings({PREFECT_API_URL: url}):
            yield

    def _failure(self, url: str | None, error: Exception) -> Exception:
        if self.log is None:
            return MaasflowError(
                f"Prefect's server at {url} does not answer: {type(error).__name__}",
                "start it, or unset PREFECT_API_URL to run with a server of maasflow's own",
            )
        if shutil.disk_usage(self.log.parent).free < _DATABASE_BYTES:
            # Its log may be empty for the same reason.
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.log.parent))
        said = self.log.read_text(errors="replace").strip()
        last = said.splitlines()[-1] if said else "it said nothing"
        return MaasflowError(f"Prefect's server did not start: {last}", f"look at {self.log}")


@contextmanager
def prefect_server(workspace: Workspace) -> Iterator[Server]:
    """The configured server, or one that is started here and ends with this process. It is starting when the block begins."""
    if os.environ.get("PREFECT_API_URL") or configured_api():
        yield Server()
        return
    home = workspace.state / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    os.environ["PREFECT_HOME"] = str(home)
    listener = socket.create_server(("127.0.0.1", 0))
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(listener.fileno())],
            # The server reads its standard input until it ends, which is when this process does, however it dies.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            # A Ctrl-C is for the run, which tells the server how it ended.
            start_new_session=True,
        )
    with listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
    try:
        yield Server(url, server, home / "server.log")
    finally:
        server.terminate()
        try:
            server.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()


def configured_api() -> str | None:
    """The API that the user's active Prefect profile names, read without importing Prefect."""
    path = Path(
        os.environ.get("PREFECT_PROFILES_PATH") or Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser() / "profiles.toml"
    )
    try:
        profiles = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return None
    name = os.environ.get("PREFECT_PROFILE") or profiles.get("active")
    url: str | None = profiles.get("profiles", {}).get(name, {}).get("PREFECT_API_URL")
    return url


def main() -> None:
    """Serve Prefect's API on the inherited socket until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m flows.server")
    parser.add_argument("fd", type=int)
    fd = parser.parse_args().fd
    # Of the services, only those that write down task runs and events: nothing is scheduled here.
    os.environ["PREFECT__SERVER_EPHEMERAL"] = "1"
    os.environ["PREFECT__SERVER_FINAL"] = "1"
    os.environ["PREFECT_UI_ENABLED"] = "0"

    with quick_imports():
        import uvicorn
        from prefect.server.api.server import create_app

    server = uvicorn.Server(uvicorn.Config(create_app, factory=True, log_level="warning", lifespan="on"))
    threading.Thread(target=_stop_with_parent, args=(server,), daemon=True).start()
    server.run(sockets=[socket.socket(fileno=fd)])


def _stop_with_parent(server: object) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
