"""MLflow: the runs that keep what was measured, and the registry that says what is served. The one place that imports it.

By default the store is embedded: SQLite and artifacts under the workspace's `mlruns/`. MLFLOW_TRACKING_URI (and
MLFLOW_REGISTRY_URI) name a server instead.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Dataset as RunDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository
from requests.exceptions import RequestException
from sqlalchemy.exc import SQLAlchemyError

from tasks.core.bundle import Bundle, DatasetVersion, Manifest
from tasks.core.errors import RegistryError, TookTooLongError, UnknownReleaseError, explain
from tasks.core.workspace import Workspace

CHAMPION, CHALLENGER = "champion", "challenger"
KEY = "maasflow.key"
"""The tag that holds the digest of everything that a run or a version was made from."""
TRAFFIC = "traffic"
"""The tag with what a version gets of the requests while it is challenger, in the words of `tasks.core.traffic`."""
CONTENT = "maasflow.bundle"
"""The tag with the SHA-256 of the bundle's manifest, which holds those of its files: what was reviewed is what is served."""
BUNDLE_PATH, TRAINED_PATH = "bundle", "trained"
_PAGE = 1000
"""Models in one answer of the registry, the most that MLflow gives."""
PARENT = "mlflow.parentRunId"
"""MLflow's tag that puts a run below another."""


@dataclass(frozen=True)
class Release:
    """A version in the registry."""

    name: str
    version: str
    run: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Tracking:
    """The workspace's MLflow."""

    uri: str
    folder: Path
    """Where the embedded store keeps artifacts."""

    @classmethod
    def of(cls, workspace: Workspace) -> "Tracking":
        return cls(tracking_uri(workspace), workspace.mlruns)

    @cached_property
    def client(self) -> MlflowClient:
        # MLflow retries a dead server for minutes unless told otherwise.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        # It tells of each database migration of a new store, and draws bars for downloads of a few kB.
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        with self.reachable():
            if self.embedded:
                _make_store(Path(self.uri.removeprefix("sqlite:///")))
            return MlflowClient(self.uri, os.environ.get("MLFLOW_REGISTRY_URI", self.uri))

    @property
    def embedded(self) -> bool:
        return self.uri.startswith("sqlite:///")

    @contextmanager
    def reachable(self) -> Iterator[None]:
        """Tell a store that cannot be reached, or refuses, as a RegistryError."""
        try:
            yield
        except (MlflowException, SQLAlchemyError, RequestException, ConnectionError) as error:
            # That of a server that says nothing is told with its address.
            if (known := explain(error)) and not isinstance(known, TookTooLongError):
                raise known from error
            raise RegistryError(f"MLflow at {self.uri} did not do what was asked: {_reason(error)}", self._advice) from error

    @property
    def _advice(self) -> str:
        if self.embedded:
            return f"look at {self.folder}, where the embedded store is; moved away, a new one is made"
        return "start the server, see its log, or correct MLFLOW_TRACKING_URI; without that variable the embedded store is used"

    def run(self, experiment: str, name: str, key: str, *, new: bool = False, reopen: bool = False, parent: "Run | None" = None) -> "Run":
        """The run for this content: unless it is to be `new`, the one that a killed or failed forerunner began, if any.

        With `reopen` also one that ended well. MLflow shows it below its `parent`.
        """
        with self.reachable():
            where = self._experiment(experiment)
            status = "" if reopen else " and attributes.status != 'FINISHED'"
            found = [] if new else self.client.search_runs([where], f"tags.`{KEY}` = '{key}'{status}", max_results=1)
            if found:
                self.client.update_run(found[0].info.run_id, status="RUNNING")
                return Run(self, found[0].info.run_id)
            below = {PARENT: parent.id} if parent else {}
            made = self.client.create_run(where, tags={KEY: key, **below}, run_name=name)
            return Run(self, made.info.run_id)

    def release_of(self, name: str, run: str) -> Release | None:
        """The version that the run's bundle was registered as, or None."""
        with self.reachable():
            found = self.client.search_model_versions(f"name = '{name}' and run_id = '{run}'")
            # A search leaves the aliases out (mlflow #16734).
            return self.version(name, found[0].version) if found else None

    def version(self, name: str, version: str | int) -> Release:
        """Raises UnknownReleaseError where there is no such version, and RegistryError."""
        with self.reachable():
            try:
                return _release(self.client.get_model_version(name, str(version)))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        raise UnknownReleaseError(f"the registry has no version {version} of a model '{name}'", "see what it has: maasflow ui")

    def aliased(self, name: str, alias: str) -> Release | None:
        """The version that bears the alias, or None."""
        with self.reachable():
            try:
                return _release(self.client.get_model_version_by_alias(name, alias))
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def champions(self) -> dict[str, str]:
        """Version by model name, for every model that has a champion."""
        return {name: found[CHAMPION] for name, found in self.aliases().items() if CHAMPION in found}

    def aliases(self) -> dict[str, dict[str, str]]:
        """Version by alias, by model name: one call for a thousand models."""
        with self.reachable():
            found: dict[str, dict[str, str]] = {}
            token = None
            while True:
                page = self.client.search_registered_models(max_results=_PAGE, page_token=token)
                found.update({model.name: {alias: str(version) for alias, version in model.aliases.items()} for model in page})
                token = page.token
                if not token:
                    return found

    def register(self, name: str, run: str, key: str, tags: Mapping[str, str], description: str) -> Release:
        """A new version with the run's bundle. Its tags are set as it is made, so that it is never seen without them."""
        with self.reachable():
            try:
                self.client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            made = self.client.create_model_version(
                name, f"runs:/{run}/{BUNDLE_PATH}", run, tags={**tags, KEY: key}, description=description
            )
            return _release(made)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        with self.reachable():
            self.client.set_registered_model_alias(name, alias, version)

    def drop_alias(self, name: str, alias: str) -> None:
        with self.reachable():
            self.client.delete_registered_model_alias(name, alias)

    def tag(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        with self.reachable():
            for key, value in tags.items():
                self.client.set_model_version_tag(name, version, key, value)

    def fetch_bundle(self, name: str, version: str, folder: Path) -> Path:
        """Download a version's bundle into the folder; where in it the bundle lies. Raises RegistryError where it is not there."""
        with self.reachable():
            return self._fetch(self.client.get_model_version_download_uri(name, version), folder)

    def manifest(self, name: str, version: str) -> Manifest:
        """What a version's bundle says of itself, without a download of its models. Raises RegistryError, BundleError."""
        with TemporaryDirectory() as folder:
            with self.reachable():
                uri = self.client.get_model_version_download_uri(name, version)
                self._fetch(f"{uri}/bundle.json", Path(folder))
            return Bundle.open(Path(folder), verify=False).manifest

    def fetch_artifact(self, run: str, path: str, folder: Path) -> Path:
        """Download a run's artifact into the folder; where in it the file lies. Raises RegistryError where it is not there."""
        with self.reachable():
            return self._fetch(f"runs:/{run}/{path}", folder)

    def _fetch(self, uri: str, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        if uri.startswith("runs:"):
            # Through the run's own address MLflow hides why a download failed.
            uri = RunsArtifactRepository.get_underlying_uri(uri, self.uri)
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=self.uri))

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found and found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        if found:
            return str(found.experiment_id)
        location = str(self.folder / "artifacts" / name) if self.embedded else None
        try:
            # Its page then shows what matters to a trained model, rather than to a chat.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(self.client.create_experiment(name, artifact_location=location, tags=tags))
        except MlflowException as error:
            made = self.client.get_experiment_by_name(name)
            if error.error_code == "RESOURCE_ALREADY_EXISTS" and made:
                return str(made.experiment_id)
            raise


@dataclass(frozen=True)
class Run:
    """One MLflow run. Logging the same thing twice, as after a kill, leaves it there once."""

    tracking: Tracking
    id: str

    def metrics(self, values: Iterable[tuple[str, float, int, float]]) -> None:
        """Metrics as (name, value, step, unix time in seconds), in as few calls as MLflow allows."""
        found = [Metric(name, float(value), int(moment * 1000), step) for name, value, step, moment in values]
        with self.tracking.reachable():
            for start in range(0, len(found), 1000):
                self.tracking.client.log_batch(self.id, metrics=found[start : start + 1000])

    def figures(self, values: Mapping[str, float]) -> None:
        """Metrics that have no step."""
        self.metrics((name, value, 0, self._began) for name, value in values.items())

    @cached_property
    def _began(self) -> float:
        """Unix time in seconds. MLflow keeps a value once for each time, so what has none of its own takes this one."""
        with self.tracking.reachable():
            return float(self.tracking.client.get_run(self.id).info.start_time / 1000)

    def params(self, values: Mapping[str, Any]) -> None:
        with self.tracking.reachable():
            found = [Param(name, str(value)[:6000]) for name, value in values.items()]
            for start in range(0, len(found), 100):
                self.tracking.client.log_batch(self.id, params=found[start : start + 100])

    def tags(self, values: Mapping[str, str]) -> None:
        with self.tracking.reachable():
            self.tracking.client.log_batch(self.id, tags=[RunTag(name, value) for name, value in values.items()])

    def dataset(self, version: DatasetVersion, source: str) -> None:
        """The dataset as an input of the run, with the digest by which DVC knows it."""
        entity = RunDataset(
            name=version.name,
            # MLflow keeps 36 characters.
            digest=version.digest[:36],
            source_type="dvc",
            source=json.dumps({"dvc": source, "raw": version.raw, "prepared": version.digest}),
            profile=json.dumps({"rows": version.rows}),
        )
        with self.tracking.reachable():
            self.tracking.client.log_inputs(self.id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])

    def artifacts(self, folder: Path, path: str | None = None) -> None:
        with self.tracking.reachable():
            self.tracking.client.log_artifacts(self.id, str(folder), path)

    def artifact(self, file: Path, path: str | None = None) -> None:
        with self.tracking.reachable():
            self.tracking.client.log_artifact(self.id, str(file), path)

    def text(self, text: str, file: str) -> None:
        with self.tracking.reachable():
            self.tracking.client.log_text(self.id, text, file)

    def place(self, path: str) -> str:
        """Where a person finds an artifact: its file in the embedded store, or its name in the run."""
        with self.tracking.reachable():
            root = str(self.tracking.client.get_run(self.id).info.artifact_uri)
        return f"{root}/{path}" if self.tracking.embedded else f"{path} of run {self.id} in MLflow"

    def ended(self) -> bool:
        with self.tracking.reachable():
            return bool(self.tracking.client.get_run(self.id).info.status == "FINISHED")

    def end(self, status: str = "FINISHED") -> None:
        """Status is FINISHED, FAILED or KILLED."""
        with self.tracking.reachable():
            self.tracking.client.set_terminated(self.id, status)


def _make_store(path: Path) -> None:
    """Make the embedded store, unless it is there, so that a kill leaves the whole of its tables or none: MLflow cannot mend a part."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            return
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        MlflowClient(f"sqlite:///{partial}").search_registered_models(max_results=1)
        partial.rename(path)


def tracking_uri(workspace: Workspace) -> str:
    """MLFLOW_TRACKING_URI, or the workspace's embedded store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{workspace.mlruns / 'mlflow.db'}"


def _reason(error: Exception) -> str:
    """The first line of what it says or, where urllib3 wrapped that in its own words, of the cause."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    cause = re.search(r"""Caused by \w+\(["'](?:.*?\): )?(.+?)["'],?\)""", text)
    return (cause[1] if cause else text)[:300]


def _release(version: ModelVersion) -> Release:
    return Release(version.name, str(version.version), version.run_id or "", dict(version.tags), tuple(version.aliases))
