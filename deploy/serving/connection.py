"""One connection: its calls are answered in the order in which they came."""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import aclosing
from email.utils import formatdate
from http import HTTPStatus
from math import inf
from typing import Final, cast

from deploy.serving.application import Application
from deploy.serving.calls import Answer, Call, Refusal, Stream
from deploy.serving.life import Life
from deploy.serving.reader import Reader
from deploy.serving.settings import Settings

_MOST_WAITING: Final = 8
"""Calls that a client may send ahead of their answers, before it is read no further."""
_LINGER: Final = 2.0
"""Seconds in which what still comes is thrown away, after an answer that ends a connection: a client that is still sending would
find it reset, and never see the answer (RFC 9112, section 9.6)."""
_SLOWEST: Final = 30.0
"""Seconds for which a client may take nothing of an answer before it is cut off."""
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

logger = logging.getLogger(__name__)


class Connections:
    """All that are open, and what they share."""

    def __init__(self, application: Application, life: Life, settings: Settings) -> None:
        self.application = application
        self.life = life
        self.settings = settings
        self.open: set[Connection] = set()
        self.date = b""

    def __call__(self) -> "Connection":
        return Connection(self)

    @property
    def busy(self) -> bool:
        return any(connection.busy for connection in self.open)

    def tick(self) -> None:
        """To be called a few times a second: end those whose time is over."""
        self.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        now = asyncio.get_running_loop().time()
        for connection in [connection for connection in self.open if connection.expires < now]:
            connection.expire()

    def close(self) -> None:
        """Cut off all that are left."""
        for connection in list(self.open):
            connection.transport.abort()


class Connection(asyncio.Protocol):
    """A client that goes away cancels what it asked for."""

    transport: asyncio.Transport

    def __init__(self, shared: Connections) -> None:
        self.shared = shared
        self.expires = inf
        """When it is over unless something happens before, on the event loop's clock."""
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[Call] = deque()
        self._last = False
        """Whether nothing more is read: what was read is answered, and then it ends."""
        self._writable: asyncio.Event | None = None
        """Set once the client takes more of an answer, while it takes none."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.shared.open.add(self)
        client = str((transport.get_extra_info("peername") or [""])[0])
        self._reader = Reader(self.shared.settings.max_body_bytes, self._admit, self._ready, self._ask_for_body, client)
        self._until(self.shared.settings.read)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.shared.open.discard(self)
        self._waiting.clear()
        if self._task:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._last:
            return
        begun = self._reader.begun
        try:
            self._reader.feed(data)
        except Refusal as refusal:
            self._refuse(refusal)
        if self._reader.begun and not begun:
            self._until(self.shared.settings.read)

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()
        self._until(_SLOWEST)
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._writable:
            self._writable.set()
            self._writable = None
        if self._task:
            self.expires = inf
        else:
            self._rest()

    @property
    def busy(self) -> bool:
        """Whether a call is being read, worked on or answered."""
        return self._task is not None or (self._reader.begun and not self._last)

    def expire(self) -> None:
        """It took too long."""
        if self._writable or self._last or not self._reader.begun:
            self.transport.abort()
        else:
            self._refuse(Refusal(408, f"the request was not complete after {self.shared.settings.read:g} seconds"))

    def _until(self, seconds: float) -> None:
        self.expires = self._loop.time() + seconds

    def _admit(self, call: Call) -> None:
        self.shared.application.admit(call)

    def _ask_for_body(self) -> None:
        if not self._task:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what cannot be read any further, after what was read before, and end."""
        call = Call("", "", self._reader.headers, "")
        call.refusal, call.keep_alive = refusal, False
        self._last = True
        self._ready(call)

    def _ready(self, call: Call) -> None:
        if self._task:
            self._waiting.append(call)
            if len(self._waiting) >= _MOST_WAITING:
                self.transport.pause_reading()
        else:
            self._begin(call)

    def _begin(self, call: Call) -> None:
        self.expires = inf
        self._task = self._loop.create_task(self._serve(call))

    async def _serve(self, call: Call) -> None:
        try:
            await self._answer(call)
        except Exception:
            logger.exception("%s %r: the answer could not be sent", call.method, call.path)
            self.transport.abort()
        else:
            self._answered(call)

    async def _answer(self, call: Call) -> None:
        answer = await self.shared.application.respond(call)
        call.keep_alive &= not self.shared.life.draining
        if isinstance(answer, Answer):
            body = answer.body
            head = _head(call, answer, self.shared.date, b"content-length: %d\r\n" % len(body))
            self.transport.write(head if call.method == "HEAD" else head + body)
        else:
            await self._stream(call, answer)

    async def _stream(self, call: Call, answer: Stream) -> None:
        call.keep_alive &= call.chunked
        framing = b"transfer-encoding: chunked\r\n" if call.chunked else b""
        async with aclosing(answer.pieces):
            self.transport.write(_head(call, answer, self.shared.date, framing))
            async for piece in answer.pieces:
                self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if call.chunked else piece)
                if self._writable:
                    await self._writable.wait()
            if call.chunked:
                self.transport.write(b"0\r\n\r\n")

    def _answered(self, call: Call) -> None:
        self._task = None
        if not call.keep_alive:
            self._finish()
        elif self._waiting:
            self._begin(self._waiting.popleft())
            self.transport.resume_reading()
        else:
            self._rest()

    def _rest(self) -> None:
        """Wait for the client's next call, or for the rest of one."""
        if self._task or self._last or self._writable:
            return
        self._until(self.shared.settings.read if self._reader.begun else self.shared.settings.keep_alive)
        self.transport.resume_reading()

    def _finish(self) -> None:
        self._waiting.clear()
        if self._last and self.transport.can_write_eof():
            self.transport.write_eof()
            self._until(_LINGER)
        else:
            self.transport.close()
            self._until(_SLOWEST)


def _head(call: Call, answer: Answer | Stream, date: bytes, framing: bytes) -> bytes:
    """The status line and the headers."""
    request_id, media_type = call.request_id.encode(), answer.media_type.encode()
    lines = [_STATUS_LINES[answer.status], date, b"x-request-id: ", request_id, b"\r\ncontent-type: ", media_type, b"\r\n", framing]
    if answer.headers:
        lines += [_lines(answer.headers)]
    if not call.keep_alive:
        lines += [b"connection: close\r\n"]
    return b"".join((*lines, b"\r\n"))


def _lines(headers: Mapping[str, str]) -> bytes:
    assert not any("\r" in value or "\n" in value for value in headers.values())
    return b"".join(f"{name}: {value}\r\n".encode("latin-1", "replace") for name, value in headers.items())
