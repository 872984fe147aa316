"""The requests of one model that wait, and which of them are run together."""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from time import perf_counter
from typing import Final

from deploy.serving.cost import Cost
from deploy.serving.work import Work
from tasks.core.predictor import Predictor

MOST_ROWS: Final = 64
"""In a batch, unless one request has more."""
MOST_TOKENS: Final = 2**12
"""In a batch, padding included, unless one request has more."""
_LOOKED_AT: Final = 32
"""Requests among which the next batch is looked for."""
_PATIENCE: Final = 3
"""Batches that may be run before the request that waits longest, where others fit better."""


class Waiting:
    """First come, first served, where rows are of one size; else those of like length go first, within bounds. For one thread at a time."""

    def __init__(self, predictor: Predictor, cost: Cost) -> None:
        self.cost = cost
        self.rows = self.tokens = self.bytes = 0
        inputs = predictor.manifest.inputs
        masked = any(spec.name == "attention_mask" for spec in inputs)
        self._dynamic = predictor.dynamic
        self._together = predictor.variant.batch == "any"
        self._paddable = masked and not predictor.manifest.state_inputs
        self._queue: deque[Work] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, work: Work) -> None:
        self._queue.append(work)
        self.rows += work.rows
        self.tokens += work.tokens
        self.bytes += work.size

    def pick(self) -> list[Work]:
        """What is run next, out of the queue. Empty where nothing waits."""
        now, batch = perf_counter(), list[Work]()
        while self._queue and not batch:
            for work in self._alike() if self._dynamic and self._together else self._next():
                self._take(work, now, batch)
        return batch

    def _take(self, work: Work, now: float, batch: list[Work]) -> None:
        """Into the batch, unless nobody waits for it any more."""
        self.rows -= work.rows
        self.tokens -= work.tokens
        self.bytes -= work.size
        if not work.done.done():
            work.begun = now
            batch.append(work)

    def _next(self) -> list[Work]:
        """Those that came first, out of the queue: as many as go together."""
        queue = self._queue
        chosen = [queue.popleft()]
        rows = chosen[0].rows
        while self._together and queue and rows + queue[0].rows <= MOST_ROWS:
            rows += queue[0].rows
            chosen.append(queue.popleft())
        return chosen

    def _alike(self) -> list[Work]:
        """Those of like length, out of the queue, of which most is done in a second: a call costs, and padding does."""
        ordered = sorted(islice(self._queue, _LOOKED_AT), key=lambda work: work.length)
        oldest = self._queue[0]
        # Where it was passed over too often, nothing is run without it.
        must = ordered.index(oldest) if oldest.passed >= _PATIENCE else None
        most, chosen = 0.0, ordered[:1]
        for start in range(len(ordered) if must is None else must + 1):
            for end, speed in self._speeds(ordered, start):
                if speed > most and (must is None or end > must):
                    most, chosen = speed, ordered[start:end]
        taken = set(map(id, chosen))
        for work in ordered:
            work.passed += 1
        self._queue = deque(work for work in self._queue if id(work) not in taken)
        return chosen

    def _speeds(self, ordered: list[Work], start: int) -> Iterator[tuple[int, float]]:
        """For each batch that begins with one of them, the shortest first: its end, and how many tokens are read in a second."""
        rows = tokens = 0
        for end in range(start, len(ordered)):
            work = ordered[end]
            rows += work.rows
            tokens += work.tokens
            padded = rows * work.length
            if end > start and (rows > MOST_ROWS or padded > MOST_TOKENS or (work.length != ordered[start].length and not self._paddable)):
                return
            yield end + 1, tokens / self.cost.seconds(padded)
