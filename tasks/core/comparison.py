"""What a server found out about a champion and its challenger, for whoever reviews the challenger.

<folder>/<model>/<champion>-<challenger>-<process>.json, of each server process its own, replaced as a whole every few seconds.
"""

import glob
from functools import reduce
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from tasks.core.config import Config
from tasks.core.errors import ConfigError


class Seconds(Config):
    """How long one of the two took to compute the requests that were compared, as a histogram."""

    bounds: tuple[float, ...]
    """Upper bounds of the bins; what took longer than the last of them is in one bin more."""
    counts: tuple[int, ...]
    total: float

    @property
    def mean(self) -> float | None:
        count = sum(self.counts)
        return self.total / count if count else None

    def plus(self, other: "Seconds") -> "Seconds":
        """Both together. Raises ConfigError where their bins differ."""
        if self.bounds != other.bounds:
            raise ConfigError(
                "histograms with other bounds cannot be added", "remove the files of servers that ran another version of maasflow"
            )
        counts = tuple(one + another for one, another in zip(self.counts, other.counts, strict=True))
        return Seconds(bounds=self.bounds, counts=counts, total=self.total + other.total)


class Tally(Config):
    """One of the two versions."""

    version: str
    requests: int
    """That it answered, or refused."""
    failures: int
    """Requests that it should have answered and could not, in the shadow too. Where the challenger fails, the champion answers instead."""
    seconds: Seconds

    def plus(self, other: "Tally") -> "Tally":
        return Tally(
            version=self.version,
            requests=self.requests + other.requests,
            failures=self.failures + other.failures,
            seconds=self.seconds.plus(other.seconds),
        )


class Comparison(Config):
    """A champion and its challenger on the same rows."""

    format: Literal[1] = 1
    model: str
    champion: Tally
    challenger: Tally
    rows: int
    """That both computed."""
    agreed: int
    """Of these, where both gave the same label."""
    dropped: int
    """Requests of which no copy was run: the server had no time, or the copy waited too long behind others."""
    since: str
    """When the first of it was counted, and the last; ISO 8601, in UTC."""
    until: str

    @property
    def agreement(self) -> float | None:
        """The share of rows on which both agree; None where none was compared."""
        return self.agreed / self.rows if self.rows else None

    def plus(self, other: "Comparison") -> "Comparison":
        """What two servers found out about the same two versions."""
        return Comparison(
            model=self.model,
            champion=self.champion.plus(other.champion),
            challenger=self.challenger.plus(other.challenger),
            rows=self.rows + other.rows,
            agreed=self.agreed + other.agreed,
            dropped=self.dropped + other.dropped,
            since=min(self.since, other.since),
            until=max(self.until, other.until),
        )


def comparison_file(folder: Path, comparison: Comparison, process: str) -> Path:
    """Where a process writes what it found."""
    return folder / comparison.model / f"{comparison.champion.version}-{comparison.challenger.version}-{process}.json"


def read_comparison(folder: Path, model: str, champion: str, challenger: str) -> Comparison | None:
    """What all processes found together, those that ended too; None where none has. Raises ConfigError for a file that is no comparison."""
    pattern = f"{glob.escape(champion)}-{glob.escape(challenger)}-*.json"
    found = [_read(path) for path in sorted((folder / model).glob(pattern))]
    # Versions may have a hyphen too, so that the name alone does not say which they are.
    both = [each for each in found if (each.champion.version, each.challenger.version) == (champion, challenger)]
    return reduce(Comparison.plus, both) if both else None


def _read(path: Path) -> Comparison:
    try:
        return Comparison.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise ConfigError(f"{path} is no comparison that this version of maasflow reads", "remove it: what it counted is lost") from None
