"""Every model that is served, following the pointers that the deployer writes.

<served>/<model>/current.json   {"version": "3"}, replaced as a whole; see `tasks.core.served` for one with a challenger
<served>/<model>/<version>/     a bundle, complete before any pointer names it
"""

import ctypes
import gc
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from deploy.serving.challengers import Challengers
from deploy.serving.entry import Entry, Stamp, pause_after
from deploy.serving.model import LoadError, Model
from deploy.serving.shadows import Shadows
from deploy.serving.workers import Workers
from tasks.core.served import Problem, problem_in, problems_below

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")

logger = logging.getLogger(__name__)


class Models(Mapping[str, Entry]):
    """The served models by name. Read by the event loop while `refresh` runs in a thread: entries are only ever replaced."""

    def __init__(self, served: Path, workers: Workers, clock: Callable[[], float] = time.monotonic) -> None:
        self.served = served
        self.workers = workers
        self.loaded = False
        """Whether every pointer has been looked at once."""
        self.shadows = Shadows(self._busy, self._work)
        self._challengers = Challengers(served, workers, self.shadows)
        self.undelivered: dict[str, Problem] = {}
        """What the deployer could not bring here, by model."""
        self.registry: Problem | None = None
        """What keeps it from bringing any."""
        self._entries: dict[str, Entry] = {}
        self._clock = clock

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def running(self) -> list[Model]:
        """The models that answer, by name."""
        entries = self._entries
        return [entry.model for _, entry in sorted(entries.items()) if entry.model]

    def problems(self) -> dict[str, str]:
        """By model, why its newest version is not served: as it could not be brought here, or not be loaded."""
        names = sorted({*self._entries, *self.undelivered})
        return {name: problem for name in names if (problem := self.problem(name))}

    def problem(self, name: str) -> str:
        """The same of one model; nothing where there is none."""
        entry, undelivered = self._entries.get(name), self.undelivered.get(name)
        return "; ".join(filter(None, (entry.problem if entry else "", undelivered.what if undelivered else "")))

    def refresh(self) -> None:
        """Load what a pointer newly names, drop what none names; a version that cannot be loaded leaves the old one serving.

        A failed version is tried again when its pointer is written again, and after ever longer pauses: what failed for want of memory,
        or of a network's disk, comes by itself.
        """
        self.undelivered, self.registry = problems_below(self.served), problem_in(self.served)
        before = self._versions()
        self._renew_challengers(self._renew())
        if before - self._versions():
            _give_back_memory()

    def _renew(self) -> dict[str, Mapping[str, Model]]:
        """Follow the pointers to champions; where that was done, by name, the versions that were loaded before."""
        stamps, changed = self._stamps(), dict[str, Mapping[str, Model]]()
        for name in self._entries.keys() - stamps.keys():
            logger.info("%s: its pointer is gone, no longer served", name)
            if contest := self._entries[name].contest:
                contest.over = True
            self._entries = {key: entry for key, entry in self._entries.items() if key != name}
        for name, stamp in sorted(stamps.items()):
            old = self._entries.get(name)
            if old is None or old.stamp != stamp or (old.problem and self._clock() >= old.again):
                new = self._follow(name, stamp, old)
                if old and new.model is old.model:
                    new = replace(new, contest=old.contest, challenger_problem=old.challenger_problem)
                elif old and old.contest:
                    old.contest.over = True
                self._entries = {**self._entries, name: new}
                changed[name] = old.models if old else {}
        if not self.loaded:
            # What is there now stays: to look through it for garbage at each swap would hold up all requests for 10 ms.
            gc.freeze()
        # No champion waits for a challenger.
        self.loaded = True
        return changed

    def _renew_challengers(self, changed: Mapping[str, Mapping[str, Model]]) -> None:
        now = self._clock()
        for name, entry in self._entries.items():
            if name in changed or (entry.challenger_problem and now >= entry.challenger_again):
                new = self._challengers.follow(name, entry, changed.get(name, {}), now)
                self._entries = {**self._entries, name: new}

    def _stamps(self) -> dict[str, Stamp]:
        try:
            folders = [folder for folder in self.served.iterdir() if not folder.name.startswith(".")]
        except FileNotFoundError:
            return {}
        stamps = {}
        for folder in folders:
            try:
                stat = (folder / "current.json").stat()
                stamps[folder.name] = (stat.st_mtime_ns, stat.st_ino)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                # Reading it will fail too, and say why of this model alone.
                stamps[folder.name] = (0, 0)
        return stamps

    def _follow(self, name: str, stamp: Stamp, before: Entry | None) -> Entry:
        old = before.model if before else None
        try:
            version = self._version(name)
            if old and old.version == version:
                return Entry(stamp, old)
            known = before.models.get(version) if before else None
            model = known or Model.load(self.served / name / version, name, version, self.workers)
        except LoadError as error:
            return self._failed(name, stamp, before, error)
        self.workers.metrics.of(name).reloads["loaded"] += 1
        logger.info("%s: serving version %s%s", name, version, f", was {old.version}" if old else "")
        return Entry(stamp, model)

    def _failed(self, name: str, stamp: Stamp, before: Entry | None, error: LoadError) -> Entry:
        """What goes on. The same problem is told of once."""
        old = before.model if before else None
        failures = before.failures if before and before.stamp == stamp else 0
        if not (failures and before and before.problem == error.what):
            kept = f"; version {old.version} goes on" if old else ""
            logger.error("%s: %s%s (%s)", name, error.what, kept, error.__cause__ or "look at its folder")
        self.workers.metrics.of(name).reloads["failed"] += 1
        return Entry(stamp, old, error.what, failures + 1, self._clock() + pause_after(failures))

    def _versions(self) -> set[tuple[str, str]]:
        """All that are loaded."""
        return {(name, version) for name, entry in self._entries.items() for version in entry.models}

    def _busy(self) -> bool:
        """Whether any model is asked right now."""
        return any(model.batcher.busy for entry in self._entries.values() for model in entry.models.values())

    def _work(self) -> float:
        """Rows that were computed for clients so far."""
        return sum(metrics.batches.total for metrics in list(self.workers.metrics.models.values()))

    def _version(self, name: str) -> str:
        """The version that a pointer names. Raises LoadError."""
        if not _NAME.fullmatch(name):
            raise LoadError("a model's name has letters, digits, '.', '_' and '-' only, and at most 80")
        try:
            version = json.loads((self.served / name / "current.json").read_bytes())["version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LoadError('its pointer cannot be read: expected {"version": "<version>"}') from error
        if not isinstance(version, str) or not _NAME.fullmatch(version):
            raise LoadError("its pointer names no version: expected a text of letters, digits, '.', '_' and '-'")
        return version


def _give_back_memory() -> None:
    """What the version before took: without this, glibc keeps much of it for allocations of other sizes."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
