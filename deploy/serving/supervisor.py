"""The process that starts several to answer on one port, and keeps them alive."""

import asyncio
import logging
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from deploy.serving.announcement import announce
from deploy.serving.buckets import MemoryBuckets
from deploy.serving.channel import Message
from deploy.serving.metrics import Metrics
from deploy.serving.orders import Orders
from deploy.serving.settings import Settings
from deploy.serving.worker_process import Death, WorkerProcess
from tasks.core.errors import MaasflowError

_EARLY: Final = 10.0
"""Seconds: who dies sooner after it was ready is started again later each time."""
_FIRST: Final = 0.5
"""Seconds until then, the first of these times; twice as many the next."""
_LONGEST: Final = 30.0
_MOST_FAILURES: Final = 5
"""Starts of a process that failed one after the other, after which a server of which none is left gives up."""
_MARGIN: Final = 5.0
"""Seconds for which the end of a process may take longer than its grace."""

logger = logging.getLogger(__name__)


class Supervisor:
    """Answers nothing itself: what could go wrong with a request or a model goes wrong in another process.

    It keeps the socket open on which they listen, so that a connection that waits to be accepted outlives the death of a process; the
    buckets of API keys, so that a key has its limits once; and what dead processes had counted, so that no count falls.
    """

    def __init__(self, listener: socket.socket, served: Path, settings: Settings, address: str, grpc: str) -> None:
        self._listener = listener
        self._served = served
        self._settings = settings
        self._address = address
        self._grpc = grpc
        self._workers = [WorkerProcess(number, self._heed) for number in range(1, settings.processes + 1)]
        self._buckets = MemoryBuckets() if settings.keys and not settings.redis else None
        self._past = Metrics()
        """What was counted by processes that died."""
        self._restarts = 0
        self._told: frozenset[tuple[str, str]] | None = None
        """What was announced; None until all were ready once."""
        self._ending = asyncio.Event()
        self._exit_code = 0

    async def run(self) -> int:
        """Until a signal, and until every process has ended; the exit code. Raises MaasflowError where they cannot be started."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        keeping = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
        done, _ = await asyncio.wait(keeping, return_when=asyncio.FIRST_EXCEPTION)
        problem = next((task.exception() for task in done if task.exception()), None)
        if problem:
            self._drain(at_once=True)
            self._kill()
            # All of them, as what is raised by two at once would be logged as never looked at.
            await asyncio.gather(*keeping, return_exceptions=True)
            raise problem
        return self._exit_code

    async def _keep(self, worker: WorkerProcess) -> None:
        """Start it, and again whenever it dies: at once, but later each time where it dies early. Raises MaasflowError."""
        early = 0
        while not self._ending.is_set():
            death = await worker.live(self._orders(worker))
            if self._ending.is_set():
                return
            early = 1 if death.lived is not None and death.lived >= _EARLY else early + 1
            self._bury(worker, death, early)
            self._restarts += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_FIRST * 2 ** (early - 2), _LONGEST) if early > 1 else 0.0):
                    await self._ending.wait()

    def _bury(self, worker: WorkerProcess, death: Death, early: int) -> None:
        """Keep what it counted, and say that it died. Raises MaasflowError where another would die too."""
        self._past.add(worker.snapshot.get("counted", {}))
        worker.snapshot = {}
        if death.lived is not None:
            logger.warning("worker %d (process %d) %s: another is started", worker.number, worker.pid, death.how)
            return
        what, do = worker.problem or [f"worker {worker.number} {death.how} before it was ready", "its log, above this, may say why"]
        if self._told is None or (early >= _MOST_FAILURES and not self._living()):
            raise MaasflowError(what, do)
        logger.error("worker %d (process %d) cannot start, and is tried again: %s", worker.number, worker.pid, what)

    def _orders(self, worker: WorkerProcess) -> Orders:
        return Orders(
            number=worker.number,
            listener=self._listener.fileno(),
            served=self._served,
            settings=self._settings,
            log_level=logger.getEffectiveLevel(),
        )

    def _living(self) -> int:
        return sum(worker.running is not None for worker in self._workers)

    async def _heed(self, worker: WorkerProcess, message: Message) -> None:
        """What a process says."""
        match message.kind:
            case "running":
                worker.run(frozenset((name, version) for name, version in message.value))
                self._announce()
            case "tally":
                worker.snapshot = message.value
            case "tallies":
                worker.snapshot = message.value
                worker.send("answer", self._tallies(worker), message.number)
            case "draw" if self._buckets:
                worker.send("answer", await self._buckets.draw(*message.value), message.number)
            case "failed":
                worker.problem = message.value

    def _announce(self) -> None:
        """Once all are ready, and whenever all that are alive serve something else than before."""
        running = {worker.running for worker in self._workers if worker.running is not None or self._told is None}
        if len(running) == 1 and (found := running.pop()) is not None and found != self._told:
            self._told = found
            announce(found, self._served, self._address, self._grpc)

    def _tallies(self, worker: WorkerProcess) -> dict[str, Any]:
        """For one of the processes, what all others told, and the dead."""
        others = [other.snapshot for other in self._workers if other is not worker and other.snapshot]
        return {"others": [{"counted": self._past.snapshot()}, *others], "workers": self._living(), "restarts": self._restarts}

    def _end(self, number: signal.Signals) -> None:
        """SIGTERM drains, Ctrl-C leaves no time for load balancers; a second signal ends all at once."""
        if self._ending.is_set():
            self._kill()
            os._exit(128 + number)
        interrupted = number == signal.SIGINT
        self._exit_code = 128 + number if interrupted else 0
        self._drain(at_once=interrupted)

    def _drain(self, *, at_once: bool) -> None:
        self._ending.set()
        for worker in self._workers:
            worker.drain(at_once=at_once)
        asyncio.get_running_loop().call_later(self._settings.grace + _MARGIN, self._kill)

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()
