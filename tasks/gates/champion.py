"""Not worse than what is served."""

from typing import Annotated

from pydantic import Field

from tasks.core.metrics import paired_difference
from tasks.gates import Evidence, Gate, Verdict


class NotWorseThanChampion(Gate):
    """On the same test rows the chosen variant is not shown to be worse than the champion.

    It fails where the whole paired bootstrap 95 % interval of the difference in the headline metric lies below
    −`tolerance`. A champion that cannot take these rows cannot be compared, and stops the release too.
    """

    tolerance: Annotated[float, Field(ge=0)] = 0.0

    def check(self, evidence: Evidence) -> Verdict:
        champion = evidence.champion
        limit = f"upper end ≥ {0 - self.tolerance:g}"
        if champion is None:
            return Verdict(gate="champion", what="no champion yet", measured=None, limit=limit, margin=None, passed=True)
        if champion.scored is None:
            what = f"cannot be compared with champion {champion.version}: {champion.why}"
            return Verdict(gate="champion", what=what, measured=None, limit=limit, margin=None, passed=False)
        difference = paired_difference(evidence.scored, champion.scored, evidence.metric, evidence.resamples, evidence.seed)
        name = evidence.metric.replace("_", " ")
        return Verdict(
            gate="champion",
            what=f"test {name} beside champion {champion.version}: {difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]",
            measured=difference.high,
            limit=limit,
            margin=difference.high + self.tolerance,
            passed=difference.high >= -self.tolerance,
        )
