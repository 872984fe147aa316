"""Evaluate: figures as scikit-learn has them, and pictures that are pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import classification_report, confusion_matrix

from tasks.core.errors import MaasflowError
from tasks.core.metrics import Scored
from tasks.core.predictor import probabilities
from tasks.evaluate import evaluate
from tasks.figures import draw_calibration, draw_confusion, draw_curves
from tasks.train import load
from tasks.training.loop import WEIGHTS
from tests.tiny import LABELS, ROWS, Stages


def scored_test_split(stages: Stages) -> Scored:
    test = stages.encoded.split("test")
    _, module = load(stages.recipe, stages.encoded, len(LABELS), stages.folder("trained"))
    with torch.inference_mode():
        logits = module(torch.from_numpy(test.tensors(slice(None))["x"])).numpy()
    return Scored(probabilities(logits), test.targets)


def test_the_metrics_are_those_of_the_test_split(stages: Stages) -> None:
    found = {name: interval.value for name, interval in stages.evaluation.metrics.items()}
    assert found == pytest.approx(scored_test_split(stages).metrics())
    assert stages.evaluation.rows == ROWS["test"]


def test_the_report_by_class_is_scikit_learns(stages: Stages) -> None:
    scored = scored_test_split(stages)
    expected = classification_report(scored.targets, scored.predicted, target_names=LABELS, output_dict=True)
    for found in stages.evaluation.classes:
        row = expected[found.label]
        assert (found.precision, found.recall, found.f1, found.rows) == pytest.approx(
            (row["precision"], row["recall"], row["f1-score"], row["support"])
        )
    np.testing.assert_array_equal(stages.evaluation.confusion, confusion_matrix(scored.targets, scored.predicted))


def test_the_figure_in_words(stages: Stages) -> None:
    accuracy = stages.evaluation.metrics["accuracy"]
    assert stages.evaluation.figure == f"test accuracy {accuracy.value:.4f} [{accuracy.low:.4f}, {accuracy.high:.4f}] on 120 rows"


def test_the_bins_are_the_recipes(stages: Stages, tmp_path: Path) -> None:
    coarse = stages.recipe.model_copy(update={"evaluation": stages.recipe.evaluation.model_copy(update={"calibration_bins": 2})})
    found = evaluate(coarse, LABELS, stages.encoded, stages.folder("trained"), stages.training, tmp_path)
    scored = scored_test_split(stages)
    assert found.metrics["calibration_error"].value == pytest.approx(
        Scored(scored.probabilities, scored.targets, bins=2).metrics()["calibration_error"]
    )


def test_weights_that_are_no_numbers_are_told(stages: Stages, tmp_path: Path) -> None:
    weights = load_file(stages.folder("trained") / WEIGHTS)
    save_file({name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()}, tmp_path / WEIGHTS)
    with pytest.raises(MaasflowError, match="no finite answer for 120 of 120 test rows"):
        evaluate(stages.recipe, LABELS, stages.encoded, tmp_path, stages.training, tmp_path)


def look(path: Path) -> Image.Image:
    """The picture, whole, of a size for a page, and not blank."""
    with Image.open(path) as image:
        image.load()
    assert image.format == "PNG"
    assert all(300 <= side <= 1600 for side in image.size)
    assert len(image.convert("L").getcolors() or []) > 10
    return image


@pytest.mark.parametrize("name", ["confusion.png", "calibration.png", "curves.png"])
def test_the_stage_draws(name: str, stages: Stages) -> None:
    look(stages.folder("evaluated") / name)


@pytest.mark.parametrize(
    "labels",
    [
        ("no", "yes"),
        ("$5", "$x^$", "\\frac"),
        ("猫", "🐈", "кот"),
        ("", " ", "x" * 300),
        tuple(map(str, range(120))),
    ],
    ids=["two", "formulas", "scripts", "lengths", "many"],
)
def test_any_labels_can_be_drawn(labels: tuple[str, ...], tmp_path: Path) -> None:
    draw_confusion(np.diag(np.arange(len(labels))), labels, tmp_path / "confusion.png")
    look(tmp_path / "confusion.png")


def test_a_class_without_rows_can_be_drawn(tmp_path: Path) -> None:
    draw_confusion(np.array([[3, 1], [0, 0]]), ("a", "b"), tmp_path / "confusion.png")
    look(tmp_path / "confusion.png")


def test_calibration_of_a_certain_model_can_be_drawn(tmp_path: Path) -> None:
    draw_calibration(Scored(np.eye(2), np.array([0, 0])), tmp_path / "calibration.png")
    look(tmp_path / "calibration.png")


def test_a_single_epoch_can_be_drawn(stages: Stages, tmp_path: Path) -> None:
    draw_curves(stages.training.history[:1], stages.training.history[0], "log_loss", tmp_path / "curves.png")
    look(tmp_path / "curves.png")
