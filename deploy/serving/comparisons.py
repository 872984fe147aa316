"""What is found out about champions and their challengers, kept where a review finds it."""

import asyncio
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from deploy.serving.metrics import Histogram, Metrics
from tasks.core.comparison import Comparison, Seconds, Tally, comparison_file

_PAUSE: Final = 2.0
"""Seconds between two times that files are written."""

logger = logging.getLogger(__name__)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Side:
    """What is counted of one of the two versions; see `tasks.core.comparison.Tally`."""

    role: Literal["champion", "challenger"]
    version: str
    counts: Counter[str]
    """Of both."""
    seconds: Histogram

    def count(self, what: Literal["requests", "failures"]) -> None:
        self.counts[f"{self.role} {what}"] += 1

    @property
    def requests(self) -> int:
        return self.counts[f"{self.role} requests"]

    @property
    def failures(self) -> int:
        return self.counts[f"{self.role} failures"]

    def told(self) -> Tally:
        seconds = Seconds(bounds=self.seconds.bounds, counts=tuple(self.seconds.counts), total=self.seconds.total)
        return Tally(version=self.version, requests=self.requests, failures=self.failures, seconds=seconds)


class Record:
    """What is counted of a champion and its challenger: `rows`, `agreed` and `dropped` of both, beside what each side counts."""

    def __init__(self, model: str, pair: str, counted: Mapping[str, Any]) -> None:
        champion, challenger = pair.split()
        self.model = model
        self.counts: Counter[str] = counted["counts"]
        self.champion = Side("champion", champion, self.counts, counted["champion"])
        self.challenger = Side("challenger", challenger, self.counts, counted["challenger"])
        self.since = _now()

    def told(self) -> Comparison:
        return Comparison(
            model=self.model,
            champion=self.champion.told(),
            challenger=self.challenger.told(),
            rows=self.counts["rows"],
            agreed=self.counts["agreed"],
            dropped=self.counts["dropped"],
            since=self.since,
            until=_now(),
        )


class Comparisons:
    """A record for each two versions that were served side by side, written to a file each. What cannot be written is told of once."""

    def __init__(self, folder: Path | None, metrics: Metrics) -> None:
        self.folder = folder
        self.metrics = metrics
        """Where all is counted."""
        self._records: dict[tuple[str, str], Record] = {}
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._written: dict[tuple[str, str], Counter[str]] = {}
        self._next = 0.0
        self._writing: asyncio.Task[None] | None = None
        self._told = False

    def of(self, model: str, champion: str, challenger: str) -> Record:
        """The one record of these two versions."""
        pair = f"{champion} {challenger}"
        record = self._records.get((model, pair))
        if record is None:
            record = self._records[model, pair] = Record(model, pair, self.metrics.of(model).pairs[pair])
        return record

    def tick(self) -> None:
        """To be called a few times a second: begin to write what changed."""
        now = time.monotonic()
        if self.folder and self._records and now >= self._next and (self._writing is None or self._writing.done()):
            self._next = now + _PAUSE
            if changed := self._changed():
                self._writing = asyncio.create_task(asyncio.to_thread(self._write, self.folder, changed))

    async def close(self) -> None:
        """Write what is left."""
        if self._writing:
            await self._writing
        if self.folder and (changed := self._changed()):
            await asyncio.to_thread(self._write, self.folder, changed)

    def _changed(self) -> Sequence[Comparison]:
        """What was counted since it was last written."""
        found = []
        for key, record in list(self._records.items()):
            if self._written.get(key, Counter()) != record.counts:
                self._written[key] = record.counts.copy()
                found.append(record.told())
        return found

    def _write(self, folder: Path, comparisons: Sequence[Comparison]) -> None:
        try:
            for comparison in comparisons:
                _replace(comparison_file(folder, comparison, self._process), comparison.model_dump_json())
        except OSError as error:
            # What was counted is in memory yet: the next try writes all of it.
            self._written.clear()
            if not self._told:
                logger.warning("comparisons cannot be written to %s, answers go on: %s", folder, error)
            self._told = True
        else:
            self._told = False


def _replace(path: Path, text: str) -> None:
    """Not synchronized to the disk, unlike a pointer: a crash may take the last seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(text)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
