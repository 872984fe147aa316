"""From a pointer that names a challenger to the two versions that are served side by side."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from math import inf
from pathlib import Path

from deploy.serving.contest import Contest
from deploy.serving.entry import Entry, pause_after
from deploy.serving.model import LoadError, Model
from deploy.serving.shadows import Shadows
from deploy.serving.workers import Workers
from tasks.core.errors import ConfigError
from tasks.core.served import PointedChallenger, challenger_at

logger = logging.getLogger(__name__)


class Challengers:
    """Loads them, unless they are known. One that cannot be loaded leaves its champion alone, and is told of once."""

    def __init__(self, served: Path, workers: Workers, shadows: Shadows) -> None:
        self.served = served
        self.workers = workers
        self.shadows = shadows

    def follow(self, name: str, entry: Entry, known: Mapping[str, Model], now: float) -> Entry:
        """The entry with the challenger that the pointer names; `known` are versions that are loaded already."""
        if entry.model is None:
            return entry
        contest, again = None, inf
        try:
            pointed = challenger_at(self.served / name)
            if pointed and pointed.problem:
                raise ConfigError(f"version {pointed.version} gets no requests: {pointed.problem}")
            if pointed and pointed.version != entry.model.version:
                contest = self._contest(entry.model, pointed, known)
        except (LoadError, ConfigError) as error:
            if isinstance(error, LoadError):
                again = now + pause_after(entry.challenger_failures)
            entry = self._failed(name, entry, error)
        else:
            entry = replace(entry, challenger_problem="", challenger_failures=0)
        if entry.contest and entry.contest is not contest:
            entry.contest.over = True
        return replace(entry, contest=contest, challenger_again=again)

    def _failed(self, name: str, entry: Entry, error: LoadError | ConfigError) -> Entry:
        if entry.challenger_problem != error.what:
            logger.error("%s: its challenger: %s (%s)", name, error.what, error.__cause__ or "look at its folder")
        self.workers.metrics.of(name).reloads["challenger failed"] += 1
        return replace(entry, challenger_problem=error.what, challenger_failures=entry.challenger_failures + 1)

    def _contest(self, champion: Model, pointed: PointedChallenger, known: Mapping[str, Model]) -> Contest:
        """Of the two. Raises LoadError."""
        name, version = champion.name, pointed.version
        challenger = known.get(version)
        if challenger is None:
            challenger = Model.load(self.served / name / version, name, version, self.workers)
            self.workers.metrics.of(name).reloads["challenger loaded"] += 1
        if challenger.manifest.task != champion.manifest.task:
            raise LoadError(f"version {version} is for {challenger.manifest.task}, version {champion.version} for another task")
        record = self.workers.comparisons.of(name, champion.version, version)
        logger.info("%s: beside version %s, version %s gets %s", name, champion.version, version, pointed.words)
        return Contest(champion, challenger, pointed, record, self.shadows)
