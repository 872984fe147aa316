"""The tuning flow: trainings of one recipe with other values, each like that of a run of the recipe with these values."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter, time

import click
from prefect import flow
from prefect.runtime import flow_run

from flows import steps
from flows.check import check
from flows.environment import quiet_libraries
from flows.job import Base, Job
from flows.step import step
from flows.training import ended, trained_base
from flows.tune import TuneJob
from tasks.core.bundle import DatasetVersion
from tasks.core.encoded import Encoded
from tasks.core.errors import MaasflowError, RegistryError, SourceError
from tasks.core.stages import Done, content_key
from tasks.encode import EncodeResult
from tasks.models import build_family
from tasks.tracking import Run
from tasks.train import TrainResult, train
from tasks.training.loop import Epoch
from tasks.tune import Proposal, Pruned, State, Study, Trial

_HOURS = 3600
_ALIKE, _ANY = 3, 10
"""Failures in a row after which the study ends: with the same error, and with any."""


def _run_name() -> str:
    return str(flow_run.parameters["recipe"])


@flow(name="tuning", flow_run_name=_run_name, persist_result=False)
def tuning(recipe: str, trials: int | None = None, *, force: bool = False, workspace: Path | None = None) -> str:
    """Try values of the recipe's space until there are as many trials as wanted, and write the best as a recipe; what to tell."""
    quiet_libraries(debug=os.environ.get("MAASFLOW_DEBUG") == "1")
    found = TuneJob.open(recipe, trials, force=force, root=workspace)
    job = found.job
    for each in job.chain():
        check(each.recipe, each.dataset)
    found.tunable.check(job.dataset, lambda tried: check(tried, job.dataset))
    version = steps.data(job)
    base = trained_base(job)
    own = found.tunable.own_values(build_family(job.recipe.model, job.dataset.task).model_dump(mode="json"))
    with found.study(version, own) as study:
        parent = begin(found, study, version)
        with ended(parent):
            _try_all(Trials(found, study, version, base, parent))
            best = study.best
            if best is None:
                raise MaasflowError("no trial is complete", "ask for more with --trials")
            told = found.ending(study, best)
        study.close()
        return told


def begin(found: TuneJob, study: Study, version: DatasetVersion) -> Run:
    """The MLflow run of the study, which its trials stand below."""
    job = found.job
    run = job.tracking.run(job.name, f"tune {job.recipe_name} {study.name[:8]}", study.name, reopen=True)
    run.params({f"space.{path}": search.model_dump(exclude_defaults=True) for path, search in found.tunable.tuning.space.items()})
    run.tags(
        {
            "recipe": job.recipe_name,
            "dataset": version.name,
            "dataset_digest": version.digest,
            "study": study.name,
            "metric": found.tunable.metric,
            "mlflow.source.name": f"maasflow tune {job.recipe_name}",
            "mlflow.source.type": "LOCAL",
        }
    )
    run.dataset(version, f"data/{version.name}/prepared")
    return run


@dataclass
class Trials:
    """What the trials of a study share."""

    found: TuneJob
    study: Study
    version: DatasetVersion
    base: Base | None
    parent: Run
    encodings: dict[str, Done[EncodeResult]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Why the newest trials failed, in a row."""

    def encoded(self, job: Job) -> Done[EncodeResult]:
        """The data as the job's transform gives it, made once."""
        key = job.keys(self.version).encode
        if key not in self.encodings:
            self.encodings[key] = steps.encode(job, self.version, self.base)
        return self.encodings[key]

    def failed(self, error: MaasflowError) -> None:
        """Take note of a failure. Raises it where it goes on and on."""
        self.failures.append(re.sub(r"\b(?:nan|inf)\b|[-+\d.]+", "#", error.what))
        alike = self.failures[-_ALIKE:]
        if len(self.failures) >= _ANY or (len(alike) == _ALIKE and len(set(alike)) == 1):
            raise type(error)(
                f"the last {min(len(self.failures), _ANY)} trials failed, the last of them so: {error.what}",
                f"narrow tuning.space in {self.found.tunable.origin.file}, or run the same command again, which goes on with other values",
            ) from error


def _try_all(trials: Trials) -> None:
    """Do what is left to do, and print each trial as it ends."""
    found, study = trials.found, trials.study
    click.echo(found.header(study))
    for trial in study.trials:
        click.echo(found.row(trial))
    try:
        with _quiet():
            while study.finished < found.wanted:
                _try_one(trials)
    except KeyboardInterrupt:
        click.echo(
            f"{study.finished} of {found.wanted} trials are done; the same command goes on: maasflow tune {found.job.recipe_name}", err=True
        )
        raise


def _try_one(trials: Trials) -> None:
    """One trial, from its values to its row."""
    study, metric, start = trials.study, trials.found.tunable.metric, perf_counter()
    proposal = study.ask()
    run = _begin_trial(trials, proposal)
    state: State = "complete"
    value, failure = None, None
    try:
        value = _train(trials, proposal, run).best.validation[metric]
        run.figures({"objective": value})
    except Pruned:
        state = "pruned"
    except MaasflowError as error:
        if isinstance(error, RegistryError | SourceError):
            raise
        # Of these values, and not of the machine.
        state, failure = "failed", error
    except BaseException:
        with suppress(RegistryError):
            run.end("KILLED")
        raise
    run.tags({"state": state} | ({"reason": failure.what} if failure else {}))
    run.end({"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}[state])
    trial = study.settle(proposal, state, value, perf_counter() - start, failure.what if failure else "")
    click.echo(trials.found.row(trial))
    _log_best(trials, trial)
    if failure:
        trials.failed(failure)
    else:
        trials.failures.clear()


def _begin_trial(trials: Trials, proposal: Proposal) -> Run:
    job, study = trials.found.job, trials.study
    key = content_key("trial", study.name, proposal.number, proposal.values)
    run = job.tracking.run(job.name, f"trial {proposal.number}", key, reopen=True, parent=trials.parent)
    run.params(proposal.values)
    run.tags({"recipe": job.recipe_name, "dataset": trials.version.name, "dataset_digest": trials.version.digest, "study": study.name})
    return run


def _train(trials: Trials, proposal: Proposal, run: Run) -> TrainResult:
    """Train with the trial's values. Raises Pruned, or MaasflowError where they do not fit."""
    job = replace(trials.found.job, recipe=trials.found.tunable.with_values(proposal.values), rows=[])
    metric = trials.found.tunable.metric

    def report(epoch: Epoch) -> None:
        steps.log_epochs(run, epoch)
        proposal.report(epoch.epoch, epoch.validation[metric], last=epoch.epoch == job.recipe.training.epochs)

    done = trial(job, trials.version, trials.encoded(job), trials.base, report)
    if isinstance(done, Exception):
        raise done
    steps.log_epochs(run, *done.result.history)
    return done.result


@step(timeout=72 * _HOURS)
def trial(
    job: Job, version: DatasetVersion, encoded: Done[EncodeResult], base: Base | None, report: Callable[[Epoch], None]
) -> Done[TrainResult] | Pruned | MaasflowError:
    """Train as `maasflow run` would, under the same key; a trial that is stopped or does not fit is no failure of the flow."""
    try:
        return job.store.run(
            "train",
            job.keys(version).train,
            TrainResult,
            lambda out: train(job.recipe, len(job.dataset.classes), Encoded(encoded.folder), out, report, base.trained if base else None),
            resumable=True,
        )
    except (Pruned, MaasflowError) as ending:
        return ending


def _log_best(trials: Trials, trial: Trial) -> None:
    """The best so far as a curve of the study's run."""
    if trials.study.best and trials.study.best.value is not None:
        trials.parent.metrics([(f"best_{trials.found.tunable.metric}", trials.study.best.value, trial.number, time())])


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave the table to itself; in a terminal there is a bar below it."""
    logger = logging.getLogger("maasflow")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
