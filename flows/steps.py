"""Each stage as a Prefect task, and what it leaves in MLflow."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.ahead import take_up
from flows.job import Base, Job
from flows.release import hold_here
from flows.searched import log_search
from flows.step import step
from tasks import versioning
from tasks.candidate_table import plain
from tasks.compress import CompressResult, InfeasibleError, write_findings
from tasks.compress import compress as compress_stage
from tasks.core.bundle import DatasetVersion
from tasks.core.encoded import Encoded
from tasks.core.errors import DataError, MaasflowError, RegistryError
from tasks.core.git import current_commit
from tasks.core.stages import RECORD, Done
from tasks.cross_validate import CrossValidateResult
from tasks.cross_validate import cross_validate as cross_validate_stage
from tasks.deploy import deploy as deploy_stage
from tasks.encode import EncodeResult
from tasks.encode import encode as encode_stage
from tasks.evaluate import EvaluateResult
from tasks.evaluate import evaluate as evaluate_stage
from tasks.export import ExportResult
from tasks.export import export as export_stage
from tasks.gate import GateResult
from tasks.gate import gate as gate_stage
from tasks.promote import promote as promote_stage
from tasks.register import RegisterResult
from tasks.register import register as register_stage
from tasks.tracking import CHALLENGER, CHAMPION, Run
from tasks.train import TrainResult
from tasks.train import train as train_stage
from tasks.training.loop import Epoch
from tasks.validate import read_report

_MINUTES, _HOURS = 60, 3600
_log = logging.getLogger("maasflow")


@step(timeout=6 * _HOURS, retries=1)
def data(job: Job) -> DatasetVersion:
    """Ask DVC for the dataset; a failed validation goes to MLflow before it stops the run."""
    build = take_up(job.recipe.dataset) or versioning.begin(job.workspace, job.recipe.dataset, force=job.force, log=_log.info)
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        _log.info(line)

    try:
        version = build.result(tell)
    except DataError:
        with suppress(RegistryError):
            _log_failed_validation(job)
        raise
    checks = len(read_report(job.workspace, version.name).checks)
    rows = ", ".join(f"{rows:,} {split}" for split, rows in version.rows.items())
    job.note(
        "data", time.perf_counter() - build.started, f"{version.name} {version.digest[:8]}: {rows}; {checks} checks passed", cached=not told
    )
    return version


@step(timeout=5 * _MINUTES, retries=1)
def begin(job: Job, version: DatasetVersion) -> Run:
    """The MLflow run of this content: parameters, dataset, validation and recipe."""
    commit = current_commit(job.workspace.root)
    run = job.tracking.run(job.name, f"{job.recipe_name} {version.digest[:8]}", job.keys(version).release, new=job.force)
    run.params(_flat(job.recipe.model_dump(mode="json")))
    run.tags(
        {
            "recipe": job.recipe_name,
            "dataset": version.name,
            "dataset_digest": version.digest,
            # What MLflow's page shows of a run's origin.
            "mlflow.note.content": job.recipe.description,
            "mlflow.source.name": f"maasflow run {job.recipe_name}",
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": commit.digest or "",
        }
    )
    run.dataset(version, f"data/{version.name}/prepared")
    run.artifacts(job.workspace.validated(version.name), "validation")
    run.text(job.recipe.model_dump_json(indent=1), "recipe.json")
    return run


@step(timeout=6 * _HOURS)
def encode(job: Job, version: DatasetVersion, base: Base | None) -> Done[EncodeResult]:
    done = job.store.run(
        "encode",
        job.keys(version).encode,
        EncodeResult,
        lambda out: encode_stage(job.recipe, job.dataset, job.workspace.prepared(version.name), out, base.encoded if base else None),
        force=job.force,
    )
    job.note_done(done)
    return done


@step(timeout=72 * _HOURS)
def train(job: Job, run: Run, version: DatasetVersion, encoded: Done[EncodeResult], base: Base | None) -> Done[TrainResult]:
    """Train; each epoch's figures are in MLflow as it ends."""
    done = job.store.run(
        "train",
        job.keys(version).train,
        TrainResult,
        lambda out: train_stage(
            job.recipe,
            len(job.dataset.classes),
            Encoded(encoded.folder),
            out,
            lambda epoch: log_epochs(run, epoch),
            base.trained if base else None,
        ),
        force=job.force,
        resumable=True,
    )
    log_epochs(run, *done.result.history)
    run.figures({"parameters": done.result.parameters, "train_seconds": done.seconds, "rows_at_once": done.result.part})
    run.tags({"device": done.result.device, "precision": done.result.precision})
    job.note_done(done)
    return done


@step(timeout=6 * _HOURS)
def evaluate(job: Job, run: Run, version: DatasetVersion, encoded: Done[EncodeResult], trained: Done[TrainResult]) -> Done[EvaluateResult]:
    done = job.store.run(
        "evaluate",
        job.keys(version).evaluate,
        EvaluateResult,
        lambda out: evaluate_stage(job.recipe, job.dataset.class_names, Encoded(encoded.folder), trained.folder, trained.result, out),
        force=job.force,
    )
    for name, interval in done.result.metrics.items():
        run.figures({f"test_{name}": interval.value, f"test_{name}_low": interval.low, f"test_{name}_high": interval.high})
    for report in done.result.classes:
        run.figures({f"class/{_metric_name(report.label)}/{what}": getattr(report, what) for what in ("precision", "recall", "f1")})
    run.artifacts(done.folder, "evaluation")
    job.note_done(done)
    return done


@step(timeout=72 * _HOURS)
def cross_validate(job: Job, run: Run, version: DatasetVersion, base: Base | None) -> tuple[dict[str, float], ...]:
    """Train once for each fold; the metrics of each."""
    done = job.store.run(
        "cross_validate",
        job.keys(version).cross_validate,
        CrossValidateResult,
        lambda out: cross_validate_stage(
            job.recipe, job.dataset, job.workspace.prepared(version.name), out, (base.encoded, base.trained) if base else None
        ),
        force=job.force,
        resumable=True,
    )
    for metric in done.result.folds[0]:
        run.figures({f"folds_{metric}": done.result.mean(metric), f"folds_{metric}_deviation": done.result.deviation(metric)})
    run.artifact(done.folder / "result.json", "cross_validation")
    job.note_done(done)
    return done.result.folds


@step(timeout=1 * _HOURS)
def export(job: Job, run: Run, version: DatasetVersion, encoded: Done[EncodeResult], trained: Done[TrainResult]) -> Done[ExportResult]:
    done = job.store.run(
        "export",
        job.keys(version).export,
        ExportResult,
        lambda out: export_stage(job.recipe, job.name, job.dataset, version, Encoded(encoded.folder), trained.folder, out),
        force=job.force,
    )
    run.figures({"export_parity": done.result.parity})
    job.note_done(done)
    return done


@step(timeout=6 * _HOURS)
def compress(
    job: Job, run: Run, version: DatasetVersion, encoded: Done[EncodeResult], trained: Path | None, exported: Path
) -> Done[CompressResult]:
    """Search for the best variant. Each that is made stays in the store, so that another budget chooses anew in seconds."""
    try:
        done = job.store.run(
            "compress",
            job.keys(version).compress,
            CompressResult,
            lambda out: compress_stage(
                job.recipe, Encoded(encoded.folder), exported, out, trained, job.store, job.workspace.prepared(version.name)
            ),
            force=job.force,
        )
    except InfeasibleError as error:
        with TemporaryDirectory() as folder:
            write_findings(error.picture, Path(folder))
            log_search(job, run, error.picture, Path(folder))
        _log.info("\n%s\n\nall of them in a picture: %s", plain(error.picture), run.place("compression/pareto.html"))
        raise
    log_search(job, run, done.result, done.folder)
    run.artifact(done.folder / RECORD, "compression")
    job.note_done(done)
    return done


@step(timeout=1 * _HOURS, retries=1)
def gate(job: Job, run: Run, version: DatasetVersion, compressed: Done[CompressResult], folds: tuple[dict[str, float], ...]) -> GateResult:
    """Judge the release. A failed gate is for `register` to stop at, so that the verdicts are in MLflow first."""
    with job.timed("gate") as figure:
        with _champion(job) as champion:
            result = gate_stage(job.recipe, job.dataset, job.workspace.prepared(version.name), compressed.folder, champion, folds)
        run.text(result.table() + "\n", "gates/verdicts.txt")
        run.text(result.model_dump_json(indent=1), "gates/verdicts.json")
        run.tags({"gates": "passed" if result.passed else "failed"})
        figure.append(result.figure)
    return result


@step(timeout=1 * _HOURS, retries=1)
def register(
    job: Job,
    run: Run,
    version: DatasetVersion,
    compressed: Done[CompressResult],
    gates: GateResult,
    trained: Path | None,
    parent: str | None = None,
) -> RegisterResult:
    """Register the bundle as challenger, its trained weights kept beside it. Raises GateError where a gate failed."""
    with job.timed("register") as figure:
        result = register_stage(
            job.recipe,
            job.keys(version).release,
            run,
            current_commit(job.workspace.root),
            compressed.folder,
            (compressed.result, gates),
            job.workspace.state / "releases" / run.id,
            parent,
            trained,
        )
        figure.append(result.figure)
    return result


@step(timeout=1 * _HOURS, retries=1)
def promote(job: Job, registered: RegisterResult) -> str:
    """Make the release champion where the recipe says that no review is wanted; the alias that it bears.

    Raises GateError where it was measured elsewhere and does not keep its limits on this machine.
    """
    with job.timed("promote") as figure:
        if job.recipe.release.approval == "review":
            figure.append("waits for review as challenger")
            return CHALLENGER
        release = job.tracking.version(registered.name, registered.version)
        told = hold_here(job.workspace, job.tracking, release)
        result = promote_stage(job.tracking, release)
        figure.append(f"champion, after {f'version {result.previous}' if result.previous else 'none'}{f'; {told}' if told else ''}")
        return CHAMPION


@step(timeout=1 * _HOURS, retries=1)
def deploy(job: Job) -> None:
    """Bring the served folder in line with the registry."""
    with job.timed("deploy") as figure:
        result = deploy_stage(job.tracking, job.workspace.served)
        if job.name in result.failed:
            raise MaasflowError(f"{job.name} was released but is not served: {result.failed[job.name]}", "run the same command again")
        figure.append(f"{len(result.served)} model{'s' * (len(result.served) != 1)} ready to serve")


@contextmanager
def _champion(job: Job) -> Iterator[tuple[str, Path] | None]:
    """The champion's version and its bundle, where the recipe has a gate that asks for it."""
    release = job.tracking.aliased(job.name, CHAMPION) if any(spec.get("kind") == "champion" for spec in job.recipe.gates) else None
    if release is None:
        yield None
        return
    here = job.workspace.served / job.name / release.version
    if here.is_dir():
        yield release.version, here
        return
    with TemporaryDirectory() as folder:
        yield release.version, job.tracking.fetch_bundle(job.name, release.version, Path(folder))


def log_epochs(run: Run, *epochs: Epoch) -> None:
    values = []
    for epoch in epochs:
        figures = {"train_loss": epoch.train_loss, "learning_rate": epoch.learning_rate}
        figures |= {f"validation_{name}": value for name, value in epoch.validation.items()}
        values += [(name, value, epoch.epoch, epoch.finished) for name, value in figures.items()]
    run.metrics(values)


def _log_failed_validation(job: Job) -> None:
    name = job.recipe.dataset
    if not (job.workspace.validated(name) / "report.json").is_file() or read_report(job.workspace, name).success:
        return
    run = job.tracking.run(job.name, f"{job.recipe_name} failed validation", f"validation of {name}")
    run.tags({"recipe": job.recipe_name, "dataset": name})
    run.artifacts(job.workspace.validated(name), "validation")
    run.end("FAILED")


def _flat(values: object, prefix: str = "") -> dict[str, object]:
    """Nested values by dotted path, as MLflow's flat parameters."""
    if isinstance(values, dict):
        return {path: value for key, item in values.items() for path, value in _flat(item, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): values}


def _metric_name(label: str) -> str:
    """A label with only the characters that MLflow takes in a metric's name."""
    return "".join(character if character.isalnum() or character in "_-. " else "_" for character in label)
