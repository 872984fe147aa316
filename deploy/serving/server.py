"""The process: a socket, the models behind it, and an orderly end."""

import asyncio
import logging
import os
import signal
import socket
import ssl
from contextlib import suppress
from importlib import metadata
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from deploy.serving.application import Application
from deploy.serving.connection import Connections
from deploy.serving.guard import Guard
from deploy.serving.inference import Inference
from deploy.serving.life import Life
from deploy.serving.models import Models
from deploy.serving.settings import Settings
from deploy.serving.workers import Workers
from tasks.core.errors import MaasflowError

if TYPE_CHECKING:
    from deploy.serving.grpc_port import GrpcPort

_TICK: Final = 0.1
_BACKLOG: Final = 2048
"""Connections that wait to be accepted. Those that come while the models are loaded are not refused."""

logger = logging.getLogger(__name__)


def serve(served: Path, host: str = "127.0.0.1", port: int = 8000, settings: Settings | None = None) -> int:
    """Serve every model that has a pointer in `served`, until a signal. Port 0 takes a free one.

    Returns the exit code: 0 after SIGTERM, 130 after Ctrl-C. Raises MaasflowError for an address that cannot be had.
    """
    settings = settings or Settings()
    guard, tls = Guard(settings.keys, settings.redis), _tls(settings)
    listener = _listen(host, port)
    if not (_is_own(listener) or guard.demands or settings.insecure):
        listener.close()
        raise MaasflowError(
            f"not listening on {host}, where other machines could ask without an API key",
            "make a key with maasflow keys create NAME, or say --insecure where something in front of the server checks who asks",
        )
    main = _run(listener, Models(served, Workers(settings)), guard, settings, tls)
    with listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def _run(listener: socket.socket, models: Models, guard: Guard, settings: Settings, tls: ssl.SSLContext | None) -> int:
    life, payloads = Life(settings), models.workers.payloads
    inference = Inference(models, life, settings)
    application = Application(inference, guard)
    connections = Connections(application, life, settings)
    _heed_signals(life)
    connections.tick()
    grpc, places = await _speak_grpc(application, inference, listener) if settings.grpc_port is not None else (None, "")
    server = await asyncio.get_running_loop().create_server(connections, sock=listener, backlog=_BACKLOG, ssl=tls)
    following = asyncio.create_task(_follow(models, settings.watch, _address(listener, tls), places))
    while not life.drained(busy=connections.busy or (grpc is not None and grpc.busy)):
        await asyncio.sleep(_TICK)
        connections.tick()
        if grpc:
            grpc.tick()
        guard.refresh()
        if payloads:
            payloads.tick()
    if grpc:
        await grpc.close()
    server.close()
    connections.close()
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    if payloads:
        await payloads.close()
    return life.exit_code


async def _speak_grpc(application: Application, inference: Inference, listener: socket.socket) -> "tuple[GrpcPort, str]":
    """A port for gRPC on the address of HTTP's, and where it is. Raises MaasflowError."""
    try:
        from deploy.serving.grpc_port import GrpcPort  # noqa: PLC0415 - only where it is asked for
        from deploy.serving.open_inference_grpc import OpenInferenceGrpc  # noqa: PLC0415
    except ImportError as error:
        raise MaasflowError(f"gRPC cannot be spoken: {error}", "pip install grpcio protobuf, or leave --grpc-port out") from None
    port = GrpcPort(application, OpenInferenceGrpc(inference), inference.life, inference.settings)
    return port, await port.start(listener.getsockname()[0], inference.settings.grpc_port or 0)


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


def _is_own(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ip_address(listener.getsockname()[0]).is_loopback


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """Raises MaasflowError for files that are no certificate and its key."""
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        raise MaasflowError("a certificate and its private key go together", "give --tls-cert and --tls-key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:
        what = f"cannot speak TLS with {settings.tls_cert} and {settings.tls_key}: {error.strerror or error}"
        raise MaasflowError(what, "give a certificate chain and its private key without a passphrase, both in PEM") from None
    return context


def _address(listener: socket.socket, tls: ssl.SSLContext | None) -> str:
    host, port = listener.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if listener.family == socket.AF_INET6 else host}:{port}"


async def _follow(models: Models, seconds: float, address: str, grpc: str) -> None:
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
                _announce(models, address, grpc)
        except Exception:
            logger.exception("cannot look at the pointers in %s, what is loaded goes on", models.served)
        await asyncio.sleep(seconds)


def _announce(models: Models, address: str, grpc: str) -> None:
    also = f", gRPC on {grpc}" if grpc else ""
    version = metadata.version("maasflow")
    names = ", ".join(f"{model.name} (version {model.version})" for model in models.running())
    if names:
        print(f"maasflow {version} is ready on {address} ({address}/docs{also}): {names}", flush=True)
    else:
        print(f"maasflow {version} is on {address}{also}, not ready: {models.served} has no model that can be served yet", flush=True)
