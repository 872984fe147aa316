"""The port that speaks gRPC: its messages become calls, and their answers replies or statuses."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final, TypeAlias

import grpc
import orjson

from deploy.serving.application import Application
from deploy.serving.calls import Answer, Call, Refusal
from deploy.serving.deadline import HEADER as TIMEOUT
from deploy.serving.grpc_codes import grpc_code
from deploy.serving.life import Life
from deploy.serving.listener import no_grpc
from deploy.serving.open_inference_grpc import OpenInferenceGrpc
from deploy.serving.routes import Operation
from deploy.serving.settings import Settings

_SOONEST: Final = 1e-6
_MOST_CALLS: Final = 1024
"""At once."""
MOST_READ: Final = 32
"""Messages that are read at once. How large one is shows once all of it is there, so each may be as large as any; other calls wait,
and are held back by the transport's own flow control.
"""

Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]


class GrpcPort:
    """Made on the event loop that answers HTTP too. A client that goes away, or whose deadline passes, cancels what it asked for."""

    def __init__(self, application: Application, procedures: OpenInferenceGrpc, life: Life, settings: Settings) -> None:
        self.application = application
        self.life = life
        self.settings = settings
        self._stopping: asyncio.Task[None] | None = None
        self._reading = asyncio.Semaphore(MOST_READ)
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=_MOST_CALLS,
            options=(
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                # Without need for it, another server could take the port too, and half of the clients.
                ("grpc.so_reuseport", int(settings.processes > 1)),
            ),
        )
        # On the wire a stream of one message is that message, and of a stream none is read until it is asked for.
        methods = {
            name: grpc.stream_unary_rpc_method_handler(partial(self._serve, operation))
            for name, operation in procedures.operations().items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(procedures.service, methods),))

    async def start(self, host: str, port: int) -> str:
        """Listen, and say where. Port 0 takes a free one. Raises MaasflowError."""
        shown = f"[{host}]" if ":" in host else host
        try:
            if self.settings.tls_cert and self.settings.tls_key:
                pair = (self.settings.tls_key.read_bytes(), self.settings.tls_cert.read_bytes())
                taken = self._server.add_secure_port(f"{shown}:{port}", grpc.ssl_server_credentials((pair,)))
            else:
                taken = self._server.add_insecure_port(f"{shown}:{port}")
        except RuntimeError:
            raise no_grpc(host, port) from None
        await self._server.start()
        return f"{shown}:{taken}"

    @property
    def busy(self) -> bool:
        """Whether it still answers: until `tick` ended it, and its last call with it."""
        return self._stopping is None or not self._stopping.done()

    def tick(self) -> None:
        """To be called a few times a second: take no new calls once load balancers had their time; those in flight go on."""
        if self._stopping is None and self.life.closing:
            self._stopping = asyncio.create_task(self._server.stop(self.settings.grace))

    async def close(self) -> None:
        """Cut off what is left."""
        await self._server.stop(None)

    async def _serve(self, operation: Operation, messages: AsyncIterator[bytes], context: Context) -> bytes:
        call = Call("POST", operation.path, _headers(context), _host(context.peer()))
        call.operation = operation
        try:
            self.application.guard.admit(call, operation)
            # What anyone may ask says nothing that would have to be read.
            if operation.scope is not None:
                call.body = await self._read(messages)
        except Refusal as refusal:
            call.refusal = refusal
        answer = await self.application.respond(call)
        assert isinstance(answer, Answer)
        trailing = (("x-request-id", call.request_id), *((name.lower(), value) for name, value in answer.headers.items()))
        context.set_trailing_metadata(trailing)
        if answer.status != 200:
            await context.abort(grpc.StatusCode[grpc_code(answer.status)], orjson.loads(answer.body)["error"], trailing)
        return answer.body

    async def _read(self, messages: AsyncIterator[bytes]) -> bytes:
        """The one message of a call. Raises Refusal (400 or 408)."""
        async with self._reading:
            try:
                async with asyncio.timeout(self.settings.read):
                    return await anext(messages)
            except TimeoutError:
                raise Refusal(408, f"the message was not complete after {self.settings.read:g} seconds") from None
            except StopAsyncIteration:
                raise Refusal(400, "the call ended without a message") from None


def _headers(context: Context) -> dict[bytes, bytes]:
    """A call's metadata, and its deadline as HTTP has it."""
    metadata = context.invocation_metadata() or ()
    headers = {key.encode(): value.encode() if isinstance(value, str) else value for key, value in metadata}
    remaining = context.time_remaining()
    if remaining is not None:
        headers[TIMEOUT] = b"%.6f" % max(remaining, _SOONEST)
    return headers


def _host(peer: str) -> str:
    """`ipv4:127.0.0.1:40814` → `127.0.0.1`."""
    return peer.partition(":")[2].rpartition(":")[0]
