"""Requests of one model, run together."""

import asyncio
import threading
from concurrent.futures import Executor
from functools import cached_property, partial
from itertools import pairwise
from math import ceil, inf
from time import monotonic, perf_counter
from typing import Final

import numpy as np

from deploy.serving.calls import Refusal
from deploy.serving.cost import Cost
from deploy.serving.metrics import ModelMetrics
from deploy.serving.waiting import Waiting
from deploy.serving.work import Work, padded
from tasks.core.predictor import Predictor
from tasks.core.transforms import Tensors

# Handing work to a thread and back takes about 0.1 ms, in which the event loop answers two rows of a small model. What
# takes longer than this would keep the other clients waiting.
_INLINE_SECONDS: Final = 0.001
_DOUBT: Final = 1.5
"""By how much what waits may take longer than it is expected to."""


class Batcher:
    """Greedy: what waits when a lane is free is run at once, together as far as sizes allow. So nothing waits for company while there
    is nothing else to do, and under load the batch that is being run is the window in which the next one gathers.

    A lane is a thread that runs one batch, and then the next without asking the event loop, which may be busy. Every method is for
    the event loop's thread, but for those that say otherwise.
    """

    def __init__(
        self,
        predictor: Predictor,
        cost: Cost,
        lanes: int,
        threads: Executor,
        metrics: ModelMetrics,
        most_waiting: int,
        most_bytes: int,
    ) -> None:
        self.predictor = predictor
        self.cost = cost
        self.lanes = lanes
        """Batches at once."""
        self.threads = threads
        self.metrics = metrics
        self.most_waiting = most_waiting
        self.most_bytes = most_bytes
        self.waiting = Waiting(predictor, cost)
        self._lock = threading.Lock()
        """Of what waits, and of how many lanes look for it."""
        self._open = 0
        """Lanes that run a batch, or are about to look for one."""
        self._scheduled = False
        self._names = [spec.name for spec in predictor.manifest.outputs]

    async def run(self, tensors: Tensors, deadline: float = inf) -> Work:
        """The work, done. `deadline` is of time.monotonic.

        Raises Refusal: 503 where too much waits already, 504 where the deadline passed. What is cancelled is not computed.
        """
        work = Work(tensors, self._length(tensors), deadline, self._loop.create_future())
        self.admit(work.rows, work.size, deadline)
        with self._lock:
            self.waiting.add(work)
            wanted = self._open < self.lanes
        if wanted and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._dispatch)
        if deadline < inf and not self._is_quick(work.tokens):
            work.timer = self._loop.call_later(deadline - monotonic(), work.expire)
        try:
            await work.done
        finally:
            if work.timer:
                work.timer.cancel()
        return work

    def admit(self, rows: int, size: int, deadline: float) -> None:
        """Raises Refusal (503) for what could not be answered before its deadline, or would take too much memory while it waits.

        Asked with what is known of a request before its tensors are made too, so that one too many costs next to nothing.
        """
        waiting = self.waiting
        if not waiting.rows:
            return
        # What waits, what is left of the batch that is run, and the batch that it is to be a part of.
        wait = waiting.tokens * self.cost.each / self.lanes + 2 * self.cost.batch
        if waiting.rows + rows > self.most_waiting or waiting.bytes + size > self.most_bytes or monotonic() + wait * _DOUBT > deadline:
            what = f"too many requests wait for model '{self.predictor.manifest.name}': try again"
            raise Refusal(503, what, {"retry-after": str(max(1, ceil(wait)))})

    @property
    def busy(self) -> bool:
        """Whether anything waits or is run."""
        return bool(self._open or self.waiting)

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

    def _dispatch(self) -> None:
        """Run what takes no time here, and open lanes for what does."""
        self._scheduled = False
        if not self._open and self._is_quick(self.waiting.tokens):
            while batch := self.waiting.pick():
                self._end(batch, self._compute(batch, spread=False), spread=False)
            return
        with self._lock:
            opened = min(self.lanes - self._open, len(self.waiting))
            self._open += opened
        for _ in range(opened):
            self.threads.submit(self._follow_lane)

    def _follow_lane(self) -> None:
        """In a thread: run the next batch, and get in line again behind the other models; where nothing waits the lane closes."""
        with self._lock:
            batch = self.waiting.pick()
            if not batch:
                self._open -= 1
                return
            alone = self._open == 1 and not self.waiting
        # What comes while there is nothing else to do takes all threads, if it has rows for them.
        spread = alone and sum(work.rows for work in batch) > 1
        error = self._compute(batch, spread=spread)
        self._loop.call_soon_threadsafe(partial(self._end, batch, error, spread=spread))
        self.threads.submit(self._follow_lane)

    def _compute(self, batch: list[Work], *, spread: bool) -> Exception | None:
        """In any thread: run it, and give each work its part of the outputs; or say why that was not possible."""
        try:
            tensors = batch[0].tensors if len(batch) == 1 else _merged(batch)
            outputs = dict(zip(self._names, self.predictor.run(self._names, tensors, spread=spread), strict=True))
            if len(batch) == 1:
                batch[0].outputs = outputs
            else:
                self._part(batch, outputs)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base
            return error
        finally:
            now = perf_counter()
            for work in batch:
                work.ended = now
        return None

    def _part(self, batch: list[Work], outputs: Tensors) -> None:
        ends = np.cumsum([0, *(work.rows for work in batch)])
        for work, (start, end) in zip(batch, pairwise(ends), strict=True):
            work.outputs = {
                spec.name: outputs[spec.name][start:end, : work.length] if -1 in spec.shape else outputs[spec.name][start:end]
                for spec in self.predictor.manifest.outputs
            }

    def _end(self, batch: list[Work], error: Exception | None, *, spread: bool) -> None:
        self._note(batch)
        if not error and not spread:
            self.cost.note(padded(batch), batch[0].ended - batch[0].begun)
        for work in batch:
            work.end(error)

    def _note(self, batch: list[Work]) -> None:
        metrics = self.metrics
        rows = read = 0
        for work in batch:
            rows += work.rows
            read += work.tokens
            metrics.stages["queue"].add(work.begun - work.queued)
            metrics.stages["infer"].add(work.ended - work.begun)
        metrics.batches.add(rows)
        if self.predictor.dynamic:
            metrics.tokens += read
            metrics.padding += padded(batch) - read

    def _length(self, tensors: Tensors) -> int:
        return next(iter(tensors.values())).shape[1] if self.predictor.dynamic else 1

    def _is_quick(self, tokens: int) -> bool:
        return self.cost.seconds(tokens) < _INLINE_SECONDS


def _merged(batch: list[Work]) -> Tensors:
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
