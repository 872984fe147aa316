"""Compress: make the recipe's variants, measure each here, and choose the best that the limits allow."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from onnxruntime.quantization.shape_inference import quant_pre_process

from tasks.compression import Subject, remove_model, weights_beside
from tasks.compression.chain import chains
from tasks.compression.measure import open_variants, time_variants
from tasks.core.bundle import Bundle, Manifest, Measurements, Variant, describe_variant
from tasks.core.config import Config
from tasks.core.dataset import SplitName
from tasks.core.encoded import Encoded, EncodedSplit
from tasks.core.errors import MaasflowError
from tasks.core.language import first_state
from tasks.core.machine import this_machine
from tasks.core.metrics import drop
from tasks.core.predictor import open_session, run_session
from tasks.core.recipe import Recipe
from tasks.core.scoring import Scores, score_split
from tasks.core.stages import StageResult, link_file
from tasks.core.transforms import Tensors
from tasks.export import BUNDLE

SCORES = "scores"
"""The folder with the test split's answers of every variant, as `<name>.npz`."""

SplitScores = dict[SplitName, Scores]
_MEASURED: Final[tuple[SplitName, ...]] = ("validation", "test")

_log = logging.getLogger("maasflow.compress")


class Candidate(Config):
    """A variant beside fp32. `misses` lists the limits that it breaks."""

    name: str
    bytes: int
    size_ratio: float
    latency_ms: float
    """Median for one row."""
    rows_per_second: float
    """In calls with 32 rows."""
    validation_drop: float
    test: float
    """The headline metric on the test split."""
    agreement: float
    misses: tuple[str, ...]


class CompressResult(StageResult):
    """Every candidate, which one was chosen, and why the rest could not be made."""

    chosen: str
    candidates: tuple[Candidate, ...]
    failed: dict[str, str]

    @property
    def choice(self) -> Candidate:
        return next(candidate for candidate in self.candidates if candidate.name == self.chosen)

    @property
    def figure(self) -> str:
        choice = self.choice
        return (
            f"chose {choice.name}: {choice.size_ratio:.2f} × fp32's size, {choice.latency_ms:.3f} ms a row, "
            f"validation drop {choice.validation_drop:+.4f}"
        )


def compress(recipe: Recipe, encoded: Encoded, exported: Path, out: Path) -> CompressResult:
    """Write `bundle/` with all variants, measured, to `out`. Raises MaasflowError where no variant is within the limits."""
    source = Bundle.open(exported / BUNDLE)
    folder = out / BUNDLE
    (folder / "variants").mkdir(parents=True)
    # Weights that stand beside a model are copied: onnx, which reads them to compress, refuses a file of several names.
    external = {name for variant in source.manifest.variants for name in variant.external}
    for file in source.manifest.files:
        (shutil.copyfile if file in external else link_file)(source.folder / file, folder / file)
    scores, failed = make_variants(Subject(recipe, encoded), source.manifest, folder / "variants")
    variants = measure(recipe, source.manifest, encoded, folder, scores)
    candidates = tuple(_candidate(recipe, variant, variants[0]) for variant in variants)
    chosen = choose(recipe, candidates)
    (out / SCORES).mkdir()
    for name, found in scores.items():
        found["test"].save(out / SCORES / f"{name}.npz")
    Bundle(folder, source.manifest.replace(variants=variants, chosen=chosen)).write()
    return CompressResult(chosen=chosen, candidates=candidates, failed=failed)


def make_variants(subject: Subject, manifest: Manifest, variants: Path) -> tuple[dict[str, SplitScores], dict[str, str]]:
    """Write each chain's variant beside fp32; the answers of all that have one for every row, and why each of the rest does not."""
    scores, failed = {"fp32": _answers(variants / "fp32.onnx", subject, manifest)}, {}
    prepared = variants / "prepared.onnx"
    for chain in chains(subject.recipe):
        path = variants / f"{chain.name}.onnx"
        if reason := chain.unfit(subject):
            failed[chain.name] = f"not applicable here: {reason}"
            continue
        try:
            if not prepared.exists():
                _prepare(variants / "fp32.onnx", prepared)
            chain.compress(prepared, path, subject)
            scores[chain.name] = _answers(path, subject, manifest)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - a compressor may fail in any way, and the others still count
            failed[chain.name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            remove_model(path)
            _log.warning("%s could not be made: %s", chain.name, failed[chain.name])
    remove_model(prepared)
    return scores, failed


def _prepare(source: Path, target: Path) -> None:
    """Shapes inferred and constants folded, which ONNX Runtime asks for before any quantisation."""
    external = weights_beside(source).is_file()
    quant_pre_process(
        source,
        target,
        skip_symbolic_shape=True,
        # Beyond 2 GiB it would have to go through one protobuf message.
        skip_optimization=external,
        save_as_external_data=external,
        all_tensors_to_one_file=external,
        external_data_location=weights_beside(target).name if external else None,
    )


def _answers(path: Path, subject: Subject, manifest: Manifest) -> SplitScores:
    """A variant on the validation and the test split. Raises MaasflowError where an answer is not finite."""
    recipe, encoded = subject.recipe, subject.encoded
    run = run_session(open_session(path, recipe.serving.threads))
    found = {name: score_split(run, encoded.split(name), manifest.state_inputs, recipe.evaluation.calibration_bins) for name in _MEASURED}
    for split, scores in found.items():
        if lost := scores.unanswered:
            raise MaasflowError(f"{path.stem} has no finite answer for {len(lost)} of {len(scores)} {split} rows")
    return found


def measure(recipe: Recipe, manifest: Manifest, encoded: Encoded, folder: Path, scores: Mapping[str, SplitScores]) -> tuple[Variant, ...]:
    """The variants with what they reach on the validation and the test split and how fast."""
    sessions = open_variants({name: folder / "variants" / f"{name}.onnx" for name in scores}, recipe.serving.threads)
    latency = {rows: time_variants(sessions, _call(manifest, encoded.split("test"), rows)) for rows in (1, 32)}
    reference = scores["fp32"]["test"].predicted
    return tuple(
        describe_variant(
            folder,
            name,
            Measurements(
                metrics={split: answers.metrics() for split, answers in found.items()},
                latency_ms={str(rows): taken[name] for rows, taken in latency.items()},
                agreement=float((found["test"].predicted == reference).mean()),
                machine=this_machine(),
            ),
        )
        for name, found in scores.items()
    )


def _call(manifest: Manifest, split: EncodedSplit, rows: int) -> Tensors:
    """Inputs of so many test rows; of a language model, one token after each of so many texts."""
    if manifest.task == "classification":
        return split.tensors(np.arange(rows) % len(split))
    return {"input_ids": np.asarray(split.tokens[:rows], np.int64)[:, None], **first_state(manifest.state_inputs, rows)}


def choose(recipe: Recipe, candidates: tuple[Candidate, ...]) -> str:
    """The best candidate by the objective among those within the limits.

    Raises MaasflowError where there is none, naming the one that breaks the fewest.
    """
    fitting = [candidate for candidate in candidates if not candidate.misses]
    if not fitting:
        nearest = min(candidates, key=lambda candidate: len(candidate.misses))
        raise MaasflowError(
            f"no variant is within compression.limits; the nearest is {nearest.name}, which misses: {'; '.join(nearest.misses)}",
            "widen the limit in the recipe, or add a compressor",
        )
    objective = {
        "size": lambda candidate: candidate.bytes,
        "latency": lambda candidate: candidate.latency_ms,
        "throughput": lambda candidate: -candidate.rows_per_second,
    }[recipe.compression.objective]
    return min(fitting, key=objective).name


def _candidate(recipe: Recipe, variant: Variant, fp32: Variant) -> Candidate:
    metric, limits = recipe.evaluation.metric, recipe.compression.limits
    found, reference = variant.measurements, fp32.measurements
    assert found is not None
    assert reference is not None
    lost = drop(metric, found.metrics["validation"][metric], reference.metrics["validation"][metric])
    ratio, latency = variant.bytes / fp32.bytes, found.latency_ms["1"].p50
    checks = (
        (limits.metric_drop, lost, f"validation {metric} drop"),
        (limits.latency_ms, latency, "median ms for one row"),
        (limits.size_ratio, ratio, "size beside fp32"),
    )
    return Candidate(
        name=variant.name,
        bytes=variant.bytes,
        size_ratio=ratio,
        latency_ms=latency,
        rows_per_second=32e3 / found.latency_ms["32"].p50,
        validation_drop=lost,
        test=found.metrics["test"][metric],
        agreement=found.agreement,
        misses=tuple(f"{what} {value:.4g} is over {limit:g}" for limit, value, what in checks if limit is not None and not value <= limit),
    )
