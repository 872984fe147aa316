"""One run of one recipe: what it has done so far, and what it found done already."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Self

from flows.summary import Row, Summary
from tasks.core.bundle import DatasetVersion
from tasks.core.stages import Done
from tasks.plan import Plan

if TYPE_CHECKING:
    from tasks.register import RegisterResult
    from tasks.tracking import Tracking


@dataclass(frozen=True)
class Base:
    """What another training left, from which one starts."""

    encoded: Path
    trained: Path


@dataclass
class Job(Plan):
    """A plan, and what this run of it has done so far."""

    force: bool = False
    """Do every stage again."""
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def open(cls, recipe: str, settings: tuple[str, ...] = (), *, root: Path | None = None, force: bool = False) -> Self:
        job = super().open(recipe, settings, root=root)
        job.force = force
        return job

    @cached_property
    def tracking(self) -> "Tracking":
        from tasks.tracking import Tracking

        return Tracking.of(self.workspace)

    def finished(self, version: DatasetVersion) -> Summary | None:
        """The summary of the run that already did all of this, or None."""
        done = self.store.find("run", self.keys(version).release, Summary)
        return done.result if done else None

    def finish(self, version: DatasetVersion, registered: "RegisterResult", alias: str) -> Summary:
        """Write down that all of this run is done, which the next run of the same looks for."""
        summary = Summary(
            rows=tuple(self.rows),
            name=registered.name,
            version=registered.version,
            alias=alias,
            run=registered.run,
            dataset=version.name,
            digest=version.digest,
        )
        return self.store.run("run", self.keys(version).release, Summary, lambda _: summary, force=True).result

    def note(self, stage: str, seconds: float, figure: str, *, cached: bool = False) -> None:
        self.rows.append(Row(stage=stage, cached=cached, seconds=seconds, figure=figure))

    def note_done(self, done: Done) -> None:  # type: ignore[type-arg]
        """Note a stage of the store; a cached one took no time in this run."""
        self.note(done.stage, 0.0 if done.cached else done.seconds, done.result.figure, cached=done.cached)

    def note_base(self) -> None:
        """Note what was done for the base, which stands in the summary before this job's own stages."""
        assert self.base
        self.rows += [row.model_copy(update={"stage": f"{self.base.recipe_name} {row.stage}"}) for row in self.base.rows]

    @contextmanager
    def timed(self, stage: str) -> Iterator[list[str]]:
        """Note a stage that is not kept in the store: how long the block took, and what it appends as its figure."""
        start = perf_counter()
        figure: list[str] = []
        yield figure
        self.note(stage, perf_counter() - start, " ".join(figure))
