"""Whether the server is starting, serving or draining."""

import time
from dataclasses import dataclass

from deploy.serving.settings import Settings


@dataclass
class Life:
    """The state that health, the signal handlers and the end of the process share."""

    settings: Settings
    exit_code: int = 0
    _draining_since: float | None = None

    @property
    def draining(self) -> bool:
        return self._draining_since is not None

    def drain(self, *, at_once: bool = False) -> None:
        """From now on the server is not ready; `at_once` leaves no time for load balancers to see it."""
        self._draining_since = time.monotonic() - (self.settings.drain if at_once else 0.0)

    @property
    def closing(self) -> bool:
        """Whether load balancers had their time to see it."""
        return self._draining_since is not None and time.monotonic() - self._draining_since >= self.settings.drain

    def drained(self, *, busy: bool) -> bool:
        """Whether the process may end, where some connection is `busy` or none."""
        if self._draining_since is None:
            return False
        waited = time.monotonic() - self._draining_since
        return waited >= self.settings.grace or (not busy and waited >= self.settings.drain)
