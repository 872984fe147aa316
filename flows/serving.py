"""`maasflow serve`: the model server, with a deployer beside it that follows the registry."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from deploy.serving.server import serve
from deploy.serving.settings import Settings
from tasks.core.workspace import Workspace


def serve_here(host: str, port: int, settings: Mapping[str, Any], *, follow: bool) -> int:
    """Serve the workspace's champions until stopped, to those who have one of its API keys where there are any; the exit code."""
    workspace = Workspace.current()
    with _deployer(workspace, wanted=follow):
        return serve(
            workspace.served,
            host,
            port,
            Settings(keys=workspace.keys, payloads=workspace.payloads, comparisons=workspace.comparisons, **settings),
        )


@contextmanager
def _deployer(workspace: Workspace, *, wanted: bool) -> Iterator[None]:
    """A process that brings new champions to the served folder. The server-only install has no MLflow, and so none."""
    if not wanted or importlib.util.find_spec("mlflow") is None:
        yield
        return
    # Its standard input ends when this process does, however it dies, and then it ends too. A Ctrl-C is for the server.
    deployer = subprocess.Popen(
        [sys.executable, "-m", "tasks.deploy", str(workspace.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        deployer.terminate()
        deployer.communicate()
