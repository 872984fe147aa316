"""`maasflow serve`: the model server, with a deployer beside it that follows the registry."""

import importlib.util
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.serving.server import serve
from deploy.serving.settings import Settings
from tasks.core.workspace import Workspace

_SHORTEST, _LONG = 1.0, 60.0
"""Seconds before the deployer is begun again: the first rest, and both the longest one and the life after which rests are short again."""

logger = logging.getLogger(__name__)


def serve_here(host: str, port: int, settings: Mapping[str, Any], *, follow: bool) -> int:
    """Serve the workspace's champions until stopped, to those who have one of its API keys where there are any; the exit code."""
    workspace = Workspace.current()
    if settings.get("access_log"):
        # The command shows warnings alone.
        logging.getLogger("deploy").setLevel(logging.INFO)
    with _deployer(workspace, settings.get("trust"), wanted=follow):
        return serve(
            workspace.served,
            host,
            port,
            Settings(keys=workspace.keys, payloads=workspace.payloads, comparisons=workspace.comparisons, **settings),
        )


@contextmanager
def _deployer(workspace: Workspace, trust: Path | None, *, wanted: bool) -> Iterator[None]:
    """A process that brings new champions to the served folder. The server-only install has no MLflow, and so none."""
    if not wanted or importlib.util.find_spec("mlflow") is None:
        yield
        return
    # Its standard input ends when this process does, however it dies, and then it ends too.
    trusted = ["--trust", str(trust.resolve())] if trust else []
    kept = _Kept([sys.executable, "-m", "tasks.deploy", str(workspace.root), *trusted])
    with kept:
        yield


class _Kept:
    """A process that is begun again whenever it ends, after a rest that doubles while it does not last, for as long as the block."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        with self._starting:
            self._ending.set()
            if self._process:
                self._process.terminate()
        self._thread.join()

    def _keep(self) -> None:
        rest = 0.0
        while not self._ending.wait(rest):
            began = time.monotonic()
            how = self._run()
            if self._ending.is_set():
                return
            lasted = time.monotonic() - began >= _LONG
            rest = _SHORTEST if lasted or not rest else min(2 * rest, _LONG)
            logger.error("the deployer %s; it is begun again in %.0f s, and what is served goes on", how, rest)

    def _run(self) -> str:
        """Let it run to its end; how it ended."""
        with self._starting:
            if self._ending.is_set():
                return ""
            try:
                # A Ctrl-C is for the server.
                self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
            except OSError as error:
                return f"cannot be started: {error}"
        with self._process as process:
            return f"ended with {process.wait()}"
