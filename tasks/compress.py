"""Compress: make the recipe's variants, measure each here, and choose the best that the limits allow."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.candidate import Candidate, Miss, choose, nearest
from tasks.candidate_table import comma_separated, plain
from tasks.compression import Subject
from tasks.compression.chain import chains
from tasks.compression.measure import requests, time_loads, time_variants
from tasks.core.bundle import Bundle, Measurements, Variant, describe_variant
from tasks.core.encoded import Encoded
from tasks.core.errors import MaasflowError
from tasks.core.machine import this_machine
from tasks.core.metrics import Interval, drop, paired_difference
from tasks.core.predictor import run_session, runtime_of
from tasks.core.recipe import Recipe
from tasks.core.scoring import Scores
from tasks.core.stages import StageResult, StageStore, link_file, write_text
from tasks.export import BUNDLE
from tasks.figures import draw_pareto
from tasks.golden import add_golden
from tasks.pareto_page import Picture, page
from tasks.search import Search
from tasks.workshop import ROWS, Made, Workshop

FINDINGS = ("pareto.html", "pareto.png", "candidates.txt", "candidates.csv")
"""What a person reads of a search."""

SCORES = "scores"
"""The folder with the test split's answers of every variant, as `<name>.npz`."""

_KEPT = "kept"
_CLEARLY = 1.05
"""How much faster a thread for each row must be measured than threads that share each operation, which are as fast for any number of rows."""


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

    def table(self) -> str:
        """The candidates for a person to read, and why the rest is not among them."""
        return plain(self)


class InfeasibleError(MaasflowError):
    """No variant is within the limits; `picture` has all that were made."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(
            f"infeasible; {nearest(picture.candidates)}", "widen the limit in the recipe's compression.limits, or add a compressor"
        )
        self.picture = picture

    def __reduce__(self) -> tuple[type[MaasflowError], tuple[Any, ...]]:
        return type(self), (self.picture,)


def compress(
    recipe: Recipe,
    encoded: Encoded,
    exported: Path,
    out: Path,
    trained: Path | None = None,
    store: StageStore | None = None,
    prepared: Path | None = None,
) -> CompressResult:
    """Write `bundle/` with all variants, measured, to `out`, and the picture of the search.

    `trained` is the folder with the trained weights, for what begins from them; what was made and asked is kept in `store`, so that
    another limit chooses anew in seconds. Golden rows come from the splits in `prepared`; without it there are none. Raises InfeasibleError where no variant is within the limits.
    """
    source = Bundle.open(exported / BUNDLE)
    folder = out / BUNDLE
    (folder / "variants").mkdir(parents=True)
    # Weights that stand beside a model are copied: onnx, which reads them to compress, refuses a file of several names.
    external = {name for variant in source.manifest.variants for name in variant.external}
    for file in source.manifest.files:
        (shutil.copyfile if file in external else link_file)(source.folder / file, folder / file)
    subject = Subject(recipe, encoded, len(source.manifest.labels), trained)
    workshop = Workshop(subject, source.manifest, folder / "variants" / "fp32.onnx", store or StageStore(out / _KEPT))
    search = Search(workshop)
    search.run(chains(recipe))
    for name, found in search.made.items():
        for part in found.path.parent.glob(f"{found.path.name}*") if name != "fp32" else ():
            link_file(part, folder / "variants" / part.name.replace(found.path.stem, name, 1))
    shutil.rmtree(out / _KEPT, ignore_errors=True)
    variants = measure(workshop, folder, search.made)
    candidates = tuple(_candidate(recipe, variant, variants[0]) for variant in variants)
    best = choose(recipe.compression.objective, candidates)
    picture = Picture(
        source.manifest.name,
        recipe.evaluation.metric,
        recipe.compression.objective,
        recipe.compression.limits,
        candidates,
        best.name if best else None,
        search.failed,
        this_machine(),
    )
    if best is None:
        raise InfeasibleError(picture)
    (out / SCORES).mkdir()
    for name, found in search.made.items():
        found.scores["test"].save(out / SCORES / f"{name}.npz")
    # As they were measured, which the export before may not have known of.
    served = {"threads": recipe.serving.threads, "device": recipe.serving.device}
    bundle = Bundle(folder, source.manifest.replace(variants=variants, chosen=best.name, **served)).write()
    if prepared and recipe.serving.golden:
        add_golden(bundle, encoded, prepared, recipe.serving.golden)
    write_findings(picture, out)
    return CompressResult(chosen=best.name, candidates=candidates, failed=search.failed)


def write_findings(picture: Picture, folder: Path) -> None:
    """Write what a search found, as a page, a plot and tables."""
    write_text(folder / "pareto.html", page(picture))
    draw_pareto(picture, folder / "pareto.png")
    write_text(folder / "candidates.txt", plain(picture) + "\n")
    write_text(folder / "candidates.csv", comma_separated(picture))


def measure(workshop: Workshop, folder: Path, made: Mapping[str, Made]) -> tuple[Variant, ...]:
    """The variants with what they reach on the validation and the test split, how fast, and what they take.

    The threads of each share what makes it the fastest: by throughput where that is the objective, else for one row.
    """
    recipe, test, state = workshop.subject.recipe, workshop.subject.encoded.split("test"), workshop.manifest.state_inputs
    files = {name: folder / "variants" / f"{name}.onnx" for name in made}
    loads = time_loads(files, workshop.open)
    sessions = {
        (name, way): session for name, found in made.items() for way, session in workshop.sessions(files[name], found.parallel).items()
    }
    runs = {(name, way): run_session(session, made[name].batch) for (name, way), session in sessions.items()}
    latency = {rows: time_variants(runs, requests(test, state, rows)) for rows in (1, ROWS)}
    fastest = latency[ROWS if recipe.compression.objective == "throughput" else 1]
    ways = {
        name: min((way for of, way in runs if of == name), key=lambda way: fastest[name, way].p50 * (_CLEARLY if way == "rows" else 1.0))
        for name in made
    }
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
                latency_ms={str(rows): taken[name, ways[name]] for rows, taken in latency.items()},
                load_ms=loads[name],
                memory_mb=found.memory_mb,
                machine=this_machine(),
                runtime=runtime_of(sessions[name, ways[name]]),
            ),
            found.batch,
            ways[name],
        )
        for name, found in made.items()
    )


def _difference(recipe: Recipe, found: Scores, fp32: Scores) -> Interval:
    if found is fp32:
        return Interval(value=0.0, low=0.0, high=0.0)
    return paired_difference(found, fp32, recipe.evaluation.metric, recipe.evaluation.bootstrap, recipe.training.seed)


def against_limits(recipe: Recipe, variant: Variant, fp32: Variant) -> dict[str, tuple[float | None, float, str]]:
    """By the name of each limit: the limit, what a variant reaches, and what that is."""
    metric, limits = recipe.evaluation.metric, recipe.compression.limits
    found, reference = variant.measurements, fp32.measurements
    assert found is not None
    assert found.memory_mb is not None
    assert reference is not None
    lost = drop(metric, found.metrics["validation"][metric], reference.metrics["validation"][metric])
    return {
        "metric_drop": (limits.metric_drop, lost, f"validation {metric} drop"),
        "latency_ms": (limits.latency_ms, found.latency_ms["1"].p50, "median ms for one row"),
        "size_ratio": (limits.size_ratio, variant.bytes / fp32.bytes, "size beside fp32"),
        "memory_mb": (limits.memory_mb, found.memory_mb, "MB of memory"),
    }


def _candidate(recipe: Recipe, variant: Variant, fp32: Variant) -> Candidate:
    metric, found, checks = recipe.evaluation.metric, variant.measurements, against_limits(recipe, variant, fp32)
    assert found is not None
    assert found.load_ms is not None
    assert found.test_difference is not None
    assert found.invariance is not None
    return Candidate(
        name=variant.name,
        bytes=variant.bytes,
        size_ratio=checks["size_ratio"][1],
        batch=variant.batch,
        parallel=variant.parallel,
        load_ms=found.load_ms,
        memory_mb=checks["memory_mb"][1],
        latency_ms=checks["latency_ms"][1],
        p99_ms=found.latency_ms["1"].p99,
        rows_per_second=ROWS * 1e3 / found.latency_ms[str(ROWS)].p50,
        validation=found.metrics["validation"][metric],
        validation_drop=checks["metric_drop"][1],
        test=found.metrics["test"][metric],
        test_difference=found.test_difference,
        agreement=found.agreement,
        calibration_error=found.metrics["test"].get("calibration_error"),
        invariance=found.invariance,
        misses=tuple(
            Miss(what=what, value=value, limit=limit) for limit, value, what in checks.values() if limit is not None and not value <= limit
        ),
    )
