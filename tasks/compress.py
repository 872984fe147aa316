"""Compress: make the recipe's variants, measure each here, and choose the best that the limits allow."""

import logging
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onnxruntime.quantization.shape_inference import quant_pre_process

from tasks.compression import Subject, remove_model, weights_beside
from tasks.compression.chain import chains
from tasks.compression.invariance import check_invariance
from tasks.compression.measure import requests, time_loads, time_variants
from tasks.compression.memory import session_memory
from tasks.core.bundle import Batch, Bundle, Invariance, Manifest, Measurements, Variant, describe_variant
from tasks.core.config import Config
from tasks.core.dataset import SplitName
from tasks.core.encoded import Encoded
from tasks.core.errors import MaasflowError
from tasks.core.machine import this_machine
from tasks.core.metrics import Interval, drop, paired_difference
from tasks.core.predictor import open_session, rows_alone, run_session, runtime_of
from tasks.core.recipe import Recipe
from tasks.core.scoring import Scores, score_split
from tasks.core.stages import StageResult, link_file
from tasks.export import BUNDLE

SCORES = "scores"
"""The folder with the test split's answers of every variant, as `<name>.npz`."""

SplitScores = dict[SplitName, Scores]
_MEASURED: Final[tuple[SplitName, ...]] = ("validation", "test")
ROWS: Final = 32
"""In the requests that throughput and memory are measured with."""

_log = logging.getLogger("maasflow.compress")


@dataclass(frozen=True)
class Made:
    """A variant, run as it will be served."""

    scores: SplitScores
    invariance: Invariance
    memory_mb: float

    @property
    def batch(self) -> Batch:
        return "any" if self.invariance.holds else "one"


class Miss(Config):
    """A limit that a variant breaks."""

    what: str
    value: float
    limit: float

    @property
    def relative(self) -> float:
        """How far beyond the limit, as a share of it; infinite for a limit of 0."""
        return (self.value - self.limit) / self.limit if self.limit else math.inf

    def __str__(self) -> str:
        return f"{self.what} {self.value:.4g} is over {self.limit:g}"

    @property
    def distance(self) -> str:
        by = f"{self.relative:.2%}" if self.limit else f"{self.value:.4g}"
        return f"{self.what} by {by} ({self.value:.4g}, the limit is {self.limit:g})"


class Candidate(Config):
    """A variant beside fp32. `misses` lists the limits that it breaks."""

    name: str
    bytes: int
    size_ratio: float
    batch: Batch
    """`one` where a row's answer depends on its neighbours, so that each is run alone: here and on the server."""
    load_ms: float
    memory_mb: float
    latency_ms: float
    """Median for one row."""
    p99_ms: float
    """For one row."""
    rows_per_second: float
    """In requests with 32 rows."""
    validation_drop: float
    test: float
    """The headline metric on the test split."""
    test_difference: Interval
    """How much better than fp32's that is: positive is better."""
    agreement: float
    misses: tuple[Miss, ...]


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
            f"validation drop {choice.validation_drop:+.4f}{', one row at a time' if choice.batch == 'one' else ''}"
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
    made, failed = make_variants(Subject(recipe, encoded), source.manifest, folder / "variants")
    variants = measure(recipe, source.manifest, encoded, folder, made)
    candidates = tuple(_candidate(recipe, variant, variants[0]) for variant in variants)
    chosen = choose(recipe, candidates)
    (out / SCORES).mkdir()
    for name, found in made.items():
        found.scores["test"].save(out / SCORES / f"{name}.npz")
    Bundle(folder, source.manifest.replace(variants=variants, chosen=chosen)).write()
    return CompressResult(chosen=chosen, candidates=candidates, failed=failed)


def make_variants(subject: Subject, manifest: Manifest, variants: Path) -> tuple[dict[str, Made], dict[str, str]]:
    """Write each chain's variant beside fp32; those that have an answer for every row, and why each of the rest has not."""
    made, failed = {"fp32": _run(variants / "fp32.onnx", subject, manifest)}, {}
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
            made[chain.name] = _run(path, subject, manifest)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - a compressor may fail in any way, and the others still count
            failed[chain.name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            remove_model(path)
            _log.warning("%s could not be made: %s", chain.name, failed[chain.name])
    remove_model(prepared)
    return made, failed


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


def _run(path: Path, subject: Subject, manifest: Manifest) -> Made:
    """A variant on the validation and the test split. Raises MaasflowError where an answer is not finite."""
    recipe, encoded, state = subject.recipe, subject.encoded, manifest.state_inputs
    session, validation, test = open_session(path, recipe.serving.threads), encoded.split("validation"), encoded.split("test")
    invariance = check_invariance(run_session(session), validation, state)
    batch: Batch = "any" if invariance.holds else "one"
    run = run_session(session, batch)
    scores = {name: score_split(run, encoded.split(name), state, recipe.evaluation.calibration_bins) for name in _MEASURED}
    for split, found in scores.items():
        if lost := found.unanswered:
            raise MaasflowError(f"{path.stem} has no finite answer for {len(lost)} of {len(found)} {split} rows")
    request = requests(test, state, ROWS)(0)
    memory = session_memory(path, recipe.serving.threads, rows_alone(request) if batch == "one" else [request])
    return Made(scores, invariance, memory)


def measure(recipe: Recipe, manifest: Manifest, encoded: Encoded, folder: Path, made: Mapping[str, Made]) -> tuple[Variant, ...]:
    """The variants with what they reach on the validation and the test split, how fast, and what they take."""
    files = {name: folder / "variants" / f"{name}.onnx" for name in made}
    loads = time_loads(files, recipe.serving.threads)
    sessions = {name: open_session(path, recipe.serving.threads) for name, path in files.items()}
    runs = {name: run_session(sessions[name], found.batch) for name, found in made.items()}
    latency = {rows: time_variants(runs, requests(encoded.split("test"), manifest.state_inputs, rows)) for rows in (1, ROWS)}
    reference = made["fp32"].scores["test"]
    return tuple(
        describe_variant(
            folder,
            name,
            Measurements(
                metrics={split: answers.metrics() for split, answers in found.scores.items()},
                test_difference=_difference(recipe, found.scores["test"], reference),
                agreement=float((found.scores["test"].predicted == reference.predicted).mean()),
                invariance=found.invariance,
                latency_ms={str(rows): taken[name] for rows, taken in latency.items()},
                load_ms=loads[name],
                memory_mb=found.memory_mb,
                machine=this_machine(),
                runtime=runtime_of(sessions[name]),
            ),
            found.batch,
        )
        for name, found in made.items()
    )


def _difference(recipe: Recipe, found: Scores, fp32: Scores) -> Interval:
    if found is fp32:
        return Interval(value=0.0, low=0.0, high=0.0)
    return paired_difference(found, fp32, recipe.evaluation.metric, recipe.evaluation.bootstrap, recipe.training.seed)


def choose(recipe: Recipe, candidates: tuple[Candidate, ...]) -> str:
    """The best candidate by the objective among those within the limits.

    Raises MaasflowError where there is none, naming the one whose largest miss, as a share of its limit, is the smallest.
    """
    fitting = [candidate for candidate in candidates if not candidate.misses]
    if not fitting:
        # By their values too, where the limits are 0 and every miss is infinitely far from them.
        nearest = min(candidates, key=lambda candidate: max((miss.relative, miss.value) for miss in candidate.misses))
        raise MaasflowError(
            f"infeasible; the nearest is {nearest.name}, which misses {', and '.join(miss.distance for miss in nearest.misses)}",
            "widen the limit in the recipe's compression.limits, or add a compressor",
        )
    objective = {
        "size": lambda candidate: candidate.bytes,
        "memory": lambda candidate: candidate.memory_mb,
        "latency": lambda candidate: candidate.latency_ms,
        "throughput": lambda candidate: -candidate.rows_per_second,
    }[recipe.compression.objective]
    return min(fitting, key=objective).name


def _candidate(recipe: Recipe, variant: Variant, fp32: Variant) -> Candidate:
    metric, limits = recipe.evaluation.metric, recipe.compression.limits
    found, reference = variant.measurements, fp32.measurements
    assert found is not None
    assert found.load_ms is not None
    assert found.memory_mb is not None
    assert found.test_difference is not None
    assert reference is not None
    lost = drop(metric, found.metrics["validation"][metric], reference.metrics["validation"][metric])
    ratio, latency = variant.bytes / fp32.bytes, found.latency_ms["1"]
    checks = (
        (limits.metric_drop, lost, f"validation {metric} drop"),
        (limits.latency_ms, latency.p50, "median ms for one row"),
        (limits.size_ratio, ratio, "size beside fp32"),
        (limits.memory_mb, found.memory_mb, "MB of memory"),
    )
    return Candidate(
        name=variant.name,
        bytes=variant.bytes,
        size_ratio=ratio,
        batch=variant.batch,
        load_ms=found.load_ms,
        memory_mb=found.memory_mb,
        latency_ms=latency.p50,
        p99_ms=latency.p99,
        rows_per_second=ROWS * 1e3 / found.latency_ms[str(ROWS)].p50,
        validation_drop=lost,
        test=found.metrics["test"][metric],
        test_difference=found.test_difference,
        agreement=found.agreement,
        misses=tuple(
            Miss(what=what, value=value, limit=limit) for limit, value, what in checks if limit is not None and not value <= limit
        ),
    )
