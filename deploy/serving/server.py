"""From settings to a server that answers, until a signal."""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import uvloop

from deploy.serving.guard import Guard
from deploy.serving.listener import address_of, is_own, listen, place_of, shared_port, tls_context
from deploy.serving.models import Models
from deploy.serving.process import run
from deploy.serving.settings import Settings
from deploy.serving.supervisor import Supervisor
from deploy.serving.workers import Workers
from tasks.core.errors import MaasflowError
from tasks.core.signature import Trust


def serve(served: Path, host: str = "127.0.0.1", port: int = 8000, settings: Settings | None = None) -> int:
    """Serve every model that has a pointer in `served`, until a signal. Port 0 takes a free one.

    Returns the exit code: 0 after SIGTERM, 130 after Ctrl-C. Raises MaasflowError for an address that cannot be had.
    """
    settings = settings or Settings()
    if settings.processes < 1:
        raise MaasflowError(f"cannot serve with {settings.processes} workers", "say --workers 1 or more")
    guard, tls = Guard(settings.keys, settings.redis), tls_context(settings)
    if settings.trust:
        # A file that cannot be read is better known now than at the next release.
        Trust.read(settings.trust)
    listener = listen(host, port)
    if not (is_own(listener) or guard.demands or settings.insecure):
        listener.close()
        raise MaasflowError(
            f"not listening on {host}, where other machines could ask without an API key",
            "make a key with maasflow keys create NAME, or say --insecure where something in front of the server checks who asks",
        )
    with listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if settings.processes == 1:
            return runner.run(run(listener, Models(served, Workers(settings)), guard, settings, tls))
        return runner.run(_supervise(listener, served, settings, address_of(listener, tls)))


async def _supervise(listener: socket.socket, served: Path, settings: Settings, address: str) -> int:
    if settings.grpc_port is None:
        return await Supervisor(listener, served, settings, address, "").run()
    with shared_port(listener, settings.grpc_port) as held:
        settings = replace(settings, grpc_port=held.getsockname()[1])
        return await Supervisor(listener, served, settings, address, place_of(held)).run()
