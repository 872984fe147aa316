"""What a search for a variant knows of each that it made."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from tasks.core.bundle import Batch, Invariance, Parallel
from tasks.core.config import Config
from tasks.core.metrics import Interval
from tasks.core.recipe import Objective


class Miss(Config):
    """A limit that a variant breaks."""

    what: str
    value: float
    limit: float

    @property
    def relative(self) -> float:
        """How far beyond the limit, as a share of it; infinite for a limit of 0."""
        return (self.value - self.limit) / self.limit if self.limit else math.inf

    def __str__(self) -> str:
        return f"{self.what} {self.value:.4g} is over {self.limit:g}"

    @property
    def distance(self) -> str:
        by = f"{self.relative:.2%}" if self.limit else f"{self.value:.4g}"
        return f"{self.what} by {by} ({self.value:.4g}, the limit is {self.limit:g})"


class Candidate(Config):
    """A variant beside fp32. `misses` lists the limits that it breaks."""

    name: str
    batch: Batch
    """`one` where a row's answer depends on its neighbours, so that each is run alone: here and on the server."""
    parallel: Parallel
    """What its threads share: each operation, or the rows of a call."""
    bytes: int
    size_ratio: float
    load_ms: float
    memory_mb: float
    latency_ms: float
    """Median for one row."""
    p99_ms: float
    """For one row."""
    rows_per_second: float
    """In requests with 32 rows."""
    validation: float
    """The headline metric on the validation split, by which variants are chosen."""
    validation_drop: float
    test: float
    """The headline metric on the test split."""
    test_difference: Interval
    """How much better than fp32's that is: positive is better."""
    agreement: float
    """Share of test rows with fp32's label."""
    calibration_error: float | None
    """On the test split; None of a language model."""
    invariance: Invariance
    misses: tuple[Miss, ...]


COSTS: Final[dict[Objective, Callable[[Candidate], float]]] = {
    "size": lambda candidate: candidate.bytes,
    "memory": lambda candidate: candidate.memory_mb,
    "latency": lambda candidate: candidate.latency_ms,
    "throughput": lambda candidate: -candidate.rows_per_second,
}
"""What the best variant has least of, by the objective."""


def choose(objective: Objective, candidates: Sequence[Candidate]) -> Candidate | None:
    """The best candidate by the objective among those within the limits; None where there is none."""
    return min((candidate for candidate in candidates if not candidate.misses), key=COSTS[objective], default=None)


def nearest(candidates: Sequence[Candidate]) -> str:
    """Where all break a limit: the one whose largest miss, as a share of its limit, is the smallest, and by how much it misses."""
    # By their values too, where the limits are 0 and every miss is infinitely far from them.
    found = min(candidates, key=lambda candidate: max((miss.relative, miss.value) for miss in candidate.misses))
    return f"the nearest is {found.name}, which misses {', and '.join(miss.distance for miss in found.misses)}"


def pareto_front(objective: Objective, candidates: Sequence[Candidate]) -> set[str]:
    """The names of those than which no other is as good in both the objective and the validation metric, and better in one."""

    def beaten(candidate: Candidate) -> bool:
        here = (COSTS[objective](candidate), candidate.validation_drop)
        others = ((COSTS[objective](other), other.validation_drop) for other in candidates)
        return any(there != here and there[0] <= here[0] and there[1] <= here[1] for there in others)

    return {candidate.name for candidate in candidates if not beaten(candidate)}
