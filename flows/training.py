"""The training flow: from a versioned dataset to a release, in the order of the picture in the README."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows import steps
from flows.check import check
from flows.environment import quiet_libraries
from flows.job import Base, Job
from flows.summary import Summary
from tasks.core.errors import MaasflowError, RegistryError
from tasks.tracking import Run


def _run_name() -> str:
    return str(flow_run.parameters["recipe"])


@flow(name="training", flow_run_name=_run_name, persist_result=False)
def training(recipe: str, settings: list[str] | None = None, *, force: bool = False, workspace: Path | None = None) -> Summary:
    """Run a recipe through every stage; a stage whose inputs are as they were is not done again.

    `settings` are `key.path=value` differences from the recipe file; `force` does every stage again.
    """
    quiet_libraries(debug=os.environ.get("MAASFLOW_DEBUG") == "1")
    job = Job.open(recipe, tuple(settings or ()), force=force, root=workspace)
    for each in job.chain():
        check(each.recipe, each.dataset)
    version = steps.data(job)
    base = trained_base(job)
    run = steps.begin(job, version)
    with ended(run):
        encoded = steps.encode(job, version, base)
        trained = steps.train(job, run, version, encoded, base)
        steps.evaluate(job, run, version, encoded, trained)
        folds = steps.cross_validate(job, run, version, base) if job.recipe.evaluation.folds else ()
        exported = steps.export(job, run, version, encoded, trained)
        compressed = steps.compress(job, run, version, encoded, trained.folder, exported.folder)
        gates = steps.gate(job, run, version, compressed, folds)
        registered = steps.register(job, run, version, compressed, gates, trained.folder)
        alias = steps.promote(job, registered)
        steps.deploy(job)
        return job.finish(version, registered, alias)


def trained_base(job: Job) -> Base | None:
    """Run the recipe whose weights this one starts from as far as its training."""
    if job.base is None:
        return None
    job.base.force = job.force
    version = steps.data(job.base)
    below = trained_base(job.base)
    run = steps.begin(job.base, version)
    with ended(run):
        encoded = steps.encode(job.base, version, below)
        trained = steps.train(job.base, run, version, encoded, below)
    job.note_base()
    return Base(encoded.folder, trained.folder)


@contextmanager
def ended(run: Run) -> Iterator[None]:
    """End the MLflow run as the block ends."""
    try:
        yield
    except BaseException as error:
        # A registry that is away cannot be told; what went wrong before that is what a person needs to read.
        with suppress(RegistryError):
            run.end("FAILED" if isinstance(error, MaasflowError) else "KILLED")
        raise
    run.end()
