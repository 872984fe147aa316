"""Work begun before the flow: the data is built while Prefect, MLflow and torch are still being imported."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from flows.job import Job
from tasks import versioning

_begun: ContextVar[versioning.Build | None] = ContextVar("begun", default=None)


@contextmanager
def data_begun(job: Job) -> Iterator[None]:
    """Begin to build the job's dataset, for the flow's first task in the block to take up."""
    build = versioning.begin(job.workspace, job.recipe.dataset, force=job.force)
    _begun.set(build)
    try:
        yield
    finally:
        # Nothing where the flow took it up; a flow that never began leaves nothing running.
        build.stop()
        _begun.set(None)


def take_up(dataset: str) -> versioning.Build | None:
    """What was begun for the dataset, once: a task that is tried again begins anew."""
    build = _begun.get()
    if build is None or build.name != dataset:
        return None
    _begun.set(None)
    return build
