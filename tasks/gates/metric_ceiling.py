"""A ceiling over a metric of what ships that is better the lower it is."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tasks.gates import Evidence, Gate, Verdict


class MetricCeiling(Gate):
    """The chosen variant's metric on the test split is at most `maximum`."""

    by_machine: ClassVar[bool] = True
    metric: Literal["log_loss", "calibration_error", "nats", "bits", "perplexity"]
    maximum: Annotated[float, Field(ge=0)]

    def check(self, evidence: Evidence) -> Verdict:
        value = evidence.scored.metrics().get(self.metric, math.nan)
        return Verdict(
            gate="metric_ceiling",
            what=f"test {self.metric.replace('_', ' ')} of {evidence.chosen.name}",
            measured=value,
            limit=f"≤ {self.maximum:g}",
            margin=self.maximum - value,
            passed=value <= self.maximum,
        )
