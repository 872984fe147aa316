"""Copies of requests: run in pauses alone, one at a time, and never too many."""

import asyncio
from collections import Counter
from threading import Event

from deploy.serving.shadows import Shadows


class Copy:
    """It waits in its thread until it may go on."""

    def __init__(self, found: Counter[str], size: int = 8, *, waits: Event | None = None) -> None:
        self.found = found
        self.size = size
        self.waits = waits
        self.over = False

    def compute(self) -> None:
        self.found["begun"] += 1
        if self.waits:
            self.waits.wait(10)

    def end(self) -> None:
        self.found["ended"] += 1

    def drop(self) -> None:
        self.found["dropped"] += 1


async def until(found: Counter[str], **wanted: int) -> None:
    for _ in range(500):
        if all(found[name] == count for name, count in wanted.items()):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(found)


def test_nothing_is_begun_while_a_client_waits() -> None:
    async def run() -> None:
        found, busy = Counter[str](), [True]
        shadows = Shadows(lambda: busy[0], lambda: 0.0)
        shadows.offer(Copy(found))
        await asyncio.sleep(0.1)
        assert found == {}
        busy[0] = False
        await until(found, ended=1)

    asyncio.run(run())


def test_nothing_is_begun_while_work_is_done_between_two_looks() -> None:
    async def run() -> None:
        found, work, busy = Counter[str](), [0.0], [True]

        def more() -> float:
            work[0] += busy[0]
            return work[0]

        shadows = Shadows(lambda: False, more)
        shadows.offer(Copy(found))
        await asyncio.sleep(0.1)
        assert found == {}
        busy[0] = False
        await until(found, ended=1)

    asyncio.run(run())


def test_one_runs_at_a_time_and_those_beyond_the_limits_are_dropped() -> None:
    async def run() -> None:
        found, waits = Counter[str](), Event()
        shadows = Shadows(lambda: False, lambda: 0.0)
        shadows.offer(Copy(found, waits=waits))
        await until(found, begun=1)
        for _ in range(100):
            shadows.offer(Copy(found))
        assert found == {"begun": 1, "dropped": 36}
        waits.set()
        await until(found, ended=65)
        shadows.offer(Copy(found, 2**30))
        shadows.offer(Copy(found))
        assert found["dropped"] == 37
        await until(found, ended=66)

    asyncio.run(run())


def test_what_nobody_wants_to_know_any_more_is_dropped_while_clients_wait() -> None:
    async def run() -> None:
        found = Counter[str]()
        shadows, copy = Shadows(lambda: True, lambda: 0.0), Copy(found)
        shadows.offer(copy)
        copy.over = True
        await until(found, dropped=1)

    asyncio.run(run())


def test_at_the_end_what_waits_is_dropped_and_what_runs_may_end() -> None:
    async def run() -> None:
        found, waits = Counter[str](), Event()
        shadows = Shadows(lambda: False, lambda: 0.0)
        shadows.offer(Copy(found, waits=waits))
        await until(found, begun=1)
        shadows.offer(Copy(found))
        waits.set()
        await shadows.close()
        assert found == {"begun": 1, "dropped": 1, "ended": 1}

    asyncio.run(run())
