"""Server-sent events, and clients that go away."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack, suppress
from typing import Any, Final, TypeVar

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tasks.core.errors import InputError

_SLOWEST: Final = 30.0
"""Seconds for which a client may take nothing of a stream before it is cut off."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


def event(values: Any) -> bytes:
    """One event with a JSON value."""
    return b"data: " + orjson.dumps(values) + b"\n\n"


class EventStream(StreamingResponse):
    """Events, each sent as it comes. A client that goes away ends them; `held` is let go of at their end, whichever it is."""

    def __init__(self, events: AsyncIterator[bytes], held: ExitStack) -> None:
        # No proxy may keep or gather them.
        super().__init__(_told(events), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}, media_type="text/event-stream")
        self.held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        with self.held, suppress(ClientDisconnect, TimeoutError):
            await until_gone(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self.body_iterator:
            async with asyncio.timeout(_SLOWEST):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The work's result. Raises ClientDisconnect, and leaves the work, when the client of a request that was read goes away."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(receive())
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, gone):
            task.cancel()
        # The work may only be left once it has let go of what it uses.
        await asyncio.gather(working, gone, return_exceptions=True)


async def _told(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events; after a failure, which no status can tell any more, one that has the shape of a refusal."""
    try:
        async for each in events:
            yield each
    except InputError as error:
        yield event({"error": error.what})
    except Exception:
        logger.exception("a stream failed")
        yield event({"error": "the server failed on this request; its log says why"})
