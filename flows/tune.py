"""`maasflow tune`: the tuning flow, here and now, and what it tells."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.ahead import data_begun
from flows.job import Job
from flows.run import interrupt_deferred
from flows.server import prefect_server
from tasks import versioning
from tasks.core.bundle import DatasetVersion
from tasks.core.imports import quick_imports
from tasks.core.stages import content_key
from tasks.tunable import Tunable, as_settings, tuned_path
from tasks.tune import Study, Trial, open_study


@dataclass(frozen=True)
class TuneJob:
    """A recipe to tune, how many trials there are to be, and the file for the best."""

    job: Job
    tunable: Tunable
    wanted: int
    path: Path

    @classmethod
    def open(cls, recipe: str, trials: int | None = None, *, force: bool = False, root: Path | None = None) -> "TuneJob":
        """Read the recipe and its space. Raises ConfigError, also for a file that may not be replaced."""
        job = Job.open(recipe, root=root)
        tunable = Tunable.read(job.workspace, recipe, job.recipe, job.dataset.task)
        return cls(job, tunable, trials or tunable.tuning.trials, tuned_path(job.workspace, recipe, force=force))

    @property
    def file(self) -> Path:
        """Where the studies of this recipe are."""
        return self.job.workspace.state / "tuning" / f"{self.job.recipe_name}.db"

    def study_name(self, version: DatasetVersion) -> str:
        """A digest of what all trials have in common: of another recipe, space or dataset there is another study."""
        common = replace(self.job, recipe=self.job.recipe.model_copy(update={"transform": {}}))
        return content_key("tuning", common.keys(version).encode, self.tunable.content())

    @contextmanager
    def study(self, version: DatasetVersion, own: dict[str, Any] | None = None) -> Iterator[Study]:
        with open_study(self.file, self.study_name(version), self.tunable, own) as study:
            yield study

    def header(self, study: Study) -> str:
        """Above the rows: what is done already, if anything is, and the columns."""
        count = f"all {study.finished}" if study.finished >= self.wanted else f"{study.finished} of {self.wanted}"
        done = f"{count} trials are done already\n\n" if study.trials else ""
        return f"{done}trial  {'state':8}  {self.tunable.metric:>{self._width}}  seconds  values"

    def row(self, trial: Trial) -> str:
        value = "" if trial.value is None else f"{trial.value:.4f}"
        text = " ".join(as_settings(trial.values))
        row = f"{trial.number:5}  {trial.state:8}  {value:>{self._width}}  {trial.seconds:7.2f}  {text}"
        return f"{row}\n{'':{self._width + 28}}{trial.reason}" if trial.reason else row

    @property
    def _width(self) -> int:
        return max(8, len(self.tunable.metric))

    def ending(self, study: Study, best: Trial) -> str:
        """The best, its recipe, and what to type next. Writes that recipe. Raises ConfigError where it cannot."""
        label, metric = self.job.workspace.shown(self.path), self.tunable.metric
        found = f"validation {metric} {best.value:.4f}"
        self.tunable.write_tuned(
            self.path, label, best.values, f"Tuned: trial {best.number} of {len(study.trials)} of study {study.name[:8]}, {found}."
        )
        lines = [
            "",
            f"best     trial {best.number}: {found}",
            *(
                f"before   {each.value:.4f}, with the recipe's own values"
                for each in study.trials[:1]
                if each.own and each.value is not None
            ),
            *(f"{'' if index else 'values':8} {setting}" for index, setting in enumerate(as_settings(best.values))),
            f"recipe   {label}, which differs from {self.tunable.origin.file} in these",
            f"study    tune {self.job.recipe_name} {study.name[:8]} in MLflow (maasflow ui)",
            f"next     maasflow run {self.path.stem}",
        ]
        return "\n".join(lines)


def tune_recipe(recipe: str, trials: int | None = None, *, force: bool = False) -> str:
    """Tune a recipe, or find that all of its trials are done; what to tell. Raises MaasflowError."""
    found = TuneJob.open(recipe, trials, force=force)
    if told := _finished(found):
        return told
    with prefect_server(found.job.workspace) as server, data_begun(found.job):
        with interrupt_deferred(), quick_imports():
            from flows.check import check
            from flows.tuning import tuning

        job = found.job
        check(job.recipe, job.dataset)
        found.tunable.check(job.dataset, lambda tried: check(tried, job.dataset))
        _ = job.tracking.client
        with server.answering():
            return tuning(recipe, trials, force=force, workspace=job.workspace.root)


def _finished(found: TuneJob) -> str | None:
    """All that there is to tell, where no trial is left to do and the data is as it was."""
    version = versioning.version(found.job.workspace, found.job.recipe.dataset)
    if version is None or not found.file.is_file():
        return None
    with found.study(version) as study:
        if study.finished < found.wanted or not study.closed or study.best is None:
            return None
        if not all(versioning.is_current(found.job.workspace, name) for name in {each.recipe.dataset for each in found.job.chain()}):
            return None
        return "\n".join([found.header(study), *map(found.row, study.trials), found.ending(study, study.best)])
