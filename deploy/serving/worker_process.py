"""One of several processes that answer on a port, as their parent sees it."""

import asyncio
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from deploy.serving.channel import Channel, Message
from deploy.serving.orders import Orders

Heed = Callable[["WorkerProcess", Message], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Death:
    """The end of one of its lives."""

    how: str
    """In words."""
    lived: float | None
    """Seconds since it was ready; None where it never was."""


class WorkerProcess:
    """It may live several times, one after the other."""

    def __init__(self, number: int, heed: Heed) -> None:
        self.number = number
        """From 1 on."""
        self.running: frozenset[tuple[str, str]] | None = None
        """The names of its models, each with the version that answers; None while it is not ready."""
        self.snapshot: dict[str, Any] = {}
        """What it last told that it has counted."""
        self.problem: list[str] = []
        """What keeps it from starting, and what to do, where it could say so."""
        self._heed = heed
        self._process: Process | None = None
        self._channel: Channel | None = None
        self._drain: bool | None = None
        self._ready_at: float | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def run(self, running: frozenset[tuple[str, str]]) -> None:
        """What it serves from now on. The first time it is ready."""
        if self.running is None:
            self._ready_at = asyncio.get_running_loop().time()
        self.running = running

    async def live(self, orders: Orders) -> Death:
        """Start it, and heed what it says until it is dead."""
        self.problem, self._ready_at = [], None
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "deploy.serving.child", str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), orders.listener),
                # A Ctrl-C is for the parent, which tells all of them how to end.
                start_new_session=True,
            )
        self._channel = channel = await Channel.open(ours)
        channel.send("orders", orders.written())
        if self._drain is not None:
            self.drain(at_once=self._drain)
        while message := await channel.receive():
            await self._heed(self, message)
        self.running, self._channel = None, None
        await channel.close()
        code = await self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return Death(how, None if self._ready_at is None else asyncio.get_running_loop().time() - self._ready_at)

    def send(self, kind: str, value: Any, number: int) -> None:
        if self._channel:
            self._channel.send(kind, value, number)

    def drain(self, *, at_once: bool) -> None:
        """Let it end in order; `at_once` leaves no time for load balancers."""
        self._drain = at_once
        self.send("drain", at_once, 0)

    def kill(self) -> None:
        if self._process:
            with suppress(ProcessLookupError):
                self._process.kill()
