"""How a stage becomes a Prefect task: what is retried, how long it may take, and when it counts as cached."""

import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State
from prefect.states import Completed

from tasks.core.errors import RegistryError, UnreachableError
from tasks.core.stages import Done

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger("maasflow")


def _may_pass(_task: object, _run: object, state: State[object]) -> bool:
    """Only a source or a registry that was away is worth another try: the same computation ends the same way."""
    return isinstance(getattr(state.data, "result", state.data), UnreachableError | RegistryError)


def step(*, timeout: float, retries: int = 0) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A stage as a Prefect task whose finished run is called Cached where the stage store had the result.

    The store is the cache, not Prefect's: it outlives Prefect's database, can be read without it, and holds what a killed
    stage had done so far.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        def work(*args: P.args, **kwargs: P.kwargs) -> object:
            _log.info("· %s", function.__name__)
            found = function(*args, **kwargs)
            return Completed(name="Cached", data=found) if isinstance(found, Done) and found.cached else found

        run: Task[..., Any] = task(
            name=function.__name__,
            description=function.__doc__,
            retries=retries,
            retry_delay_seconds=2,
            retry_condition_fn=_may_pass,
            timeout_seconds=timeout,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(work)

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            state: Any = run(*args, **kwargs, return_state=True)
            found: R = state.result()
            return found

        return call

    return decorate
