"""The process: a socket, the models behind it, and an orderly end."""

import asyncio
import logging
import os
import signal
import socket
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Final

import uvloop

from deploy.serving.application import Application
from deploy.serving.connection import Connections
from deploy.serving.life import Life
from deploy.serving.models import Models
from deploy.serving.settings import Settings
from deploy.serving.workers import Workers
from tasks.core.errors import MaasflowError

_TICK: Final = 0.1
_BACKLOG: Final = 2048
"""Connections that wait to be accepted. Those that come while the models are loaded are not refused."""

logger = logging.getLogger(__name__)


def serve(served: Path, host: str = "127.0.0.1", port: int = 8000, settings: Settings | None = None) -> int:
    """Serve every model that has a pointer in `served`, until a signal. Port 0 takes a free one.

    Returns the exit code: 0 after SIGTERM, 130 after Ctrl-C. Raises MaasflowError for an address that cannot be had.
    """
    listener = _listen(host, port)
    settings = settings or Settings()
    main = _run(listener, Models(served, Workers(settings)), settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def _run(listener: socket.socket, models: Models, settings: Settings) -> int:
    life = Life(settings)
    connections = Connections(Application(models, life, settings), life, settings)
    _heed_signals(life)
    connections.tick()
    server = await asyncio.get_running_loop().create_server(connections, sock=listener, backlog=_BACKLOG)
    following = asyncio.create_task(_follow(models, settings.watch, _address(listener)))
    while not life.drained(busy=connections.busy):
        await asyncio.sleep(_TICK)
        connections.tick()
    server.close()
    connections.close()
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    return life.exit_code


def _heed_signals(life: Life) -> None:
    """SIGTERM drains, Ctrl-C leaves no time for load balancers; a second signal ends the process at once."""
    loop = asyncio.get_running_loop()

    def heed(number: signal.Signals) -> None:
        if life.draining:
            os._exit(128 + number)
        interrupted = number == signal.SIGINT
        life.exit_code = 128 + number if interrupted else 0
        life.drain(at_once=interrupted)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heed, number)


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
        listener.listen(_BACKLOG)
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
