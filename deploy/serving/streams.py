"""Server-sent events."""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing
from typing import Any

import orjson

from deploy.serving.calls import Stream
from tasks.core.errors import InputError

logger = logging.getLogger(__name__)


def event(values: Any) -> bytes:
    """One event with a JSON value."""
    return b"data: " + orjson.dumps(values) + b"\n\n"


def event_stream(events: AsyncGenerator[bytes], held: ExitStack, headers: Mapping[str, str] | None = None) -> Stream:
    """Events, each sent as it comes; `held` is let go of at their end, whichever it is."""
    # No proxy may keep or gather them.
    ours = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return Stream(_told(events, held), "text/event-stream; charset=utf-8", {**ours, **(headers or {})})


async def _told(events: AsyncGenerator[bytes], held: ExitStack) -> AsyncGenerator[bytes]:
    """The events; after a failure, which no status can tell any more, one that has the shape of a refusal."""
    with held:
        async with aclosing(events):
            try:
                async for each in events:
                    yield each
            except InputError as error:
                yield event({"error": error.what})
            except Exception:
                logger.exception("a stream failed")
                yield event({"error": "the server failed on this request; its log says why"})
