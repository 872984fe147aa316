"""How often each key may ask: token buckets in memory, or in Redis where several servers share them."""

import asyncio
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from math import ceil, floor
from typing import Any, Final

from deploy.serving.breaker import Breaker
from tasks.core.errors import MaasflowError

_BURST_SECONDS: Final = 1.0
"""What a bucket holds, in seconds of its rate."""
_LEASE_SECONDS: Final = 0.02
"""What is taken from a bucket at once and then spent without asking again, in seconds of its rate: the library takes ten
microseconds for an answer and Redis a hundred, of a request that takes fifty.
"""
_MOST: Final = 2**16
"""Buckets in memory; the one that was asked for longest ago makes room."""
_PATIENCE: Final = 0.25
"""Seconds for which Redis is waited for; then a request is not counted."""


class Limits:
    """Buckets by name. They are of throttled-py, as the generic cell rate algorithm, which is a token bucket that keeps one number."""

    def __init__(self, redis: str | None = None) -> None:
        self.redis = redis
        # Here rather than on top, as a server without keys does without; and not at the first request, which would wait for it.
        self._library: Any = import_module("throttled.asyncio" if redis else "throttled")
        self._store = self._shared(redis) if redis else self._library.MemoryStore(options={"MAX_SIZE": _MOST})
        self._buckets: dict[tuple[str, float], Any] = {}
        self._leased: dict[tuple[str, float], int] = {}
        self._breaker = Breaker(
            "the limits in Redis cannot be asked: requests are not counted until it is back", "Redis is back: requests are counted again"
        )

    def _shared(self, redis: str) -> Any:
        """Raises MaasflowError where the client for it is not installed, or the address is none."""
        if find_spec("redis") is None:
            raise MaasflowError("--redis takes the client for Redis, which is not installed", "pip install redis")
        try:
            return self._library.RedisStore(server=redis)
        except Exception as error:  # noqa: BLE001 - the library's and the client's errors have no common base
            raise MaasflowError(f"--redis {redis} is no address of a Redis: {error}", "give one as redis://host:6379/0") from None

    def spend(self, name: str, per_second: float, cost: int) -> bool:
        """Whether it could be spent of what was taken from the bucket before."""
        left = self._leased.get((name, per_second), 0)
        if left < cost:
            return False
        self._leased[name, per_second] = left - cost
        return True

    async def take(self, name: str, per_second: float, cost: int) -> float:
        """Take from a bucket, or take nothing and say in how many seconds there will be enough.

        More than the bucket holds is taken where it is full, else it would be refused for ever.
        """
        which = (name, per_second)
        bucket, most = self._bucket(name, per_second)
        for amount in (max(cost, floor(per_second * _LEASE_SECONDS)), cost):
            taken = min(amount, most)
            found = await self._ask_redis(bucket, taken) if self.redis else bucket.limit(cost=taken)
            if found is None:
                return 0.0
            if not found.limited:
                # Others may have come meanwhile.
                self._leased[which] = self._leased.get(which, 0) + max(0, taken - cost)
                return 0.0
        return float(found.state.retry_after)

    async def _ask_redis(self, bucket: Any, cost: int) -> Any:
        """Its answer; None where it is away, which must not take the models away too."""
        if not self._breaker.lets_through():
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                found = await bucket.limit(cost=cost)
        except Exception as error:  # noqa: BLE001 - the library's and the client's errors have no common base
            self._breaker.note_failure(error)
            return None
        self._breaker.note_answer()
        return found

    def _bucket(self, name: str, per_second: float) -> tuple[Any, int]:
        most = max(1, floor(per_second * _BURST_SECONDS))
        bucket = self._buckets.get((name, per_second))
        if bucket is None:
            bucket = self._buckets[name, per_second] = self._make(name, per_second, most)
        return bucket, most

    def _make(self, name: str, per_second: float, most: int) -> Any:
        throttled = self._library
        # Whole numbers in whole seconds: a rate below one a second is one in so many.
        seconds = 1 if per_second >= 1 else ceil(1 / per_second)
        quota = throttled.rate_limiter.per_duration(timedelta(seconds=seconds), max(1, round(per_second * seconds)), burst=most)
        return throttled.Throttled(key=f"maasflow.{name}", using="gcra", quota=quota, store=self._store)
