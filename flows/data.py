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
    for file in shipped_datasets():
        target = folder / "data" / file.name
        if not target.exists():
            shutil.copyfile(file, target)


def shipped_datasets() -> list[Path]:
    """The dataset files of the shipped recipes: in the package where it was built, beside it in a clone."""
    package = Path(str(resources.files("flows")))
    folder = package / "datasets" if (package / "datasets").is_dir() else package.parent / "data"
    return sorted(folder.glob("*.yaml"))
