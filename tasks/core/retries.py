"""What failed lately, and when it is tried again: after each failure twice as long as before, to a limit."""

import time
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(frozen=True)
class Failure:
    """The last one of a row."""

    why: str
    tries: int
    """Failures in that row."""
    until: float
    """No other try before, by the clock."""


class Retries(Generic[KeyT]):
    """Failures by what failed. Kept in memory alone, as a process that begins anew may well find another world."""

    def __init__(self, first: float = 2.0, most: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.first = first
        self.most = most
        self._clock = clock
        self._failures: dict[KeyT, Failure] = {}

    def rests(self, key: KeyT) -> bool:
        """Whether it is too early for another try."""
        failure = self._failures.get(key)
        return failure is not None and self._clock() < failure.until

    def failed(self, key: KeyT, why: str) -> tuple[Failure, bool]:
        """Count a failure; it, and whether it is news, as it was not the reason of the last one."""
        before = self._failures.get(key)
        tries = before.tries + 1 if before else 1
        # The exponent is bounded, because a float is: something may fail for weeks.
        rest = min(self.most, self.first * 2.0 ** min(tries - 1, 30))
        failure = self._failures[key] = Failure(why, tries, self._clock() + rest)
        return failure, before is None or before.why != why

    def keep(self, keys: Collection[KeyT]) -> None:
        """Forget the failures of all others: they healed, or are wanted no longer."""
        self._failures = {key: failure for key, failure in self._failures.items() if key in keys}
