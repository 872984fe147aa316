"""What a release must pass."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from tasks.core.bundle import Measurements, Variant
from tasks.core.catalog import Catalog
from tasks.core.config import Config
from tasks.core.recipe import Metric
from tasks.core.scoring import Scores


@dataclass(frozen=True)
class Champion:
    """The version that is served now, on the same test rows; `scored` is None where it cannot take them, and `why` says why."""

    version: str
    scored: Scores | None
    why: str = ""


@dataclass(frozen=True)
class Evidence:
    """What gates judge by: the variant that would ship, fp32 beside it, and the champion on the same test rows."""

    metric: Metric
    """The recipe's headline metric."""
    chosen: Variant
    fp32: Variant
    parity: float
    scored: Scores
    """The chosen variant on the test split."""
    champion: Champion | None
    resamples: int
    seed: int
    folds: tuple[dict[str, float], ...] = ()
    """What cross-validation found, by fold and metric."""

    def measured(self, variant: Variant) -> Measurements:
        if variant.measurements is None:
            raise ValueError(f"variant {variant.name} was never measured")
        return variant.measurements


class Verdict(Config):
    """One gate's finding: what was measured against which limit, and by how much it passed (negative: failed)."""

    gate: str
    what: str
    measured: float | None
    limit: str
    margin: float | None
    passed: bool


class Gate(Config):
    """Options of one gate, and its judgement."""

    by_machine: ClassVar[bool] = False
    """Whether it judges what another machine changes, so that a release that comes from one is held against it again."""

    @abstractmethod
    def check(self, evidence: Evidence) -> Verdict:
        """Judge the release."""


GATES: Catalog[Gate] = Catalog(
    "gate",
    {
        "metric_floor": "tasks.gates.metric_floor:MetricFloor",
        "metric_ceiling": "tasks.gates.metric_ceiling:MetricCeiling",
        "cross_validation": "tasks.gates.cross_validation:CrossValidation",
        "parity": "tasks.gates.parity:Parity",
        "metric_drop": "tasks.gates.metric_drop:MetricDrop",
        "latency": "tasks.gates.latency:LatencyLimit",
        "size": "tasks.gates.size:SizeLimit",
        "champion": "tasks.gates.champion:NotWorseThanChampion",
    },
)
