"""Whether the server is starting, serving or draining, and what is in flight."""

import time
from dataclasses import dataclass

from deploy.serving.settings import Settings


@dataclass
class Life:
    """The state that health, the signal handlers and the end of the process share."""

    settings: Settings
    in_flight: int = 0
    """Requests that are being read, worked on or answered."""
    _draining_since: float | None = None

    @property
    def draining(self) -> bool:
        return self._draining_since is not None

    def drain(self, *, at_once: bool = False) -> None:
        """From now on the server is not ready; `at_once` leaves no time for load balancers to see it."""
        self._draining_since = time.monotonic() - (self.settings.drain if at_once else 0.0)

    def drained(self) -> bool:
        """Whether the process may end."""
        if self._draining_since is None:
            return False
        waited = time.monotonic() - self._draining_since
        return waited >= self.settings.grace or (self.in_flight == 0 and waited >= self.settings.drain)
