"""How often each key may ask: token buckets in memory, or in Redis where several servers share them."""

import logging
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from math import ceil, floor
from typing import Any, Final

from tasks.core.errors import MaasflowError

logger = logging.getLogger(__name__)

_BURST_SECONDS: Final = 1.0
"""What a bucket holds, in seconds of its rate."""
_LEASE_SECONDS: Final = 0.02
"""What is taken from a bucket at once and then spent without asking again, in seconds of its rate: the library takes ten
microseconds for an answer and Redis a hundred, of a request that takes fifty.
"""
_MOST: Final = 2**16
"""Buckets in memory; the one that was asked for longest ago makes room."""


class Limits:
    """Buckets by name. They are of throttled-py, as the generic cell rate algorithm, which is a token bucket that keeps one number."""

    def __init__(self, redis: str | None = None) -> None:
        self.redis = redis
        # Here rather than on top, as a server without keys does without; and not at the first request, which would wait for it.
        self._library: Any = import_module("throttled.asyncio" if redis else "throttled")
        self._store = self._shared(redis) if redis else self._library.MemoryStore(options={"MAX_SIZE": _MOST})
        self._buckets: dict[tuple[str, float], Any] = {}
        self._leased: dict[tuple[str, float], int] = {}

    def _shared(self, redis: str) -> Any:
        """Raises MaasflowError where the client for it is not installed, or the address is none."""
        if find_spec("redis") is None:
            raise MaasflowError("--redis takes the client for Redis, which is not installed", "pip install redis")
        try:
            return self._library.RedisStore(server=redis)
        except Exception as error:  # noqa: BLE001 - the library's and the client's errors have no common base
            raise MaasflowError(f"--redis {redis} is no address of a Redis: {error}", "give one as redis://host:6379/0") from None

    async def take(self, name: str, per_second: float, cost: int) -> float:
        """Take from a bucket, or take nothing and say in how many seconds there will be enough.

        More than the bucket holds is taken where it is full, else it would be refused for ever.
        """
        which = (name, per_second)
        left = self._leased.get(which, 0)
        if left >= cost:
            self._leased[which] = left - cost
            return 0.0
        bucket, most = self._bucket(name, per_second)
        for amount in (max(cost, floor(per_second * _LEASE_SECONDS)), cost):
            try:
                found = bucket.limit(cost=min(amount, most))
                if self.redis:
                    found = await found
            except Exception:
                # A Redis that is away must not take the models away too.
                logger.exception("the limits in Redis cannot be asked: this request is not counted")
                return 0.0
            if not found.limited:
                self._leased[which] = max(0, min(amount, most) - cost) + left
                return 0.0
        return float(found.state.retry_after)

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
