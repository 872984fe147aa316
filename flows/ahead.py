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


def take_up() -> versioning.Build | None:
    """What was begun, once: a task that is tried again begins anew."""
    build = _begun.get()
    _begun.set(None)
    return build
