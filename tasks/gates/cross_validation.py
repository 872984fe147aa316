"""A floor under what cross-validation found, where one test split is too small to tell."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.gates import Evidence, Gate, Verdict


class CrossValidation(Gate):
    """The mean of a metric over the folds is at least `minimum`. It fails where `evaluation.folds` is 0."""

    metric: Literal["accuracy", "balanced_accuracy", "macro_f1"] = "accuracy"
    minimum: Annotated[float, Field(ge=0, le=1)]

    def check(self, evidence: Evidence) -> Verdict:
        limit = f"≥ {self.minimum:g}"
        if not evidence.folds:
            what = "nothing was cross-validated: set evaluation.folds"
            return Verdict(gate="cross_validation", what=what, measured=None, limit=limit, margin=None, passed=False)
        value = sum(fold[self.metric] for fold in evidence.folds) / len(evidence.folds)
        return Verdict(
            gate="cross_validation",
            what=f"mean {self.metric.replace('_', ' ')} over {len(evidence.folds)} folds, of torch's models",
            measured=value,
            limit=limit,
            margin=value - self.minimum,
            passed=value >= self.minimum,
        )
