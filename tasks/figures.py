"""Plots as PNG files. Drawn without pyplot, which keeps global state and is slow to import."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.candidate import pareto_front
from tasks.core.metrics import Scored
from tasks.core.recipe import LOWER_IS_BETTER
from tasks.pareto_page import PLOTTED, Picture
from tasks.training.loop import Epoch

_BLUE, _ORANGE, _GREY, _GREEN = "#1f5fa8", "#d9730d", "#9a9a9a", "#12794a"
_DOTS_PER_INCH = 110
_LONGEST_LABEL = 24


def draw_confusion(confusion: npt.NDArray[np.int64], labels: tuple[str, ...], path: Path) -> None:
    """Share of each true class (row) that is predicted as each class (column), with the counts written in."""
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = float(np.clip(0.5 * len(labels) + 2, 4, 14))
    figure = Figure((size, size), dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    shown = [label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…" for label in labels]
    # A label is no formula, even if it has a $ in it.
    axes.set_xticks(range(len(labels)), shown, rotation=45 if max(map(len, shown)) > 3 else 0, parse_math=False)
    axes.set_yticks(range(len(labels)), shown, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true", title="Test split: rows by true and predicted class")
    if len(labels) <= 30:
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                axes.text(
                    column, row, str(count), ha="center", va="center", color="white" if share[row, column] > 0.5 else "#222222", size=9
                )
    _save(figure, path)


def draw_calibration(scored: Scored, path: Path) -> None:
    """Accuracy against confidence in bins of equal width, and how many rows fall into each."""
    confidence = scored.probabilities.max(axis=1)
    place = np.minimum((confidence * scored.bins).astype(np.int64), scored.bins - 1)
    count = np.bincount(place, minlength=scored.bins)
    used = count > 0
    mean_confidence = np.bincount(place, confidence, scored.bins)[used] / count[used]
    accuracy = np.bincount(place, scored.correct, scored.bins)[used] / count[used]
    figure = Figure((5, 5.5), dpi=_DOTS_PER_INCH, layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    upper.plot([0, 1], [0, 1], color=_GREY, linestyle="--", label="perfect")
    upper.plot(mean_confidence, accuracy, marker="o", color=_BLUE, label="model")
    error = scored.metrics()["calibration_error"]
    upper.set(ylabel="accuracy", title=f"Test split: calibration error {error:.3f}", ylim=(0, 1.02))
    upper.legend(loc="upper left")
    lower.bar((np.arange(scored.bins) + 0.5) / scored.bins, count, width=0.9 / scored.bins, color=_BLUE)
    lower.set(xlabel="confidence", ylabel="rows", yscale="log", xlim=(0, 1))
    _save(figure, path)


def draw_curves(history: Sequence[Epoch], best: Epoch, metric: str, path: Path) -> None:
    """Training and validation loss, and of a classifier the validation accuracy, by epoch; the kept epoch is marked."""
    epochs = [epoch.epoch for epoch in history]
    classifier = "accuracy" in best.validation
    figure = Figure((9 if classifier else 5, 4), dpi=_DOTS_PER_INCH, layout="constrained")
    loss, *others = figure.subplots(1, 2 if classifier else 1, squeeze=False)[0]
    held_out = "log_loss" if classifier else "nats"
    loss.plot(epochs, [epoch.train_loss for epoch in history], color=_GREY, marker=".", label="training")
    loss.plot(epochs, [epoch.validation[held_out] for epoch in history], color=_BLUE, marker=".", label="validation")
    loss.set(xlabel="epoch", ylabel="loss (nats)", title="Loss")
    for accuracy in others:
        accuracy.plot(epochs, [epoch.validation["accuracy"] for epoch in history], color=_BLUE, marker=".", label="validation")
        accuracy.set(xlabel="epoch", ylabel="accuracy", title="Accuracy")
    for axes in (loss, *others):
        axes.axvline(best.epoch, color=_ORANGE, linestyle=":", label=f"kept (best {metric.replace('_', ' ')})")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    _save(figure, path)


def draw_pareto(picture: Picture, path: Path) -> None:
    """Each candidate by what it costs and what it gets right on the validation split; the front is joined."""
    figure = Figure((8, 5), dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    cost, title = PLOTTED[picture.objective]
    front = pareto_front(picture.objective, picture.candidates)
    joined = sorted((cost(each), each.validation) for each in picture.candidates if each.name in front)
    axes.plot(*zip(*joined, strict=True), color=_BLUE, alpha=0.4)
    for candidate in picture.candidates:
        place = (cost(candidate), candidate.validation)
        color = _GREEN if candidate.name == picture.chosen else _GREY if candidate.misses else _BLUE
        axes.scatter(*place, color=color, s=70 if candidate.name == picture.chosen else 40, zorder=3)
    metric = picture.metric.replace("_", " ")
    axes.set(xlabel=title, ylabel=f"validation {metric}", title=picture.title)
    if picture.metric in LOWER_IS_BETTER:
        axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.15)
    # Only then is it known where on the paper a point lies.
    figure.draw_without_rendering()
    _name_points(axes, {each.name: (cost(each), each.validation) for each in picture.candidates})
    _save(figure, path)


def _name_points(axes: Axes, places: Mapping[str, tuple[float, float]]) -> None:
    """Write a name right of each point, or as near above or below as it covers no other name."""
    step = 9 * _DOTS_PER_INCH / 72
    taken: list[tuple[float, float]] = []
    for name, place in places.items():
        x, y = axes.transData.transform(place)
        # A name is at most some 130 points long.
        tried = (sign * step * count for count in range(len(places) + 1) for sign in (1, -1))
        shift = next(d for d in tried if not any(abs(x - a) < 15 * step and abs(y + d - b) < step for a, b in taken))
        taken.append((x, y + shift))
        offset = (7, shift * 72 / _DOTS_PER_INCH - 3)
        axes.annotate(name, place, xytext=offset, textcoords="offset points", fontsize=8, parse_math=False)


def _save(figure: Figure, path: Path) -> None:
    with warnings.catch_warnings():
        # A label in a script that the font lacks is drawn as boxes, and all else is as it should be.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path, format="png")
