"""One run of one recipe: what it needs, and the digests under which its stages lie."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from flows.summary import Row, Summary
from tasks.core.bundle import DatasetVersion
from tasks.core.dataset import Dataset
from tasks.core.machine import this_machine
from tasks.core.recipe import Recipe
from tasks.core.stages import Done, StageStore, code_key, content_key
from tasks.core.workspace import Workspace

if TYPE_CHECKING:
    from tasks.register import RegisterResult
    from tasks.tracking import Tracking


@dataclass(frozen=True)
class Keys:
    """The digest of everything that each stage's result depends on; `release` covers the whole run."""

    encode: str
    train: str
    evaluate: str
    export: str
    compress: str
    release: str


@dataclass
class Job:
    """A recipe in a workspace, and what this run of it has done so far."""

    workspace: Workspace
    recipe_name: str
    recipe: Recipe
    dataset: Dataset
    force: bool = False
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def open(cls, recipe: str, settings: tuple[str, ...] = (), *, force: bool = False, root: Path | None = None) -> "Job":
        """Read the recipe and its dataset. Raises ConfigError."""
        workspace = Workspace(root) if root else Workspace.current()
        found = workspace.recipe(recipe, settings)
        return cls(workspace, recipe, found, workspace.dataset(found.dataset), force)

    @property
    def name(self) -> str:
        """The name of the registered model."""
        return self.recipe.release.name or self.recipe_name

    @property
    def store(self) -> StageStore:
        return StageStore(self.workspace.stages)

    @cached_property
    def tracking(self) -> "Tracking":
        from tasks.tracking import Tracking

        return Tracking.of(self.workspace)

    def keys(self, version: DatasetVersion) -> Keys:
        recipe = self.recipe
        encode = content_key("encode", code_key(), version.name, version.digest, recipe.transform)
        train = content_key("train", encode, recipe.model, recipe.training)
        evaluate = content_key("evaluate", train, recipe.evaluation)
        export = content_key("export", train, self.name)
        compress = content_key("compress", export, recipe.compression, recipe.evaluation, recipe.serving, this_machine())
        return Keys(encode, train, evaluate, export, compress, content_key("release", evaluate, compress, recipe))

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

    @contextmanager
    def timed(self, stage: str) -> Iterator[list[str]]:
        """Note a stage that is not kept in the store: how long the block took, and what it appends as its figure."""
        start = perf_counter()
        figure: list[str] = []
        yield figure
        self.note(stage, perf_counter() - start, " ".join(figure))
