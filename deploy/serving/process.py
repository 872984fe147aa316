"""A process that answers: the models behind a socket, and an orderly end."""

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Final

from deploy.serving.acceptor import Acceptor
from deploy.serving.announcement import announce
from deploy.serving.application import Application
from deploy.serving.connection import Connections
from deploy.serving.guard import Guard
from deploy.serving.inference import Inference
from deploy.serving.life import Life
from deploy.serving.listener import BACKLOG, address_of
from deploy.serving.models import Models
from deploy.serving.parent import Parent
from deploy.serving.settings import Settings
from tasks.core.errors import MaasflowError

if TYPE_CHECKING:
    from deploy.serving.grpc_port import GrpcPort
    from deploy.serving.tracing import Tracing

_TICK: Final = 0.1
_YOUNG: Final = 20_000
"""New objects at which Python looks for circles of garbage among them. Its own 700 are reached by a few requests at once, which leave
none, and looking took a fifteenth of their time.
"""
_TURN: Final = 0.0005
"""Seconds after which a thread that loads a model, or has run one, lets the event loop go on; of Python's own 0.005 clients would see."""
_COLLECTORS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

logger = logging.getLogger(__name__)


async def run(
    listener: socket.socket, models: Models, guard: Guard, settings: Settings, tls: ssl.SSLContext | None, parent: Parent | None = None
) -> int:
    """Answer on `listener` until a signal, or until the parent says so where several processes answer; the exit code.

    Raises MaasflowError.
    """
    gc.set_threshold(_YOUNG)
    sys.setswitchinterval(_TURN)
    life, payloads, comparisons = Life(settings), models.workers.payloads, models.workers.comparisons
    inference = Inference(models, life, settings)
    tracing = _tracing()
    application = Application(inference, guard, tracing, parent)
    connections = Connections(application, life, settings)
    _heed_signals(life)
    connections.tick()
    grpc, places = await _speak_grpc(application, inference, listener) if settings.grpc_port is not None else (None, "")
    ticks = [connections.tick, guard.refresh, *(part.tick for part in (grpc, payloads, comparisons) if part)]
    server: asyncio.Server | Acceptor
    if parent:
        server, tell = Acceptor(listener, connections, tls), parent.tell_running
        ticks += [partial(parent.tick, models)]
        beside = [asyncio.create_task(parent.heed(life))]
    else:
        server = await asyncio.get_running_loop().create_server(connections, sock=listener, backlog=BACKLOG, ssl=tls)
        tell, beside = partial(announce, served=models.served, address=address_of(listener, tls), grpc=places), []
    beside += [asyncio.create_task(_follow(models, settings.watch, tell)), asyncio.create_task(application.traffic.follow())]
    while not life.drained(busy=connections.busy or (grpc is not None and grpc.busy)):
        await asyncio.sleep(_TICK)
        for tick in ticks:
            tick()
    if grpc:
        await grpc.close()
    server.close()
    connections.close()
    for task in beside:
        task.cancel()
    await asyncio.wait(beside)
    await models.shadows.close()
    await comparisons.close()
    if payloads:
        await payloads.close()
    if tracing:
        await asyncio.to_thread(tracing.close)
    if parent:
        await parent.close(models)
    return life.exit_code


def _tracing() -> "Tracing | None":
    """Where OpenTelemetry's variables name a collector, what sends traces to it. Raises MaasflowError."""
    collector = next((name for name in _COLLECTORS if os.environ.get(name)), None)
    if collector is None or os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return None
    try:
        from deploy.serving.tracing import Tracing  # noqa: PLC0415 - only where it is asked for
    except ImportError as error:
        what = f"{collector} asks for traces, and they cannot be sent: {error}"
        raise MaasflowError(what, "pip install opentelemetry-exporter-otlp-proto-http, or unset it") from None
    return Tracing()


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


async def _follow(models: Models, seconds: float, tell: Callable[[Collection[tuple[str, str]]], None]) -> None:
    """Look at the pointers every so often, in a thread, as loading a model takes long, and tell what runs once it is another.

    Ends only by being cancelled.
    """
    told: set[tuple[str, str]] | None = None
    while True:
        try:
            await asyncio.to_thread(models.refresh)
            running = {(model.name, model.version) for model in models.running()}
            if running != told:
                told = running
                tell(running)
        except Exception:
            logger.exception("cannot look at the pointers in %s, what is loaded goes on", models.served)
        await asyncio.sleep(seconds)
