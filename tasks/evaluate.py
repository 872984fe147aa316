"""Evaluate: the trained model on the test split, in figures with intervals, a report by class, and pictures."""

from pathlib import Path

from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tasks.core.config import Config
from tasks.core.encoded import Encoded
from tasks.core.errors import MaasflowError
from tasks.core.metrics import Interval, Scored, bootstrap
from tasks.core.recipe import Metric, Recipe
from tasks.core.scoring import score_split
from tasks.core.stages import StageResult
from tasks.figures import draw_calibration, draw_confusion, draw_curves
from tasks.train import TrainResult, load
from tasks.training.device import accelerator
from tasks.training.forward import run_module


class ClassReport(Config):
    """One class on the test split."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


class EvaluateResult(StageResult):
    """The trained model on the test split, before export and compression."""

    metric: Metric
    """The headline metric."""
    metrics: dict[str, Interval]
    classes: tuple[ClassReport, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows by true class, columns by predicted class."""
    rows: int
    """Of the test split; of a running text, the characters."""

    @property
    def figure(self) -> str:
        found = self.metrics[self.metric]
        noun = "rows" if self.classes else "characters"
        return f"test {self.metric.replace('_', ' ')} {found.value:.4f} [{found.low:.4f}, {found.high:.4f}] on {self.rows:,} {noun}"


def evaluate(recipe: Recipe, labels: tuple[str, ...], encoded: Encoded, trained: Path, training: TrainResult, out: Path) -> EvaluateResult:
    """Measure on the test split, and draw `curves.png` and, of a classifier, `confusion.png` and `calibration.png` into `out`.

    Raises MaasflowError where the model has no finite answer for a row.
    """
    family, module = load(recipe, encoded, len(labels), trained)
    on = accelerator(recipe.training).device
    test = encoded.split("test")
    scores = score_split(run_module(module.to(on), family.state, on), test, family.state, recipe.evaluation.calibration_bins)
    if lost := scores.unanswered:
        raise MaasflowError(
            f"the trained model has no finite answer for {len(lost)} of {len(scores)} test rows, the first of them row {lost[0]}",
            "look for extreme values in the data",
        )
    draw_curves(training.history, training.best, recipe.training.keep_best, out / "curves.png")
    metric, metrics = recipe.evaluation.metric, bootstrap(scores, recipe.evaluation.bootstrap, recipe.training.seed)
    if not isinstance(scores, Scored):
        return EvaluateResult(metric=metric, metrics=metrics, rows=int(scores.characters.sum()))
    confusion = confusion_matrix(scores.targets, scores.predicted, labels=range(len(labels)))
    draw_confusion(confusion, labels, out / "confusion.png")
    draw_calibration(scores, out / "calibration.png")
    return EvaluateResult(
        metric=metric,
        metrics=metrics,
        classes=_class_reports(scores, labels),
        confusion=tuple(tuple(map(int, row)) for row in confusion),
        rows=len(test),
    )


def _class_reports(scored: Scored, labels: tuple[str, ...]) -> tuple[ClassReport, ...]:
    precision, recall, f1, rows = precision_recall_fscore_support(
        scored.targets, scored.predicted, labels=range(len(labels)), zero_division=0.0
    )
    return tuple(
        ClassReport(label=label, precision=float(precision[i]), recall=float(recall[i]), f1=float(f1[i]), rows=int(rows[i]))
        for i, label in enumerate(labels)
    )
