"""Register: the gated bundle becomes a version in MLflow's registry, with all that a reviewer needs in its tags."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from tasks.compress import CompressResult
from tasks.core.bundle import MANIFEST, Bundle, Lineage, TrainedWeights
from tasks.core.file_digests import sha256
from tasks.core.git import Commit
from tasks.core.recipe import Recipe
from tasks.core.signature import sign_if_configured
from tasks.core.stages import StageResult, library_versions, link_file
from tasks.export import BUNDLE
from tasks.gate import GateResult
from tasks.tracking import BUNDLE_PATH, CHALLENGER, CONTENT, TRAFFIC, TRAINED_PATH, Run
from tasks.training.loop import WEIGHTS

_LONGEST = 5000
"""Characters of a description in MLflow's tables."""


class RegisterResult(StageResult):
    """The version that holds the bundle."""

    name: str
    version: str
    run: str

    @property
    def figure(self) -> str:
        return f"{self.name} version {self.version}"


def register(
    recipe: Recipe,
    key: str,
    run: Run,
    commit: Commit,
    compressed: Path,
    results: tuple[CompressResult, GateResult],
    out: Path,
    parent: str | None = None,
    trained: Path | None = None,
) -> RegisterResult:
    """Log the final bundle to the run and register it as challenger; a run that was killed here finds the version that it made.

    `parent` is the release that was compressed anew. The weights in the folder `trained` are logged beside the bundle, unless the
    parent's run has them. Raises RegistryError, GateError.
    """
    compression, gates = results
    gates.require()
    bundle = _finish(recipe, run, commit, compressed, out, (parent, trained))
    name = bundle.manifest.name
    release = run.tracking.release_of(name, run.id)
    if release is None:
        weights = bundle.manifest.lineage.weights
        if trained and weights and weights.run == run.id:
            run.artifact(trained / WEIGHTS, TRAINED_PATH)
        run.artifacts(bundle.folder, BUNDLE_PATH)
        choice = compression.choice
        metric = recipe.evaluation.metric
        tags = {
            CONTENT: sha256(bundle.folder / MANIFEST),
            "dataset": bundle.manifest.lineage.dataset.name,
            "dataset_digest": bundle.manifest.lineage.dataset.digest,
            "git_commit": (commit.digest or "none") + (" (with uncommitted changes)" if commit.dirty else ""),
            "variant": choice.name,
            "batch": choice.batch,
            "variant_sha256": bundle.manifest.variant().sha256,
            f"test_{metric}": f"{choice.test:.4f}",
            f"test_{metric}_fp32": f"{compression.candidates[0].test:.4f}",
            "size_kb": f"{choice.bytes / 1e3:.1f} ({choice.size_ratio:.2f} of fp32)",
            "latency_ms": f"{choice.latency_ms:.3f}",
            "memory_mb": f"{choice.memory_mb:.1f}",
            "machine": _machine(bundle),
            "gates": ", ".join(f"{verdict.gate} ok" for verdict in gates.verdicts) or "none",
            "compared_with": f"version {gates.champion}" if gates.champion else "no champion",
            "approval": recipe.release.approval,
            TRAFFIC: recipe.serving.challenger.words,
        }
        if parent:
            tags["parent"] = parent
        release = run.tracking.register(name, run.id, key, tags, f"{recipe.description}\n\n{gates.markdown()}".strip()[:_LONGEST])
    run.tracking.set_alias(name, CHALLENGER, release.version)
    shutil.rmtree(out)
    return RegisterResult(name=name, version=release.version, run=release.run)


def _finish(recipe: Recipe, run: Run, commit: Commit, compressed: Path, out: Path, origin: tuple[str | None, Path | None]) -> Bundle:
    """The bundle as it ships, signed where a key is configured: with this recipe and its lineage, by the parent and the trained weights that it came from."""
    parent, trained = origin
    source = Bundle.open(compressed / BUNDLE)
    folder = out / BUNDLE
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(source.folder, folder, copy_function=link_file)
    lineage = Lineage(
        dataset=source.manifest.lineage.dataset,
        git_commit=commit.digest,
        git_dirty=commit.dirty,
        mlflow_run=run.id,
        parent=parent,
        weights=source.manifest.lineage.weights or (_weights(run, trained) if trained else None),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=library_versions(),
    )
    bundle = Bundle(folder, source.manifest.replace(recipe=recipe.model_dump(mode="json"), lineage=lineage)).write()
    # Last: nothing rewrites a release. What compresses it anew makes another one, which comes through here too.
    sign_if_configured(folder)
    return bundle


def _weights(run: Run, trained: Path) -> TrainedWeights:
    return TrainedWeights(run=run.id, file=f"{TRAINED_PATH}/{WEIGHTS}", sha256=sha256(trained / WEIGHTS))


def _machine(bundle: Bundle) -> str:
    """Where the variant was measured, and by what."""
    found = bundle.manifest.variant().measurements
    if found is None:
        return "not measured"
    return str(found.place or found.machine)
