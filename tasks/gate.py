"""Gate: hold the release against every gate of the recipe."""

from pathlib import Path

import numpy as np

from tasks.compress import SCORES
from tasks.core.bundle import Bundle
from tasks.core.dataset import Dataset
from tasks.core.encoded import EncodedSplit
from tasks.core.errors import GateError, MaasflowError
from tasks.core.predictor import Predictor, run_session
from tasks.core.ragged import Ragged
from tasks.core.recipe import Recipe
from tasks.core.scoring import load_scores, score_split
from tasks.core.splits import Split
from tasks.core.stages import StageResult
from tasks.core.transforms import Arrays, Transform
from tasks.export import BUNDLE
from tasks.gates import GATES, Champion, Evidence, Verdict


class Judged(StageResult):
    """Verdicts, all of which a release must pass to go on."""

    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """The gates that did not pass."""
        return tuple(verdict.gate for verdict in self.verdicts if not verdict.passed)

    def table(self) -> str:
        """The verdicts for a person to read."""
        rows = self._rows()
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)) + "  " + row[5] for row in rows)

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("", "gate", "measured", "limit", "by", "what")]
        for verdict in self.verdicts:
            measured = "" if verdict.measured is None else f"{verdict.measured:.4g}"
            margin = "" if verdict.margin is None else f"{verdict.margin:+.4g}"
            rows.append(("pass" if verdict.passed else "FAIL", verdict.gate, measured, verdict.limit, margin, verdict.what))
        return rows

    def markdown(self) -> str:
        """The verdicts as a table for MLflow's page."""
        rows = [f"| {cells} |" for cells in (" | ".join(row) for row in self._rows())]
        return "\n".join([rows[0], "|" + " --- |" * 6, *rows[1:]])


class GateResult(Judged):
    """Every gate's verdict."""

    champion: str | None
    """The version that the release was compared with."""

    def require(self) -> None:
        """Raises GateError unless every gate passed."""
        if failed := self.failed:
            raise GateError(
                f"{len(failed)} of {len(self.verdicts)} gates failed ({', '.join(failed)}); nothing was registered\n{self.table()}",
                "train a better model, or change or drop the gate under 'gates' in the recipe; the MLflow run keeps all that was measured",
            )

    @property
    def figure(self) -> str:
        return f"{sum(verdict.passed for verdict in self.verdicts)} of {len(self.verdicts)} gates passed"


def gate(
    recipe: Recipe,
    dataset: Dataset,
    prepared: Path,
    compressed: Path,
    champion: tuple[str, Path] | None,
    folds: tuple[dict[str, float], ...] = (),
) -> GateResult:
    """Judge the compressed bundle, beside the champion's version and bundle folder where there is one."""
    bundle = Bundle.open(compressed / BUNDLE)
    manifest = bundle.manifest
    scored = load_scores(compressed / SCORES / f"{manifest.chosen}.npz")
    evidence = Evidence(
        metric=recipe.evaluation.metric,
        chosen=manifest.variant(),
        fp32=manifest.variant("fp32"),
        parity=manifest.parity,
        scored=scored,
        champion=measure_champion(*champion, dataset, Split.open(prepared, "test"), recipe.evaluation.calibration_bins)
        if champion
        else None,
        resamples=recipe.evaluation.bootstrap,
        seed=recipe.training.seed,
        folds=folds,
    )
    gates = [GATES.build(spec, recipe.origin.below("gates", index)) for index, spec in enumerate(recipe.gates)]
    return GateResult(verdicts=tuple(gate.check(evidence) for gate in gates), champion=champion[0] if champion else None)


def measure_champion(version: str, folder: Path, dataset: Dataset, test: Split, bins: int = 15) -> Champion:
    """The champion's answers for the test rows, through its own transform."""
    try:
        predictor = Predictor(Bundle.open(folder))
        columns = list(predictor.manifest.columns)
        if predictor.manifest.task != dataset.task:
            return Champion(version, None, f"it is for {predictor.manifest.task.replace('_', ' ')}")
        if predictor.manifest.labels != dataset.class_names:
            return Champion(version, None, f"its labels are {', '.join(predictor.manifest.labels)}")
        if lacking := [name for name in columns if name not in dataset.features]:
            return Champion(version, None, f"it takes {', '.join(lacking)}, which the test rows do not have")
        rows = _through(predictor.manifest.transform, columns, test)
        scored = score_split(run_session(predictor.session, predictor.variant.batch), rows, predictor.manifest.state_inputs, bins)
    except MaasflowError as error:
        return Champion(version, None, error.what)
    if lost := scored.unanswered:
        return Champion(version, None, f"it has no finite answer for {len(lost)} of the test rows")
    return Champion(version, scored)


def _through(transform: Transform, columns: list[str], split: Split) -> EncodedSplit:
    """A prepared split as another transform than the one fitted with it encodes it."""
    chunks = [transform.encode(chunk) for chunk in split.chunks(columns, rows=1024)]
    arrays: Arrays = {}
    for name in transform.stored:
        parts = [chunk[name] for chunk in chunks]
        texts = [part for part in parts if isinstance(part, Ragged)]
        arrays[name] = Ragged.joined(texts) if texts else np.concatenate([part for part in parts if isinstance(part, np.ndarray)])
    return EncodedSplit(transform, arrays, split.targets, split.examples)
