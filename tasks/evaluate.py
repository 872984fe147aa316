"""Evaluate: the trained model on the test split, in figures with intervals, a report by class, and pictures."""

from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tasks.core.config import Config
from tasks.core.encoded import Encoded, EncodedSplit
from tasks.core.errors import MaasflowError
from tasks.core.metrics import Interval, Scored, bootstrap
from tasks.core.predictor import probabilities, unanswered
from tasks.core.recipe import Recipe
from tasks.core.stages import StageResult
from tasks.figures import draw_calibration, draw_confusion, draw_curves
from tasks.train import TrainResult, load


class ClassReport(Config):
    """One class on the test split."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


class EvaluateResult(StageResult):
    """The trained model on the test split, before export and compression."""

    metrics: dict[str, Interval]
    classes: tuple[ClassReport, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows by true class, columns by predicted class."""
    rows: int

    @property
    def figure(self) -> str:
        accuracy = self.metrics["accuracy"]
        return f"test accuracy {accuracy.value:.4f} [{accuracy.low:.4f}, {accuracy.high:.4f}] on {self.rows:,} rows"


def evaluate(recipe: Recipe, labels: tuple[str, ...], encoded: Encoded, trained: Path, training: TrainResult, out: Path) -> EvaluateResult:
    """Measure on the test split, and draw `confusion.png`, `calibration.png` and `curves.png` into `out`.

    Raises MaasflowError where the model has no finite answer for a row.
    """
    test = encoded.split("test")
    logits = _logits(recipe, encoded, len(labels), trained, test)
    if lost := unanswered(logits):
        raise MaasflowError(
            f"the trained model has no finite answer for {len(lost)} of {len(test)} test rows, the first of them row {lost[0]}",
            "look for extreme values in the data",
        )
    scored = Scored(probabilities(logits), test.targets, recipe.evaluation.calibration_bins)
    order = list(range(len(labels)))
    precision, recall, f1, rows = precision_recall_fscore_support(scored.targets, scored.predicted, labels=order, zero_division=0.0)
    confusion = confusion_matrix(scored.targets, scored.predicted, labels=order)
    draw_confusion(confusion, labels, out / "confusion.png")
    draw_calibration(scored, out / "calibration.png")
    draw_curves(training.history, training.best, recipe.training.keep_best, out / "curves.png")
    return EvaluateResult(
        metrics=bootstrap(scored, recipe.evaluation.bootstrap, recipe.training.seed),
        classes=tuple(
            ClassReport(label=label, precision=float(precision[i]), recall=float(recall[i]), f1=float(f1[i]), rows=int(rows[i]))
            for i, label in enumerate(labels)
        ),
        confusion=tuple(tuple(map(int, row)) for row in confusion),
        rows=len(test),
    )


def _logits(recipe: Recipe, encoded: Encoded, classes: int, trained: Path, test: EncodedSplit) -> np.ndarray:
    module = load(recipe, encoded, classes, trained)
    with torch.inference_mode():
        found = []
        for start in range(0, len(test), 256):
            tensors = test.tensors(slice(start, start + 256))
            found.append(module(**{name: torch.from_numpy(array) for name, array in tensors.items()}).numpy())
    return np.concatenate(found)
