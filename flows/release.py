"""Releases by hand."""

import shutil

from tasks.core.errors import GateError
from tasks.core.workspace import Workspace
from tasks.deploy import deploy
from tasks.promote import promote
from tasks.tracking import KEY, Tracking


def promote_version(name: str, version: str) -> str:
    """Make a version champion and bring it to the served folder; what happened, in a line.

    Raises RegistryError for an unknown version, GateError for one that never passed maasflow's gates.
    """
    workspace = Workspace.current()
    tracking = Tracking.of(workspace)
    release = tracking.version(name, version)
    if KEY not in release.tags:
        raise GateError(f"{name} version {version} was not registered by maasflow, so no gate has seen it", "release it with maasflow run")
    result = promote(tracking, release)
    deploy(tracking, workspace.served)
    return f"{name} version {version} is champion, after {f'version {result.previous}' if result.previous else 'none'}"


def clean_stages() -> str:
    """Remove every cached stage; what was freed, in a line."""
    folder = Workspace.current().stages
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder, ignore_errors=True)
    return f"freed {size / 1e6:.1f} MB; the next run does every stage after the data again"
