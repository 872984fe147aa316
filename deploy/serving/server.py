"""The process: a socket, the models behind it, and an orderly end."""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from deploy.serving.app import make_app
from deploy.serving.life import Life
from deploy.serving.models import Models
from deploy.serving.settings import Settings
from tasks.core.errors import MaasflowError

logger = logging.getLogger(__name__)


def serve(served: Path, host: str = "127.0.0.1", port: int = 8000, settings: Settings | None = None) -> int:
    """Serve every model that has a pointer in `served`, until a signal. Port 0 takes a free one.

    Returns the exit code: 0 after SIGTERM, 130 after Ctrl-C. Raises MaasflowError for an address that cannot be had.
    """
    settings = settings or Settings()
    models, life = Models(served), Life(settings)
    listener = _listen(host, port)
    address = _address(listener)

    @asynccontextmanager
    async def following(_: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(_follow(models, settings.watch, address))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    server = _Server(
        uvicorn.Config(
            make_app(models, life, settings, following),
            loop="auto",
            http="httptools",
            lifespan="on",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        ),
        life,
    )
    server.run([listener])
    return server.exit_code


class _Server(uvicorn.Server):
    """Uvicorn that answers on while it drains, where its own would close the door at once."""

    def __init__(self, config: uvicorn.Config, life: Life) -> None:
        super().__init__(config)
        self.life = life
        self.exit_code = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        if self.life.draining:
            self.should_exit = self.force_exit = True
            return
        interrupted = sig == signal.SIGINT
        self.exit_code = 128 + sig if interrupted else 0
        self.life.drain(at_once=interrupted)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self.life.drained()


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises MaasflowError."""
    # The system would take a larger one modulo 65536.
    if not 0 <= port <= 65535:
        raise MaasflowError(f"cannot listen on port {port}: a port is a number from 0 to 65535", "choose another one with --port")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise MaasflowError(
            f"cannot listen on {host}: {error}", "choose an address of this machine, for example --host 127.0.0.1"
        ) from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
        # Connections that come while the models are loaded wait in the queue instead of being refused.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise MaasflowError(
            f"cannot listen on {host}, port {port}: {error.strerror}", "stop what listens there, or choose another port with --port"
        ) from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


async def _follow(models: Models, seconds: float, address: str) -> None:
    """Look at the pointers every so often, in a thread, as loading a model takes long, and say what runs once it is another.

    Ends only by being cancelled.
    """
    told: set[tuple[str, str]] | None = None
    while True:
        try:
            await asyncio.to_thread(models.refresh)
            running = {(model.name, model.version) for model in models.running()}
            if running != told:
                told = running
                _announce(models, address)
        except Exception:
            logger.exception("cannot look at the pointers in %s, what is loaded goes on", models.served)
        await asyncio.sleep(seconds)


def _announce(models: Models, address: str) -> None:
    version = metadata.version("maasflow")
    names = ", ".join(f"{model.name} (version {model.version})" for model in models.running())
    if names:
        print(f"maasflow {version} is ready on {address} ({address}/docs): {names}", flush=True)
    else:
        print(f"maasflow {version} is on {address}, not ready: {models.served} has no model that can be served yet", flush=True)
