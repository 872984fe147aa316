"""Datasets by themselves, without a recipe."""

from tasks import versioning
from tasks.core.bundle import DatasetVersion
from tasks.core.errors import DataError
from tasks.core.workspace import Workspace


def version_digest(name: str) -> str:
    """The digest of the dataset's current version. Raises ConfigError for an unknown dataset, DataError for one never built."""
    workspace = Workspace.current()
    workspace.dataset(name)
    version = versioning.version(workspace, name)
    if version is None:
        raise DataError(f"dataset '{name}' has no version yet", f"make one: maasflow data build {name}")
    return version.digest


def build_dataset(name: str, *, force: bool) -> str:
    """Fetch, validate and prepare; the version in a line."""
    workspace = Workspace.current()
    workspace.dataset(name)
    version: DatasetVersion = versioning.build(workspace, name, force=force)
    return f"{version.digest}  {', '.join(f'{rows:,} {split}' for split, rows in version.rows.items())}"
