"""What each model was asked in the last minutes, for the page. `/metrics` counts from the start on, and is for those who watch them all."""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, Self

from deploy.serving.calls import Answer, Call, Refusal
from deploy.serving.metrics import SECONDS, ModelMetrics
from deploy.serving.models import Models
from deploy.serving.parent import Parent, whole_tally
from deploy.serving.routes import Operation

PERIOD: Final = 5.0
PERIODS: Final = 60


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What was counted of a model, from its start or from some time on."""

    statuses: Mapping[int, int] = field(default_factory=dict)
    seconds: tuple[int, ...] = (0,) * (len(SECONDS) + 1)
    """Answers by how long they took, between each two of the bounds."""
    batches: int = 0
    rows: float = 0

    @classmethod
    def now(cls, metrics: ModelMetrics) -> Self:
        statuses: Counter[int] = Counter()
        for (_, status), count in metrics.requests.items():
            statuses[status] += count
        return cls(
            statuses=statuses, seconds=tuple(metrics.seconds.counts), batches=sum(metrics.batches.counts), rows=metrics.batches.total
        )

    def since(self, earlier: Self) -> Self:
        statuses = {status: count - earlier.statuses.get(status, 0) for status, count in self.statuses.items()}
        return type(self)(
            statuses={status: count for status, count in statuses.items() if count},
            seconds=tuple(late - early for late, early in zip(self.seconds, earlier.seconds, strict=True)),
            batches=self.batches - earlier.batches,
            rows=self.rows - earlier.rows,
        )

    def figures(self) -> dict[str, float | None]:
        return {
            "requests": sum(self.statuses.values()),
            "errors": sum(count for status, count in self.statuses.items() if status >= 400),
            "median": quantile(0.5, self.seconds),
            "p99": quantile(0.99, self.seconds),
            "rows_per_batch": self.rows / self.batches if self.batches else None,
        }


class History:
    """The last periods of one model."""

    def __init__(self, start: Counted | None = None) -> None:
        self._counted = deque([start or Counted()], PERIODS + 1)
        self._periods: deque[dict[str, float | None]] = deque(maxlen=PERIODS)
        """Their figures, worked out once, however many pages are open."""

    def add(self, counted: Counted) -> None:
        """A period is over."""
        self._periods.append(counted.since(self._counted[-1]).figures())
        self._counted.append(counted)

    def described(self, counted: Counted) -> dict[str, Any]:
        """The figures of all of it, and of each period up to now; the last one is not over."""
        whole = counted.since(self._counted[0])
        periods = [*self._periods, counted.since(self._counted[-1]).figures()]
        statuses = {str(status): count for status, count in sorted(whole.statuses.items())}
        return {**whole.figures(), "statuses": statuses, "periods": {name: [each[name] for each in periods] for name in periods[0]}}


class Traffic:
    """Its operation, and the history that it tells: of all processes, where several answer."""

    def __init__(self, models: Models, parent: Parent | None = None) -> None:
        self.models = models
        self.parent = parent
        self._histories: dict[str, History] = {}

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/traffic",
                summary="What the models were asked in the last five minutes",
                handler=self.tell,
                reply="Traffic",
                refusals=(503,),
            )
        ]

    async def follow(self) -> None:
        """Count one period after the other. Ends only by being cancelled."""
        with suppress(Refusal):
            # What the other processes counted before this one was started, for the second time perhaps.
            self._histories = {name: History(counted) for name, counted in (await self._count()).items()}
        while True:
            await asyncio.sleep(PERIOD)
            # One that cannot be counted is a part of the next.
            with suppress(Refusal):
                for name, counted in (await self._count()).items():
                    self._histories.setdefault(name, History()).add(counted)

    async def tell(self, call: Call) -> Answer:
        """Of those models that the caller may ask."""
        counted = await self._count()
        names = [model.name for model in self.models.running() if call.may_ask(model.name)]
        told = {name: self._histories.get(name, History()).described(counted.get(name, Counted())) for name in names}
        return Answer({"period_seconds": PERIOD, "models": told})

    async def _count(self) -> dict[str, Counted]:
        """Raises Refusal."""
        tally = await whole_tally(self.models, self.parent)
        # A list, as a model may be loaded in a thread meanwhile.
        return {name: Counted.now(metrics) for name, metrics in list(tally.metrics.models.items())}


def quantile(share: float, counts: Sequence[int]) -> float | None:
    """Of seconds counted between their bounds, within which they are taken to be spread evenly, as Prometheus does; None of none."""
    wanted, low = share * sum(counts), 0.0
    if not wanted:
        return None
    for bound, count, below in zip(SECONDS, counts, accumulate(counts, initial=0), strict=False):
        if below + count >= wanted:
            return low + (bound - low) * (wanted - below) / count
        low = bound
    return low
