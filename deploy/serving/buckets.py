"""Token buckets: in memory, or elsewhere where several servers share them.

They are of throttled-py, as the generic cell rate algorithm, which is a token bucket that keeps one number.
"""

import asyncio
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from math import ceil, floor
from typing import Any, Final, Protocol

from deploy.serving.breaker import Breaker
from tasks.core.errors import MaasflowError

_BURST_SECONDS: Final = 1.0
"""What a bucket holds, in seconds of its rate."""
_MOST: Final = 2**16
"""Buckets in memory; the one that was asked for longest ago makes room."""
_PATIENCE: Final = 0.25
"""Seconds for which buckets elsewhere are waited for; then a request is not counted."""


class Buckets(Protocol):
    """Buckets by name."""

    async def draw(self, name: str, per_second: float, amount: int) -> float:
        """Take so much from a bucket, or take nothing and say in how many seconds there will be enough.

        More than the bucket holds is taken where it is full, else it would be refused for ever.
        """


class _Throttled:
    """The library's objects."""

    def __init__(self, library: Any, store: Any) -> None:
        self._library = library
        self._store = store
        self._buckets: dict[tuple[str, float], Any] = {}

    def _bucket(self, name: str, per_second: float) -> tuple[Any, int]:
        """And what it holds."""
        most = max(1, floor(per_second * _BURST_SECONDS))
        bucket = self._buckets.get((name, per_second))
        if bucket is None:
            bucket = self._buckets[name, per_second] = self._make(name, per_second, most)
        return bucket, most

    def _make(self, name: str, per_second: float, most: int) -> Any:
        # Whole numbers in whole seconds: a rate below one a second is one in so many.
        seconds = 1 if per_second >= 1 else ceil(1 / per_second)
        quota = self._library.rate_limiter.per_duration(timedelta(seconds=seconds), max(1, round(per_second * seconds)), burst=most)
        return self._library.Throttled(key=f"maasflow.{name}", using="gcra", quota=quota, store=self._store)


class MemoryBuckets(_Throttled):
    """Those of this process."""

    def __init__(self) -> None:
        # Here rather than on top, as a server without keys does without; and not at the first request, which would wait for it.
        library = import_module("throttled")
        super().__init__(library, library.MemoryStore(options={"MAX_SIZE": _MOST}))

    async def draw(self, name: str, per_second: float, amount: int) -> float:
        bucket, most = self._bucket(name, per_second)
        return _wait(bucket.limit(cost=min(amount, most)))


class RedisBuckets(_Throttled):
    """Those in a Redis."""

    def __init__(self, redis: str) -> None:
        """Raises MaasflowError where the client for it is not installed, or the address is none."""
        if find_spec("redis") is None:
            raise MaasflowError("--redis takes the client for Redis, which is not installed", "pip install redis")
        library = import_module("throttled.asyncio")
        try:
            super().__init__(library, library.RedisStore(server=redis))
        except Exception as error:  # noqa: BLE001 - the library's and the client's errors have no common base
            raise MaasflowError(f"--redis {redis} is no address of a Redis: {error}", "give one as redis://host:6379/0") from None

    async def draw(self, name: str, per_second: float, amount: int) -> float:
        bucket, most = self._bucket(name, per_second)
        return _wait(await bucket.limit(cost=min(amount, most)))


class BucketsElsewhere:
    """Buckets that may be away, which must not take the models away too: then nothing is counted."""

    def __init__(self, buckets: Buckets, where: str) -> None:
        self._buckets = buckets
        self._breaker = Breaker(
            f"the limits in {where} cannot be asked: requests are not counted until it is back",
            f"{where} is back: requests are counted again",
        )

    async def draw(self, name: str, per_second: float, amount: int) -> float:
        if not self._breaker.lets_through():
            return 0.0
        try:
            async with asyncio.timeout(_PATIENCE):
                wait = await self._buckets.draw(name, per_second, amount)
        except Exception as error:  # noqa: BLE001 - the library's and the client's errors have no common base
            self._breaker.note_failure(error)
            return 0.0
        self._breaker.note_answer()
        return wait


def _wait(found: Any) -> float:
    return float(found.state.retry_after) if found.limited else 0.0
