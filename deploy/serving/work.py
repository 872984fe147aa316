"""What a request asks of a model."""

import asyncio
from time import perf_counter
from typing import Any

import numpy.typing as npt

from deploy.serving.calls import Refusal
from tasks.core.transforms import Tensors


class Work:
    """The tensors of a request, and what became of them."""

    __slots__ = (
        "begun",
        "deadline",
        "done",
        "ended",
        "length",
        "outputs",
        "passed",
        "queued",
        "rows",
        "size",
        "tensors",
        "timer",
        "tokens",
    )

    def __init__(self, tensors: Tensors, length: int, deadline: float, done: "asyncio.Future[None]") -> None:
        self.tensors = tensors
        self.rows = len(next(iter(tensors.values())))
        self.length = length
        """Of its texts; 1 where all rows are of one size."""
        self.tokens = self.rows * length
        self.size = sum(values.nbytes for values in tensors.values())
        self.passed = 0
        """Batches for which it was looked at and another was taken."""
        self.deadline = deadline
        self.done = done
        self.timer: asyncio.TimerHandle | None = None
        self.outputs: dict[str, npt.NDArray[Any]] = {}
        self.queued = self.begun = self.ended = perf_counter()

    def end(self, error: BaseException | None) -> None:
        """Tell who waits for it, if anybody still does."""
        if not self.done.done():
            if error:
                self.done.set_exception(error)
            else:
                self.done.set_result(None)

    def expire(self) -> None:
        """Its deadline passed."""
        self.end(Refusal(504, "it could not be answered before its deadline"))


def padded(batch: list[Work]) -> int:
    """Tokens of a batch in all, padding included."""
    return sum(work.rows for work in batch) * max(work.length for work in batch)
