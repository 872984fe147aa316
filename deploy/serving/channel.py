"""What a server of several processes says inside: lines of JSON, over a pair of sockets for each process."""

import asyncio
import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

_LONGEST: Final = 2**26
"""Bytes in a line: what is counted of one model takes about a thousand."""


@dataclass(frozen=True)
class Message:
    """A question and its answer have the same number."""

    kind: str
    value: Any
    number: int


class Channel:
    """One end of a pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Self:
        """From now on the socket is the channel's."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_LONGEST))

    def send(self, kind: str, value: Any = None, number: int = 0) -> None:
        """What the other end does not live to read is lost."""
        # Not orjson, as a time in the settings may be infinite.
        self._writer.write(json.dumps([kind, value, number]).encode() + b"\n")

    async def receive(self) -> Message | None:
        """None once the other end is closed, which it is when its process ends, however it does."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        # A process may be killed in the middle of a line.
        return Message(*json.loads(line)) if line.endswith(b"\n") else None

    async def close(self) -> None:
        """Once all was sent, or cannot be."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
