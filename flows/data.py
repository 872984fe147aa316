"""Datasets by themselves, without a recipe."""

import shutil
from importlib import resources
from pathlib import Path

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


def init_workspace(folder: Path) -> None:
    """Make the folder a workspace that can run the shipped recipes. What is there already stays as it is."""
    versioning.init(folder)
    copies = [(file, folder / "data" / file.name) for file in shipped_datasets()]
    copies += [(file, folder / "docs" / "schema" / file.name) for file in shipped_schemas()]
    for file, target in copies:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def shipped_datasets() -> list[Path]:
    """The dataset files of the shipped recipes."""
    return sorted(_shipped("datasets", "data").glob("*.yaml"))


def shipped_schemas() -> list[Path]:
    """The JSON Schemas that the first line of a recipe or dataset file names; made by `make schema`."""
    return sorted(_shipped("schema", "docs/schema").glob("*.json"))


def _shipped(inside: str, beside: str) -> Path:
    """A folder in the package where it was built, beside it in a clone."""
    package = Path(str(resources.files("flows")))
    return package / inside if (package / inside).is_dir() else package.parent / beside
