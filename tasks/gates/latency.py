"""Fast enough on this machine."""

from typing import Annotated, ClassVar

from pydantic import Field

from tasks.gates import Evidence, Gate, Verdict


class LatencyLimit(Gate):
    """The chosen variant's median latency for one row is at most `maximum_ms` milliseconds."""

    by_machine: ClassVar[bool] = True
    maximum_ms: Annotated[float, Field(gt=0)]

    def check(self, evidence: Evidence) -> Verdict:
        value = evidence.measured(evidence.chosen).latency_ms["1"].p50
        return Verdict(
            gate="latency",
            what=f"median ms for one row of {evidence.chosen.name}",
            measured=value,
            limit=f"≤ {self.maximum_ms:g}",
            margin=self.maximum_ms - value,
            passed=value <= self.maximum_ms,
        )
