"""Connections to a socket on which several processes listen."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

_PAUSE: Final = 0.001
"""Seconds after a turn, in which the other processes have theirs."""
_MOST: Final = 64
"""Connections in a turn."""
_EXHAUSTED: Final = 1.0
"""Seconds after a connection could not be taken, as when there are too many open files."""

logger = logging.getLogger(__name__)


class Acceptor:
    """Takes them in turns, so that each process gets about as many of those that come at once.

    An event loop's own server takes all that wait, and the process that wakes up first would have every client. A turn is of one
    connection, and of twice as many as the last while more wait than one turn takes.
    """

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None) -> None:
        self._listener = listener
        self._protocol = protocol
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._turn = 1
        self._pause: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[None]] = set()
        listener.settimeout(0)
        self._listen()

    def close(self) -> None:
        """Take no more. The socket stays open for the others."""
        self._loop.remove_reader(self._listener)
        if self._pause:
            self._pause.cancel()
        for opening in self._opening:
            opening.cancel()

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._listen)

    def _accept(self) -> None:
        for _ in range(self._turn):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                self._turn = 1
                return
            except OSError:
                logger.exception("a connection cannot be taken")
                self._rest(_EXHAUSTED)
                return
            connection.settimeout(0)
            opening = self._loop.create_task(self._open(connection))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
        self._turn = min(2 * self._turn, _MOST)
        self._rest(_PAUSE)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._tls)
        except OSError:
            # It went away, or did not speak TLS as it should (an SSLError).
            connection.close()
