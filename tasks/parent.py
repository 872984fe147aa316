"""A registered release as what is taken up again: to search for another variant of it, or to measure it elsewhere."""

from pathlib import Path
from typing import Any, Final

from tasks.compression import standard
from tasks.core.bundle import Bundle, DatasetVersion, Manifest, TrainedWeights
from tasks.core.config import Origin, override
from tasks.core.errors import BundleError, ConfigError, DataError
from tasks.core.file_digests import sha256
from tasks.core.recipe import Recipe
from tasks.core.stages import StageResult, code_key, content_key, replace_folder
from tasks.export import BUNDLE
from tasks.tracking import Release, Tracking
from tasks.training.loop import WEIGHTS

_AFTER: Final = ("compression", "evaluation", "gates", "release", "serving")
"""The sections of a recipe that may differ from those that the model was trained by."""


class ParentResult(StageResult):
    """The release's fp32 variant alone."""

    name: str
    version: str


def take_up(tracking: Tracking, release: Release, out: Path) -> ParentResult:
    """Write the release's bundle, with fp32 alone and unmeasured, to `out`. Raises RegistryError, BundleError."""
    found = Bundle.open(tracking.fetch_bundle(release.name, release.version, out / "fetched"))
    fp32 = found.manifest.variant("fp32").model_copy(update={"measurements": None})
    kept = {*fp32.files, *found.manifest.transform.files}
    for file in [path for path in found.folder.rglob("*") if path.is_file() and path.name != "bundle.json"]:
        if str(file.relative_to(found.folder)) not in kept:
            file.unlink()
    Bundle(found.folder, found.manifest.replace(variants=(fp32,), chosen="fp32", golden=None)).write()
    replace_folder(found.folder, out / BUNDLE)
    return ParentResult(name=release.name, version=release.version)


class WeightsResult(StageResult):
    """The trained weights of a release, where `tasks.train.load` looks for them."""


def take_weights(tracking: Tracking, weights: TrainedWeights, out: Path) -> WeightsResult:
    """Write the trained weights of a release to `out`. Raises RegistryError where its run lost them, BundleError where they differ."""
    fetched = tracking.fetch_artifact(weights.run, weights.file, out / "fetched")
    if sha256(fetched) != weights.sha256:
        raise BundleError(f"{weights.file} of the MLflow run {weights.run} differs from its digest", "train anew with maasflow run")
    fetched.rename(out / WEIGHTS)
    return WeightsResult()


def recipe_of(bundle: Bundle, settings: tuple[str, ...]) -> Recipe:
    """The recipe that a bundle was made by, with `--set` differences in what comes after training. Raises ConfigError."""
    for setting in settings:
        section = setting.partition("=")[0].partition(".")[0]
        if section not in _AFTER:
            raise ConfigError(
                f"--set {setting}: '{section}' decides what is trained, and this model is trained already",
                f"set something of {', '.join(_AFTER)}, or train anew with maasflow run",
            )
    # What the folds of the training reached is not changed by compression.
    gates = [gate for gate in bundle.manifest.recipe["gates"] if gate.get("kind") != "cross_validation"]
    values: dict[str, Any] = {**bundle.manifest.recipe, "gates": gates}
    values["compression"] = _widened(values["compression"], settings)
    origin = Origin(file=f"the recipe of {bundle.manifest.name}").overridden(settings)
    return Recipe.parse(override(values, settings), origin).fitted_to(bundle.manifest.task)


def _widened(compression: dict[str, Any], settings: tuple[str, ...]) -> dict[str, Any]:
    """The section with the standard compressors beside its own, unless a setting says which are tried: then with those alone."""
    if any(_decides(setting, "compression.compressors") for setting in settings):
        return {**compression, "fallback": []}
    own, fallback = list(compression["compressors"]), list(compression.get("fallback", []))
    return {
        **compression,
        "compressors": own + [chain for chain in map(_plain, standard.COMPRESSORS) if chain not in own],
        "fallback": fallback + [chain for chain in map(_plain, standard.FALLBACK) if chain not in fallback],
    }


def _plain(chain: dict[str, Any] | tuple[dict[str, Any], ...]) -> dict[str, Any] | list[dict[str, Any]]:
    """A chain as a recipe in a manifest has it."""
    return chain if isinstance(chain, dict) else list(chain)


def _decides(setting: str, path: str) -> bool:
    """Whether a `--set` gives what is at the path, or a part of it."""
    key = setting.partition("=")[0]
    return f"{key}.".startswith(f"{path}.") or f"{path}.".startswith(f"{key}.")


def require_dataset(manifest: Manifest, release: str, version: DatasetVersion) -> None:
    """Raises DataError unless this is the dataset that the release, which is named in words, was trained on."""
    wanted = manifest.lineage.dataset
    if version.digest != wanted.digest:
        commit = manifest.lineage.git_commit
        raise DataError(
            f"{release} was trained on {wanted.name} {wanted.digest[:8]}, the workspace has {version.digest[:8]}",
            f"check out {commit[:8] if commit else 'the commit'} for dvc.lock and data/{wanted.name}.yaml, or train anew with maasflow run",
        )


def encode_key(manifest: Manifest, version: DatasetVersion) -> str:
    """Everything on which the splits depend, as the release's own transform encodes them."""
    return content_key("encode", code_key(), version.digest, manifest.transform, list(manifest.columns))
