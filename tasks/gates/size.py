"""Small enough to ship."""

from typing import Annotated

from pydantic import Field

from tasks.gates import Evidence, Gate, Verdict


class SizeLimit(Gate):
    """The chosen variant's file has at most `maximum_mb` megabytes (10⁶ bytes)."""

    maximum_mb: Annotated[float, Field(gt=0)]

    def check(self, evidence: Evidence) -> Verdict:
        value = evidence.chosen.bytes / 1e6
        return Verdict(
            gate="size",
            what=f"MB of {evidence.chosen.name}",
            measured=value,
            limit=f"≤ {self.maximum_mb:g}",
            margin=self.maximum_mb - value,
            passed=value <= self.maximum_mb,
        )
