"""What is counted of a server. Plain numbers, to which the event loop adds: a library's locks would cost as much as a small model."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Literal

SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

Stage = Literal["preprocess", "queue", "infer", "postprocess"]


class Histogram:
    """How many values lie between each two bounds, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """By upper bound, each with all below it, as Prometheus counts."""
        found, count = [], 0
        for bound, each in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            count += each
            found.append((bound, float(count)))
        return found


class Pairs(dict[str, dict[str, Any]]):
    """By "champion challenger", what is counted of the two; see `deploy.serving.comparisons.Record`."""

    def __missing__(self, pair: str) -> dict[str, Any]:
        found = self[pair] = {"counts": Counter[str](), "champion": Histogram(SECONDS), "challenger": Histogram(SECONDS)}
        return found


class ModelMetrics:
    """Of one model, whatever its version."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        """By the path of the operation and the status of the answer."""
        self.seconds = Histogram(SECONDS)
        """From when a request was read until its answer was made; of a stream, until it began."""
        self.stages: dict[Stage, Histogram] = {stage: Histogram(SECONDS) for stage in ("preprocess", "queue", "infer", "postprocess")}
        self.batches = Histogram(ROWS)
        self.tokens = 0
        self.padding = 0
        """Tokens that were computed beside the former because a text was shorter than the longest of its batch."""
        self.reloads: Counter[str] = Counter()
        """By what became of it: `loaded` or `failed`."""
        self.payloads: Counter[str] = Counter()
        """Rows of the payload log, by what became of them: `written` or `lost`."""
        self.pairs = Pairs()

    def snapshot(self) -> dict[str, Any]:
        """What was counted so far, as JSON can say it."""
        return {name: _told(value) for name, value in vars(self).items()}

    def add(self, snapshot: Mapping[str, Any]) -> None:
        """What another process counted of the same model."""
        for name, told in snapshot.items():
            setattr(self, name, _sum(getattr(self, name), told))


class Metrics:
    """Of a server. Requests for models that it does not have are counted under an empty name, so that clients cannot make up names."""

    def __init__(self) -> None:
        self.models: dict[str, ModelMetrics] = {}

    def of(self, name: str) -> ModelMetrics:
        """Those of a model that is or was served."""
        found = self.models.get(name)
        if found is None:
            found = self.models[name] = ModelMetrics()
        return found

    def snapshot(self) -> dict[str, Any]:
        """Of each model, by name."""
        # A list, as models are loaded in a thread.
        return {name: metrics.snapshot() for name, metrics in list(self.models.items())}

    def add(self, snapshot: Mapping[str, Any]) -> None:
        """What another process counted."""
        for name, told in snapshot.items():
            self.of(name).add(told)


def _told(value: Any) -> Any:
    """A number, a histogram, a counter, or a dictionary of these by name."""
    match value:
        case Histogram():
            return [value.total, *value.counts]
        case Counter():
            return [[key, count] for key, count in list(value.items())]
        case dict():
            return {name: _told(each) for name, each in list(value.items())}
        case _:
            return value


def _sum(mine: Any, told: Any) -> Any:
    """`mine` with what was told by the former added. A dictionary must hold, or make, what it is told of."""
    match mine:
        case Histogram():
            mine.total += told[0]
            mine.counts = [own + other for own, other in zip(mine.counts, told[1:], strict=True)]
        case Counter():
            for key, count in told:
                mine[tuple(key) if isinstance(key, list) else key] += count
        case dict():
            for name, each in told.items():
                mine[name] = _sum(mine[name], each)
        case _:
            return mine + told
    return mine
