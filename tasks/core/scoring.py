"""A model on a whole split, whatever runs it: torch while it is trained, ONNX Runtime once it is exported."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.encoded import EncodedSplit
from tasks.core.language import Run, ScoredText, score_text
from tasks.core.metrics import Scored
from tasks.core.predictor import probabilities
from tasks.core.transforms import TensorSpec, TextTransform

Scores = Scored | ScoredText


def score_split(run: Run, split: EncodedSplit, state: tuple[TensorSpec, ...] = (), bins: int = 15) -> Scores:
    """The model's answers for every row, or for a language model's whole text, ready to be measured."""
    if isinstance(split.transform, TextTransform) and split.transform.length is None:
        return score_text(run, split.tokens, state, split.transform.characters)
    return scored_rows(class_logits(run, split), split.targets, bins)


def scored_rows(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int64], bins: int = 15) -> Scored:
    """A classifier's answers; a row with an infinite logit has no finite probabilities."""
    with np.errstate(invalid="ignore"):
        return Scored(probabilities(logits), targets, bins)


def load_scores(path: Path) -> Scores:
    """What `save` of either kind wrote."""
    with np.load(path) as arrays:
        if "nats" in arrays:
            return ScoredText(**arrays)
        return Scored(arrays["probabilities"], arrays["targets"], int(arrays["bins"]))


def class_logits(run: Run, split: EncodedSplit, size: int = 256) -> npt.NDArray[np.float32]:
    """float32 [rows, classes], in the order of the rows."""
    found: npt.NDArray[Any] | None = None
    for rows in split.calls(size):
        logits = run(split.tensors(rows))["logits"]
        if found is None:
            found = np.empty((len(split), logits.shape[1]), np.float32)
        found[rows] = logits
    assert found is not None
    return found
