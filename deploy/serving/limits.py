"""How often each key may ask."""

from math import floor
from typing import Final

from deploy.serving.buckets import Buckets

_LEASE_SECONDS: Final = 0.02
"""What is taken from a bucket at once and then spent without asking again, in seconds of its rate: the library takes ten
microseconds for an answer, and Redis or another process a hundred, of a request that takes fifty.
"""


class Limits:
    """Spends what it draws from buckets, which it may share with other servers."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._leased: dict[tuple[str, float], int] = {}

    def spend(self, name: str, per_second: float, cost: int) -> bool:
        """Whether it could be spent of what was taken from the bucket before."""
        left = self._leased.get((name, per_second), 0)
        if left < cost:
            return False
        self._leased[name, per_second] = left - cost
        return True

    async def take(self, name: str, per_second: float, cost: int) -> float:
        """Take from a bucket, or take nothing and say in how many seconds there will be enough."""
        which = (name, per_second)
        amount = max(cost, floor(per_second * _LEASE_SECONDS))
        wait = await self._buckets.draw(name, per_second, amount)
        if wait and amount > cost:
            amount = cost
            wait = await self._buckets.draw(name, per_second, amount)
        if not wait:
            # Others may have come meanwhile.
            self._leased[which] = self._leased.get(which, 0) + amount - cost
        return wait
