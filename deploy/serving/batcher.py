"""Requests of one model, run together."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import cached_property, partial
from itertools import pairwise
from math import ceil, inf
from time import monotonic, perf_counter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.serving.calls import Refusal
from deploy.serving.metrics import ModelMetrics
from tasks.core.predictor import Predictor
from tasks.core.transforms import Tensors

MOST_ROWS: Final = 64
"""In a batch, unless one request has more."""
_MOST_TOKENS: Final = 2**12
"""In a batch, padding included, unless one request has more."""
_LEAST_READ: Final = 0.75
"""The share of a batch's tokens that are no padding: short texts that waited beside a long one are run apart from it."""
# Handing work to a thread and back takes about 0.1 ms, in which the event loop answers two rows of a small model. What
# takes longer than this would keep the other clients waiting.
_INLINE_SECONDS: Final = 0.001
_NEWEST: Final = 0.1
"""The weight of the newest batch in what a batch is expected to take."""


class Work:
    """The tensors of a request, and what became of them."""

    __slots__ = ("begun", "deadline", "done", "ended", "length", "outputs", "queued", "rows", "size", "tensors", "timer")

    def __init__(self, tensors: Tensors, length: int, deadline: float, done: "asyncio.Future[None]") -> None:
        self.tensors = tensors
        self.rows = len(next(iter(tensors.values())))
        self.length = length
        """Of its texts; 1 where all rows are of one size."""
        self.size = sum(values.nbytes for values in tensors.values())
        self.deadline = deadline
        self.done = done
        self.timer: asyncio.TimerHandle | None = None
        self.outputs: dict[str, npt.NDArray[Any]] = {}
        self.queued = self.begun = self.ended = perf_counter()


class Batcher:
    """Greedy: what waits when a lane is free is run at once, together as far as sizes allow. So nothing waits for company while there
    is nothing else to do, and under load the batch that is being run is the window in which the next one gathers.

    All methods are for the event loop's thread; models that take long are run by `threads`.
    """

    def __init__(
        self,
        predictor: Predictor,
        row_seconds: float,
        lanes: int,
        threads: Executor,
        metrics: ModelMetrics,
        most_waiting: int,
        most_bytes: int,
    ) -> None:
        self.predictor = predictor
        self.lanes = lanes
        """Batches at once."""
        self.threads = threads
        self.metrics = metrics
        self.most_waiting = most_waiting
        self.most_bytes = most_bytes
        self.waiting_rows = self.waiting_bytes = 0
        inputs, outputs = predictor.manifest.inputs, predictor.manifest.outputs
        self._names = [spec.name for spec in outputs]
        self._together = predictor.variant.batch == "any"
        masked = any(spec.name == "attention_mask" for spec in inputs)
        self._paddable = not predictor.dynamic or (masked and not predictor.manifest.state_inputs)
        self._seconds = row_seconds
        """For a row, or a token where rows differ in length."""
        self._queue: deque[Work] = deque()
        self._running = 0
        self._scheduled = False

    async def run(self, tensors: Tensors, deadline: float = inf) -> Work:
        """The work, done. `deadline` is of time.monotonic.

        Raises Refusal: 503 where too much waits already, 504 where the deadline passed. What is cancelled is not computed.
        """
        loop = self._loop
        work = Work(tensors, self._length(tensors), deadline, loop.create_future())
        self._admit(work)
        self._queue.append(work)
        self.waiting_rows += work.rows
        self.waiting_bytes += work.size
        if not self._scheduled and self._running < self.lanes:
            self._scheduled = True
            loop.call_soon(self._dispatch)
        if deadline < inf and not self._is_quick(work.rows * work.length):
            work.timer = loop.call_later(deadline - monotonic(), _expire, work)
        try:
            await work.done
        finally:
            if work.timer:
                work.timer.cancel()
        return work

    def units(self, tensors: Tensors) -> int:
        """What they take to compute: rows, or tokens where rows differ in length."""
        return len(next(iter(tensors.values()))) * self._length(tensors)

    def around(self, work: Work, start: float) -> None:
        """Note what came before and after the work of a request that began at `start`, of perf_counter, and is answered now."""
        self.metrics.stages["preprocess"].add(work.queued - start)
        self.metrics.stages["postprocess"].add(perf_counter() - work.ended)

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        # Asked for once: on Python 3.11 that is a call of the system, which is a tenth of what a small request takes.
        return asyncio.get_running_loop()

    def _admit(self, work: Work) -> None:
        """Raises Refusal where it could not be answered before its deadline, or would take too much memory while it waits."""
        if not self.waiting_rows:
            return
        wait = self.waiting_rows * work.length * self._seconds / self.lanes
        if (
            self.waiting_rows + work.rows > self.most_waiting
            or self.waiting_bytes + work.size > self.most_bytes
            or monotonic() + wait > work.deadline
        ):
            what = f"too many requests wait for model '{self.predictor.manifest.name}': try again"
            raise Refusal(503, what, {"retry-after": str(max(1, ceil(wait)))})

    def _dispatch(self) -> None:
        self._scheduled = False
        while self._running < self.lanes and (batch := self._pick()):
            if self._is_quick(_tokens(batch)):
                try:
                    self._compute(batch)
                except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base
                    self._end(batch, error)
                else:
                    self._end(batch, None)
            else:
                self._running += 1
                self._loop.run_in_executor(self.threads, self._compute, batch).add_done_callback(partial(self._ran, batch))

    def _ran(self, batch: Sequence[Work], done: "asyncio.Future[None]") -> None:
        self._running -= 1
        self._end(batch, done.exception())
        self._dispatch()

    def _end(self, batch: Sequence[Work], error: BaseException | None) -> None:
        now = perf_counter()
        self._note(batch, now)
        if not error:
            self._seconds += _NEWEST * ((now - batch[0].begun) / _tokens(batch) - self._seconds)
        for work in batch:
            work.ended = now
            if not work.done.done():
                if error:
                    work.done.set_exception(error)
                else:
                    work.done.set_result(None)

    def _note(self, batch: Sequence[Work], now: float) -> None:
        metrics = self.metrics
        rows = read = 0
        for work in batch:
            rows += work.rows
            read += work.rows * work.length
            metrics.stages["queue"].add(work.begun - work.queued)
            metrics.stages["infer"].add(now - work.begun)
        metrics.batches.add(rows)
        if self.predictor.dynamic:
            metrics.tokens += read
            metrics.padding += rows * max(work.length for work in batch) - read

    def _pick(self) -> list[Work]:
        """What is run next: the request that waits longest, and those that go with it. Empty where nothing waits."""
        now, batch = perf_counter(), list[Work]()
        while self._queue and not batch:
            first = self._queue.popleft()
            self._take(first, now, batch)
        if batch and self._together and self._queue:
            for work in self._companions(batch[0]):
                self._take(work, now, batch)
        return batch

    def _take(self, work: Work, now: float, batch: list[Work]) -> None:
        """Out of the queue and into the batch, unless nobody waits for it any more."""
        self.waiting_rows -= work.rows
        self.waiting_bytes -= work.size
        if not work.done.done():
            work.begun = now
            batch.append(work)

    def _companions(self, first: Work) -> list[Work]:
        """Those of the queue that are run with the first, taken out of it: the nearest in length, within the limits."""
        queue = self._queue
        if not self.predictor.dynamic:
            rows, count = first.rows, 0
            while count < len(queue) and rows + queue[count].rows <= MOST_ROWS:
                rows += queue[count].rows
                count += 1
            return [queue.popleft() for _ in range(count)]
        chosen: list[Work] = []
        rows, read, longest = first.rows, first.rows * first.length, first.length
        for work in sorted(queue, key=lambda work: abs(work.length - first.length)):
            rows, read, longest = rows + work.rows, read + work.rows * work.length, max(longest, work.length)
            padded = rows * longest
            if (
                rows > MOST_ROWS
                or padded > _MOST_TOKENS
                or read < _LEAST_READ * padded
                or (work.length != first.length and not self._paddable)
            ):
                break
            chosen.append(work)
        taken = set(map(id, chosen))
        self._queue = deque(work for work in queue if id(work) not in taken)
        return chosen

    def _compute(self, batch: Sequence[Work]) -> None:
        """Run it, and give each work its part of the outputs."""
        tensors = batch[0].tensors if len(batch) == 1 else self._merged(batch)
        outputs = dict(zip(self._names, self.predictor.run(self._names, tensors), strict=True))
        if len(batch) == 1:
            batch[0].outputs = outputs
            return
        ends = np.cumsum([0, *(work.rows for work in batch)])
        for work, (start, end) in zip(batch, pairwise(ends), strict=True):
            work.outputs = {
                spec.name: outputs[spec.name][start:end, : work.length] if -1 in spec.shape else outputs[spec.name][start:end]
                for spec in self.predictor.manifest.outputs
            }

    def _merged(self, batch: Sequence[Work]) -> Tensors:
        """The rows of all, one below the other, with zeros after what is shorter than the longest."""
        longest = max(work.length for work in batch)
        if all(work.length == longest for work in batch):
            return {name: np.concatenate([work.tensors[name] for work in batch]) for name in batch[0].tensors}
        rows = sum(work.rows for work in batch)
        merged = {name: np.zeros((rows, longest, *values.shape[2:]), values.dtype) for name, values in batch[0].tensors.items()}
        start = 0
        for work in batch:
            end = start + work.rows
            for name, values in work.tensors.items():
                merged[name][start:end, : work.length] = values
            start = end
        return merged

    def _length(self, tensors: Tensors) -> int:
        return next(iter(tensors.values())).shape[1] if self.predictor.dynamic else 1

    def _is_quick(self, tokens: int) -> bool:
        return tokens * self._seconds < _INLINE_SECONDS


def _tokens(batch: Sequence[Work]) -> int:
    """In all, padding included."""
    return sum(work.rows for work in batch) * max(work.length for work in batch)


def _expire(work: Work) -> None:
    if not work.done.done():
        work.done.set_exception(Refusal(504, "it could not be answered before its deadline"))
