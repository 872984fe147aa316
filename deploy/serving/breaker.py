"""Something that may be away, and is not waited for at each request."""

import logging
import time
from typing import Final

_LEFT_ALONE: Final = 2.0
"""Seconds after a failure until it is tried again."""

logger = logging.getLogger(__name__)


class Breaker:
    """After a failure it is left alone for a while, and then tried by one request at a time until it answers.

    The log tells of the first failure and of the answer that ends them, and of nothing in between.
    """

    def __init__(self, failed: str, answers: str) -> None:
        self.failed = failed
        self.answers = answers
        """What the log says of the two."""
        self._away = False
        self._until = 0.0

    def lets_through(self) -> bool:
        """Whether it may be tried now. Who may must tell how it ended."""
        if not self._away:
            return True
        now = time.monotonic()
        if now < self._until:
            return False
        self._until = now + _LEFT_ALONE
        return True

    def note_failure(self, error: Exception) -> None:
        self._until = time.monotonic() + _LEFT_ALONE
        if not self._away:
            self._away = True
            logger.error("%s (%s: %s)", self.failed, type(error).__name__, error)

    def note_answer(self) -> None:
        if self._away:
            self._away = False
            logger.info("%s", self.answers)
