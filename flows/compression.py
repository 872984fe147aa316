"""The compression flow: another search for the best variant of a release, with another budget."""

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

from prefect import flow
from prefect.runtime import flow_run

from flows import steps
from flows.environment import quiet_libraries
from flows.job import Job
from flows.step import step
from flows.training import ended
from tasks.compression.chain import chains
from tasks.core.bundle import Bundle, DatasetVersion
from tasks.core.errors import BundleError, ConfigError, RegistryError, SourceError
from tasks.core.machine import this_machine
from tasks.core.stages import Done, StageStore, content_key
from tasks.core.workspace import Workspace
from tasks.encode import EncodeResult, encode_by
from tasks.export import BUNDLE
from tasks.parent import ParentResult, WeightsResult, encode_key, recipe_of, require_dataset, take_up, take_weights
from tasks.plan import Keys
from tasks.releases import find_release
from tasks.tracking import CHALLENGER, Tracking
from tasks.train import TrainResult

_log = logging.getLogger("maasflow")


@dataclass
class Again(Job):
    """A job whose model is trained: that of a release."""

    bundle: Bundle = field(kw_only=True)
    """What `take_up` left of it, held against its digests."""
    parent: str = field(kw_only=True)
    """The release, in words."""

    @classmethod
    def of(cls, model: str, settings: tuple[str, ...] = (), *, root: Path | None = None) -> Self:
        """Fetch a release, and read its recipe. Raises RegistryError, ConfigError."""
        workspace = Workspace(root) if root else Workspace.current()
        tracking = Tracking.of(workspace)
        release = find_release(tracking, model)
        key = content_key("parent", release.name, release.version, release.run)
        done = StageStore(workspace.stages).run("parent", key, ParentResult, lambda out: take_up(tracking, release, out))
        bundle = Bundle.open(done.folder / BUNDLE)
        recipe = recipe_of(bundle, settings)
        dataset = workspace.dataset(recipe.dataset)
        return cls(workspace, release.name, recipe, dataset, bundle=bundle, parent=f"{release.name} version {release.version}")

    @property
    def name(self) -> str:
        return self.recipe.release.name or self.bundle.manifest.name

    @cached_property
    def base(self) -> Job | None:  # type: ignore[override]
        """An ordinary job: what the release's weights began from is no release."""
        return Job(self.workspace, self.recipe_name, self.recipe, self.dataset, self.bases_of).base

    def keys(self, version: DatasetVersion) -> Keys:
        """By the release's files; its training, and what came of it before compression, have none."""
        recipe, manifest = self.recipe, self.bundle.manifest
        encode = encode_key(manifest, version)
        compress = content_key("compress", encode, manifest, recipe.compression, recipe.evaluation, recipe.serving, this_machine())
        return Keys(
            encode,
            train="",
            evaluate="",
            cross_validate="",
            export="",
            compress=compress,
            release=content_key("again", compress, self.recipe),
        )

    def trained(self, version: DatasetVersion) -> Path | None:
        """The folder with the trained weights: of the training in this workspace, or fetched where a compressor begins with them."""
        # What the release was trained from, as a pretrained model, may be gone since.
        with suppress(ConfigError, SourceError):
            if done := self.store.find("train", super().keys(version).train, TrainResult):
                return done.folder
        weights = self.bundle.manifest.lineage.weights
        if weights is None or not any(chain.begins_trained for chain in chains(self.recipe)):
            return None
        try:
            key = content_key("weights", weights)
            return self.store.run("weights", key, WeightsResult, lambda out: take_weights(self.tracking, weights, out)).folder
        except (RegistryError, BundleError) as error:
            _log.warning("going on without the trained weights: %s", error.what)
            return None


@step(timeout=6 * 3600)
def encode(job: Again, version: DatasetVersion) -> Done[EncodeResult]:
    """The splits as the release's own transform encodes them."""
    prepared = job.workspace.prepared(version.name)
    done = job.store.run("encode", job.keys(version).encode, EncodeResult, lambda out: encode_by(job.bundle, prepared, out))
    job.note_done(done)
    return done


def _run_name() -> str:
    return f"compress {flow_run.parameters['model']}"


@flow(name="compression", flow_run_name=_run_name, persist_result=False)
def compression(model: str, settings: list[str] | None = None, *, workspace: Path | None = None) -> str:
    """Search for the best variant of a release, and register it as challenger; what to tell.

    `model` is NAME, NAME@ALIAS or NAME@VERSION; `settings` are `key.path=value` differences from its recipe.
    """
    quiet_libraries()
    job = Again.of(model, tuple(settings or ()), root=workspace)
    version = steps.data(job)
    require_dataset(job.bundle.manifest, job.parent, version)
    trained = job.trained(version)
    run = steps.begin(job, version)
    with ended(run):
        encoded = encode(job, version)
        compressed = steps.compress(job, run, version, encoded, trained, job.bundle.folder.parent)
        gates = steps.gate(job, run, version, compressed, ())
        if not gates.passed:
            _log.info("\n%s\n", compressed.result.table())
        registered = steps.register(job, run, version, compressed, gates, trained, job.parent)
    chosen = compressed.result
    return "\n".join(
        [
            chosen.table(),
            "",
            f"chosen   {chosen.choice.name}, the best by {job.recipe.compression.objective} within the limits: {chosen.figure.partition(': ')[2]}",
            f"release  {registered.name} version {registered.version} ({CHALLENGER}), from {job.parent}",
            f"run      {registered.run} in MLflow (maasflow ui): compression/pareto.html has the picture",
            f"next     maasflow promote {registered.name} {registered.version}    once it is reviewed",
        ]
    )
