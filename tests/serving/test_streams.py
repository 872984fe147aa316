"""Streams whose work fails, and work whose client goes away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from deploy.serving.streams import EventStream, event, until_gone
from tasks.core.errors import InputError


async def never() -> Any:
    await asyncio.Event().wait()


def streamed(events: AsyncIterator[bytes], receive: Any = never) -> tuple[list[bytes], bool]:
    """The bodies that were sent, and whether what the stream held was let go of."""
    sent: list[Any] = []
    freed: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message)

    with ExitStack() as held:
        held.callback(freed.append, "freed")
        stream = EventStream(events, held.pop_all())
    asyncio.run(stream({"type": "http"}, receive, send))
    return [message["body"] for message in sent[1:]], bool(freed)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (InputError("the model has no finite answer after this text"), "the model has no finite answer after this text"),
        (RuntimeError("the secret is in /etc/secret"), "the server failed on this request; its log says why"),
    ],
)
def test_a_failure_after_the_first_piece_is_the_last_event(error: Exception, says: str, caplog: pytest.LogCaptureFixture) -> None:
    async def events() -> AsyncIterator[bytes]:
        yield event({"text": "a"})
        raise error

    bodies, freed = streamed(events())
    assert bodies == [b'data: {"text":"a"}\n\n', event({"error": says}), b""]
    assert freed
    assert ("/etc/secret" in caplog.text) == isinstance(error, RuntimeError)


def test_a_stream_ends_with_its_client() -> None:
    stopped: list[bool] = []

    async def events() -> AsyncIterator[bytes]:
        try:
            while True:
                yield event({"text": "a"})
                await asyncio.sleep(0.01)
        finally:
            stopped.append(True)

    async def leave() -> Any:
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    bodies, freed = streamed(events(), leave)
    assert bodies
    assert bodies[-1] != b""
    assert (stopped, freed) == ([True], True)


def test_work_is_left_when_its_client_goes_away() -> None:
    async def leave() -> Any:
        return {"type": "http.disconnect"}

    async def work() -> int:
        await asyncio.sleep(60)
        return 1

    with pytest.raises(ClientDisconnect):
        asyncio.run(until_gone(leave, work()))
