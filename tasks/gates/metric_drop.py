"""Compression costs no more than this."""

from typing import Annotated, ClassVar

from pydantic import Field

from tasks.core.metrics import drop
from tasks.gates import Evidence, Gate, Verdict


class MetricDrop(Gate):
    """On the test split the chosen variant is worse than fp32 in the headline metric by at most `maximum`."""

    by_machine: ClassVar[bool] = True
    maximum: Annotated[float, Field(ge=0)] = 0.01

    def check(self, evidence: Evidence) -> Verdict:
        name = evidence.metric
        lost = drop(
            name,
            evidence.measured(evidence.chosen).metrics["test"][name],
            evidence.measured(evidence.fp32).metrics["test"][name],
        )
        return Verdict(
            gate="metric_drop",
            what=f"test {name.replace('_', ' ')} lost, fp32 to {evidence.chosen.name}",
            measured=lost,
            limit=f"≤ {self.maximum:g}",
            margin=self.maximum - lost,
            passed=lost <= self.maximum,
        )
