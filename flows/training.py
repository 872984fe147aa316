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
from flows.job import Job
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
    check(job.recipe)
    version = steps.data(job)
    run = steps.begin(job, version)
    with ended(run):
        encoded = steps.encode(job, version)
        trained = steps.train(job, run, version, encoded)
        evaluated = steps.evaluate(job, run, version, encoded, trained)
        exported = steps.export(job, run, version, encoded, trained)
        compressed = steps.compress(job, run, version, encoded, exported)
        gates = steps.gate(job, run, version, encoded, compressed)
        registered = steps.register(job, run, version, evaluated, compressed, gates)
        alias = steps.promote(job, registered)
        steps.deploy(job)
        return job.finish(version, registered, alias)


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
