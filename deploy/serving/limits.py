"""How often each key may ask: token buckets in memory, or in Redis where several servers share them."""

from datetime import timedelta
from importlib import import_module
from math import ceil, floor
from typing import Any, Final

_BURST_SECONDS: Final = 1.0
"""What a bucket holds, in seconds of its rate."""
_MOST: Final = 2**16
"""Buckets in memory; the one that was asked for longest ago makes room."""


class Limits:
    """Buckets by name. They are of throttled-py, as the generic cell rate algorithm, which is a token bucket that keeps one number."""

    def __init__(self, redis: str | None = None) -> None:
        self.redis = redis
        self._buckets: dict[tuple[str, float], Any] = {}
        self._store: Any = None

    async def take(self, name: str, per_second: float, cost: int) -> float:
        """Take from a bucket, or take nothing and say in how many seconds there will be enough.

        More than the bucket holds is taken where it is full, else it would be refused for ever.
        """
        bucket, most = self._bucket(name, per_second)
        found = bucket.limit(cost=min(cost, most))
        if self.redis:
            found = await found
        return float(found.state.retry_after) if found.limited else 0.0

    def _bucket(self, name: str, per_second: float) -> tuple[Any, int]:
        most = max(1, floor(per_second * _BURST_SECONDS))
        bucket = self._buckets.get((name, per_second))
        if bucket is None:
            bucket = self._buckets[name, per_second] = self._make(name, per_second, most)
        return bucket, most

    def _make(self, name: str, per_second: float, most: int) -> Any:
        # Only a server with keys that have limits needs it.
        throttled: Any = import_module("throttled.asyncio" if self.redis else "throttled")
        if self._store is None:
            self._store = throttled.RedisStore(server=self.redis) if self.redis else throttled.MemoryStore(options={"MAX_SIZE": _MOST})
        # Whole numbers in whole seconds: a rate below one a second is one in so many.
        seconds = 1 if per_second >= 1 else ceil(1 / per_second)
        quota = throttled.rate_limiter.per_duration(timedelta(seconds=seconds), max(1, round(per_second * seconds)), burst=most)
        return throttled.Throttled(key=f"maasflow.{name}", using="gcra", quota=quota, store=self._store)
