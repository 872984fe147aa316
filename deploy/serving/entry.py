"""What became of one pointer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from deploy.serving.contest import Contest
from deploy.serving.model import Model

_LONGEST_PAUSE: Final = 60.0
"""Seconds between two tries of a version that cannot be loaded; the first pause is of one, and each is twice the one before it."""

Stamp = tuple[int, int]
"""Time of change and inode of a pointer: a pointer that was replaced differs in one of them."""


@dataclass(frozen=True)
class Entry:
    """What became of one pointer: the model that answers, and why the one that the pointer names does not."""

    stamp: Stamp
    model: Model | None = None
    problem: str = ""
    """Safe to send to a client."""
    failures: int = 0
    """Tries in a row, since the pointer was written."""
    again: float = 0.0
    """When to try once more where there is a problem, on the clock of `Models`."""
    contest: Contest | None = None
    """Where a challenger gets some of the requests."""
    challenger_problem: str = ""
    """Why the challenger that the pointer names gets none; safe to send to a client too."""
    challenger_failures: int = 0
    challenger_again: float = 0.0

    @property
    def models(self) -> Mapping[str, Model]:
        """Those that answer, by version, the champion first."""
        if self.contest:
            return self.contest.models
        return {self.model.version: self.model} if self.model else {}


def pause_after(failures: int) -> float:
    """Seconds until the next try, after so many in a row and one more."""
    return min(2.0 ** min(failures, 6), _LONGEST_PAUSE)
