"""A floor under a metric of what ships."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tasks.gates import Evidence, Gate, Verdict


class MetricFloor(Gate):
    """The chosen variant's metric on the test split is at least `minimum`."""

    by_machine: ClassVar[bool] = True
    metric: Literal["accuracy", "balanced_accuracy", "macro_f1"] = "accuracy"
    minimum: Annotated[float, Field(ge=0, le=1)]

    def check(self, evidence: Evidence) -> Verdict:
        value = evidence.scored.metrics().get(self.metric, math.nan)
        return Verdict(
            gate="metric_floor",
            what=f"test {self.metric.replace('_', ' ')} of {evidence.chosen.name}",
            measured=value,
            limit=f"≥ {self.minimum:g}",
            margin=value - self.minimum,
            passed=value >= self.minimum,
        )
