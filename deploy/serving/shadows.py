"""What the model that did not answer makes of a request: found out in pauses, in which no model is asked anything."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

_PAUSE: Final = 0.005
"""Seconds in which nothing was asked of any model: then nobody waits, and the next request is as a rule not there yet."""
_MOST: Final = 64
"""Copies that wait; one more is dropped."""
_MOST_BYTES: Final = 16 * 2**20


class Shadow(Protocol):
    """A copy of a request. All but `compute` is for the event loop's thread."""

    size: int
    """Bytes that it keeps."""

    @property
    def over(self) -> bool:
        """Whether nobody wants to know any more."""

    def compute(self) -> None:
        """Takes as long as the model does. Raises nothing."""

    def end(self) -> None:
        """Count what was found."""

    def drop(self) -> None:
        """Count that it was not found out."""


class Shadows:
    """One at a time, each begun in a pause: at most the one that runs when the next request comes is beside it.

    A thread of lower priority would be no kinder. It may be stopped while it holds the interpreter's lock, and the event loop with it.
    """

    def __init__(self, busy: Callable[[], bool], work: Callable[[], float]) -> None:
        self._busy = [busy]
        """Whether some model is asked right now."""
        self._work = work
        """A number that grows with all that models do for clients."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._queue: deque[Shadow] = deque()
        self._bytes = 0
        self._running: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._done = -1.0
        """The work at the last look."""

    def heed(self, busy: Callable[[], bool]) -> None:
        """Begin with nothing while this says that something else is done for a client."""
        self._busy.append(busy)

    def offer(self, shadow: Shadow) -> None:
        """Run it in some pause, unless too much waits already."""
        if len(self._queue) >= _MOST or (self._queue and self._bytes + shadow.size > _MOST_BYTES):
            shadow.drop()
            return
        self._queue.append(shadow)
        self._bytes += shadow.size
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE, self._look)

    async def close(self, seconds: float = 1.0) -> None:
        """Drop what waits, and give what runs so much time to end."""
        if self._timer:
            self._timer.cancel()
        while self._queue:
            self._take().drop()
        if self._running:
            await asyncio.wait([self._running], timeout=seconds)

    def _look(self) -> None:
        """Begin with the next where nothing was done since the last look, and look again while something waits."""
        self._timer = None
        for _ in range(len(self._queue)):
            shadow = self._take()
            if shadow.over:
                shadow.drop()
            else:
                self._queue.append(shadow)
                self._bytes += shadow.size
        done, self._done = self._done, self._work()
        if self._queue and self._running is None and self._done == done and not any(busy() for busy in self._busy):
            self._begin(self._take())
        if self._queue:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE, self._look)

    def _begin(self, shadow: Shadow) -> None:
        self._running = asyncio.get_running_loop().run_in_executor(self._thread, shadow.compute)
        self._running.add_done_callback(lambda _: self._ran(shadow))

    def _ran(self, shadow: Shadow) -> None:
        self._running = None
        shadow.end()
        if self._queue and self._work() == self._done and not any(busy() for busy in self._busy):
            self._begin(self._take())

    def _take(self) -> Shadow:
        shadow = self._queue.popleft()
        self._bytes -= shadow.size
        return shadow
