"""The exported model is the trained model."""

from typing import Annotated

from pydantic import Field

from tasks.gates import Evidence, Gate, Verdict


class Parity(Gate):
    """The largest absolute difference between torch's and fp32 ONNX's logits on test rows is at most `maximum`."""

    maximum: Annotated[float, Field(gt=0)] = 1e-3

    def check(self, evidence: Evidence) -> Verdict:
        return Verdict(
            gate="parity",
            what="largest logit difference, torch to ONNX",
            measured=evidence.parity,
            limit=f"≤ {self.maximum:g}",
            margin=self.maximum - evidence.parity,
            # Written so that NaN fails.
            passed=evidence.parity <= self.maximum,
        )
