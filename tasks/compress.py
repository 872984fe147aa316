"""Compress: make the recipe's variants, measure each here, and choose the best that the limits allow."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization.shape_inference import quant_pre_process

from tasks.compression import COMPRESSORS, Compressor
from tasks.compression.measure import open_variants, run_logits, time_variants
from tasks.core.bundle import Bundle, Measurements, Variant, describe_variant
from tasks.core.config import Config
from tasks.core.dataset import SplitName
from tasks.core.encoded import Encoded
from tasks.core.errors import MaasflowError
from tasks.core.machine import this_machine
from tasks.core.metrics import drop, score
from tasks.core.predictor import open_session, probabilities, unanswered
from tasks.core.recipe import Recipe
from tasks.core.stages import StageResult, link_file
from tasks.export import BUNDLE

LOGITS = "test_logits.npz"
"""Test-split logits of every variant, by its name."""

SplitLogits = dict[SplitName, npt.NDArray[np.float32]]
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
    link_file(source.file("fp32"), folder / "variants" / "fp32.onnx")
    logits, failed = make_variants(recipe, encoded, folder / "variants")
    variants = measure(recipe, encoded, folder, logits)
    candidates = tuple(_candidate(recipe, variant, variants[0]) for variant in variants)
    chosen = choose(recipe, candidates)
    np.savez(out / LOGITS, allow_pickle=False, **{name: found["test"] for name, found in logits.items()})
    Bundle(folder, source.manifest.replace(variants=variants, chosen=chosen)).write()
    return CompressResult(chosen=chosen, candidates=candidates, failed=failed)


def make_variants(recipe: Recipe, encoded: Encoded, variants: Path) -> tuple[dict[str, SplitLogits], dict[str, str]]:
    """Write each compressor's variant beside fp32; the logits of all that answer for every row, and why each of the rest does not."""
    logits, failed = {"fp32": _answers(variants / "fp32.onnx", encoded, recipe)}, {}
    prepared = variants / "prepared.onnx"
    for name, compressor in _compressors(recipe).items():
        path = variants / f"{name}.onnx"
        try:
            if not prepared.exists():
                # ONNX Runtime asks for this before any quantisation: shapes inferred, constants folded.
                quant_pre_process(variants / "fp32.onnx", prepared, skip_symbolic_shape=True)
            compressor.compress(prepared, path, encoded.split("train"))
            logits[name] = _answers(path, encoded, recipe)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - a compressor may fail in any way, and the others still count
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            path.unlink(missing_ok=True)
            _log.warning("%s could not be made: %s", name, failed[name])
    prepared.unlink(missing_ok=True)
    return logits, failed


def _answers(path: Path, encoded: Encoded, recipe: Recipe) -> SplitLogits:
    """A variant's logits for the validation and the test split. Raises MaasflowError where one is not finite."""
    session = open_session(path, recipe.serving.threads)
    found = {name: run_logits(session, encoded.split(name)) for name in _MEASURED}
    for split, logits in found.items():
        if lost := unanswered(logits):
            raise MaasflowError(f"{path.stem} has no finite answer for {len(lost)} of {len(logits)} {split} rows")
    return found


def measure(recipe: Recipe, encoded: Encoded, folder: Path, logits: Mapping[str, SplitLogits]) -> tuple[Variant, ...]:
    """The variants with what they reach on the validation and the test split and how fast."""
    sessions = open_variants({name: folder / "variants" / f"{name}.onnx" for name in logits}, recipe.serving.threads)
    splits = {name: encoded.split(name) for name in _MEASURED}
    latency = {rows: time_variants(sessions, splits["test"], rows) for rows in (1, 32)}
    reference = logits["fp32"]["test"].argmax(axis=1)
    return tuple(
        describe_variant(
            folder,
            name,
            Measurements(
                metrics={
                    split: score(probabilities(found[split]), rows.targets, recipe.evaluation.calibration_bins)
                    for split, rows in splits.items()
                },
                latency_ms={str(rows): taken[name] for rows, taken in latency.items()},
                agreement=float((found["test"].argmax(axis=1) == reference).mean()),
                machine=this_machine(),
            ),
        )
        for name, found in logits.items()
    )


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


def _compressors(recipe: Recipe) -> dict[str, Compressor]:
    """The recipe's compressors by variant name: the kind, numbered where one kind is used more than once."""
    found: dict[str, Compressor] = {}
    for index, spec in enumerate(recipe.compression.compressors):
        compressor = COMPRESSORS.build(spec, recipe.origin.below("compression", "compressors", index))
        name = str(spec["kind"])
        while name in found:
            name = f"{spec['kind']}-{index + 1}"
        found[name] = compressor
    return found
