"""Cross-validate: the recipe trained anew on most of the rows and measured on the rest, until every row was measured once."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.core.dataset import SPLITS, Dataset, SplitName
from tasks.core.encoded import Encoded
from tasks.core.recipe import Recipe
from tasks.core.scoring import score_split
from tasks.core.splits import EXAMPLE, TARGET, Split, write_split
from tasks.core.stages import StageResult, write_text
from tasks.encode import encode
from tasks.train import load, train
from tasks.training.forward import run_module

_VALIDATION = 8
"""One in so many of a fold's training rows chooses the epoch that is kept."""


class CrossValidateResult(StageResult):
    """What each fold's model reached on the rows that it never saw, by metric."""

    metric: str
    folds: tuple[dict[str, float], ...]

    def mean(self, metric: str) -> float:
        return float(np.mean([fold[metric] for fold in self.folds]))

    def deviation(self, metric: str) -> float:
        """The standard deviation over the folds."""
        return float(np.std([fold[metric] for fold in self.folds], ddof=1))

    @property
    def figure(self) -> str:
        name = self.metric.replace("_", " ")
        return f"{name} {self.mean(self.metric):.4f} ± {self.deviation(self.metric):.4f} over {len(self.folds)} folds"


def cross_validate(
    recipe: Recipe, dataset: Dataset, prepared: Path, out: Path, base: tuple[Path, Path] | None = None
) -> CrossValidateResult:
    """Train once for each fold, from the transform on, so that nothing is learnt from the rows that measure it.

    `base` is the encoded and the trained folder of the training that this one starts from. `out` keeps each fold's metrics, so
    that a killed run goes on with the next fold. Raises ConfigError, DataError.
    """
    if not dataset.label:
        raise recipe.origin.error(("evaluation", "folds"), "a running text cannot be cross-validated", "leave it out")
    rows = pa.concat_tables([Split.open(prepared, name).table for name in SPLITS])
    fold = assign_folds(rows, recipe.evaluation.folds, recipe.training.seed)
    if (used := int(fold.max()) + 1) < recipe.evaluation.folds:
        raise recipe.origin.error(
            ("evaluation", "folds"),
            f"{recipe.evaluation.folds} folds are more than the {used} different rows of any class",
            f"set at most {used}",
        )
    found: list[dict[str, float]] = []
    for number in range(recipe.evaluation.folds):
        done = out / f"fold-{number}.json"
        if not done.is_file():
            with TemporaryDirectory(dir=out) as folder:
                write_text(done, json.dumps(_measure(recipe, dataset, rows, fold == number, Path(folder), base)))
        found.append(json.loads(done.read_text()))
    return CrossValidateResult(metric=recipe.evaluation.metric, folds=tuple(found))


def assign_folds(rows: pa.Table, folds: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold of each row: an equal share of each class, drawn by the seed; equal rows are in one fold."""
    targets, examples = (rows[name].to_numpy() for name in (TARGET, EXAMPLE))
    fold = np.empty(len(targets), np.int64)
    for target in np.unique(targets):
        here = np.flatnonzero(targets == target)
        different, place = np.unique(examples[here], return_inverse=True)
        order = np.random.default_rng([seed, int(target)]).permutation(len(different))
        fold[here] = (order % folds)[place]
    return fold


def _measure(
    recipe: Recipe, dataset: Dataset, rows: pa.Table, held_out: npt.NDArray[np.bool_], folder: Path, base: tuple[Path, Path] | None
) -> dict[str, float]:
    """Train on all but the rows held out, in the same stages as the model itself, and measure on those."""
    prepared, encoded, trained = (folder / name for name in ("prepared", "encoded", "trained"))
    for stage in (prepared, encoded, trained):
        stage.mkdir()
    rest = np.flatnonzero(~held_out)
    parts: tuple[tuple[SplitName, npt.NDArray[np.int64]], ...] = (
        ("train", rest[np.arange(len(rest)) % _VALIDATION != 0]),
        ("validation", rest[::_VALIDATION]),
        ("test", held_out.nonzero()[0]),
    )
    for name, chosen in parts:
        part = rows.take(chosen).combine_chunks()
        write_split(prepared, name, iter(part.to_batches()), part.schema)
    encode(recipe, dataset, prepared, encoded, base[0] if base else None)
    train(recipe, len(dataset.classes), Encoded(encoded), trained, base=base[1] if base else None)
    family, module = load(recipe, Encoded(encoded), len(dataset.classes), trained)
    scores = score_split(run_module(module, family.state), Encoded(encoded).split("test"), family.state, recipe.evaluation.calibration_bins)
    return scores.metrics()
