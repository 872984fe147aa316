"""The process that started this one, as this one sees it, where several answer on a port."""

import asyncio
from collections.abc import Collection
from itertools import count
from typing import Any, Final

from deploy.serving.calls import Refusal
from deploy.serving.channel import Channel
from deploy.serving.life import Life
from deploy.serving.models import Models
from deploy.serving.tally import Tally

_TOLD_SECONDS: Final = 1.0
"""Between two tellings of what is counted. A process that is killed takes with it what it counted since."""
_PATIENCE: Final = 1.0


class Parent:
    """Keeps what the processes share: what API keys have left, and what each process has counted."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._gone = False
        self._told: dict[str, Any] = {}
        self._told_at = 0.0

    async def heed(self, life: Life) -> None:
        """Take its answers, and drain when it says so. When it dies too: nobody is left to keep this process."""
        while message := await self._channel.receive():
            if message.kind == "drain":
                _drain(life, at_once=message.value)
            elif (asked := self._asked.get(message.number)) and not asked.done():
                asked.set_result(message.value)
        self._gone = True
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(_gone())
        _drain(life, at_once=False)

    def tell_running(self, running: Collection[tuple[str, str]]) -> None:
        """The names of models, each with the version that answers. The first time it says that this process is ready."""
        self._channel.send("running", sorted(running))

    def tick(self, models: Models) -> None:
        """To be called a few times a second: leave a copy of what is counted, where it changed."""
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= _TOLD_SECONDS:
            self._told_at = now
            self._tell(Tally.of(models))

    async def close(self, models: Models) -> None:
        """Leave the last of what was counted."""
        self._tell(Tally.of(models))
        await self._channel.close()

    async def sum(self, tally: Tally) -> Tally:
        """A tally with those of the other processes, the dead too. Raises Refusal (503).

        The parent first takes the copy that was added here, so that no later sum is less.
        """
        snapshot = tally.snapshot()
        try:
            told = await self._ask("tallies", snapshot)
        except (ConnectionError, TimeoutError):
            raise Refusal(503, "the counts of the other processes cannot be had", {"Retry-After": "1"}) from None
        total = Tally(workers=told["workers"], restarts=told["restarts"])
        for each in (snapshot, *told["others"]):
            total.add(each)
        return total

    async def draw(self, name: str, per_second: float, amount: int) -> float:
        """Take so much from a bucket of the parent's, or nothing and say in how many seconds there will be enough.

        Raises ConnectionError, TimeoutError.
        """
        return float(await self._ask("draw", [name, per_second, amount]))

    async def _ask(self, kind: str, value: Any) -> Any:
        if self._gone:
            raise _gone()
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        self._channel.send(kind, value, number)
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._asked[number]
        finally:
            del self._asked[number]

    def _tell(self, tally: Tally) -> None:
        snapshot = tally.snapshot()
        if snapshot != self._told:
            self._told = snapshot
            self._channel.send("tally", snapshot)


async def whole_tally(models: Models, parent: Parent | None) -> Tally:
    """What this process counted, and those beside it. Raises Refusal (503) where these cannot be asked for."""
    tally = Tally.of(models)
    return await parent.sum(tally) if parent else tally


def _drain(life: Life, *, at_once: bool) -> None:
    if not life.draining:
        life.drain(at_once=at_once)


def _gone() -> ConnectionResetError:
    return ConnectionResetError("the parent process is gone")
