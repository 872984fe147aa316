"""`maasflow run`: the training flow, here and now."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from flows.ahead import data_begun
from flows.job import Job
from flows.server import prefect_server
from flows.summary import Summary
from tasks.core.errors import RegistryError
from tasks.core.imports import quick_imports
from tasks.core.served import pointed_at


def run_recipe(recipe: str, settings: tuple[str, ...] = (), *, force: bool = False) -> Summary:
    """Run a recipe, or find that everything in it is done. Raises MaasflowError."""
    job = Job.open(recipe, settings, force=force)
    summary = None if force else find_finished(job)
    if summary:
        return summary.as_cached()
    with prefect_server(job.workspace) as server, data_begun(job):
        with interrupt_deferred(), quick_imports():
            from flows.check import check
            from flows.training import training

        check(job.recipe, job.dataset)
        # Its store is opened while DVC is at work.
        _ = job.tracking.client
        with server.answering():
            return training(recipe, list(settings), force=force, workspace=job.workspace.root)


def find_finished(job: Job) -> Summary | None:
    """The summary of the run that did all of this, if its data and its release are still what they were.

    Prefect has no part in this: with nothing to run there is nothing to orchestrate.
    """
    from tasks import versioning

    version = versioning.version(job.workspace, job.recipe.dataset)
    summary = job.finished(version) if version else None
    if summary is None:
        return None
    with ThreadPoolExecutor(1) as pool:
        # DVC is a process of its own: MLflow is imported meanwhile.
        current = pool.submit(
            lambda: all(versioning.is_current(job.workspace, name) for name in {each.recipe.dataset for each in job.chain()})
        )
        released = _released(job, summary)
        return released if current.result() else None


def _released(job: Job, summary: Summary) -> Summary | None:
    """The summary with what the registry says of its release now; None where that is gone, or is champion and not here to serve."""
    with quick_imports():
        from tasks.tracking import CHAMPION, Run

    try:
        release = job.tracking.version(summary.name, summary.version)
    except RegistryError:
        return None
    served = pointed_at(job.workspace.served / summary.name) == summary.version
    if release.run != summary.run or (CHAMPION in release.aliases and not served):
        return None
    run = Run(job.tracking, summary.run)
    if not run.ended():
        # Killed after its last stage, before it could say so.
        run.end()
    return summary.model_copy(update={"alias": ", ".join(release.aliases)})


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Let a Ctrl-C in the block take effect at its end: in the middle of an import, libraries swallow it."""
    told: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        # Ignored, as for a job in the background, or someone else's.
        yield
        return
    signal.signal(signal.SIGINT, lambda number, _: told.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if told:
        raise KeyboardInterrupt
