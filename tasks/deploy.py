"""Deploy: bring the folder that the server reads in line with the registry's champions.

Level-triggered: it compares what is with what should be, so it does not matter who moved an alias, or how often it runs.
"""

import json
import logging
import shutil
import sys
import threading
from pathlib import Path

from filelock import FileLock

from tasks.core.bundle import Bundle
from tasks.core.config import Config
from tasks.core.errors import MaasflowError
from tasks.core.served import POINTER, pointed_at
from tasks.core.stages import replace_folder, write_text
from tasks.core.workspace import Workspace
from tasks.tracking import Tracking

_KEPT = 2
"""Versions of a model that stay on disk: the served one, and the one before it, for a rollback without a download."""

_log = logging.getLogger("maasflow.deploy")


class DeployResult(Config):
    """Champions by name with their versions, which of them changed, and why any could not be brought here."""

    served: dict[str, str]
    changed: tuple[str, ...]
    failed: dict[str, str]


def deploy(tracking: Tracking, served: Path) -> DeployResult:
    """Fetch and verify every champion that is not here yet, then point at it. A failure leaves that model as it was."""
    champions = tracking.champions()
    changed, failed = [], {}
    served.mkdir(parents=True, exist_ok=True)
    with FileLock(served / ".lock"):
        for name, version in champions.items():
            if pointed_at(served / name) == version:
                continue
            try:
                _bring(tracking, name, version, served / name)
                changed.append(name)
            except MaasflowError as error:
                failed[name] = error.what
                _log.warning("%s version %s is not served: %s", name, version, error.what)
        for folder in served.iterdir():
            if folder.is_dir() and folder.name not in champions and (folder / POINTER).exists():
                (folder / POINTER).unlink()
                changed.append(folder.name)
    return DeployResult(served={name: v for name, v in champions.items() if name not in failed}, changed=tuple(changed), failed=failed)


def follow(tracking: Tracking, served: Path, stop: threading.Event, seconds: float = 2.0) -> None:
    """Deploy again and again, `seconds` apart. A registry that is away leaves everything as it is, and is told of once."""
    told = ""
    while not stop.is_set():
        try:
            deploy(tracking, served)
            told = ""
        except MaasflowError as error:
            if error.what != told:
                _log.warning("%s", error.what)
            told = error.what
        stop.wait(seconds)


def _bring(tracking: Tracking, name: str, version: str, model: Path) -> None:
    target, partial = model / version, model / f".{version}.partial"
    if not target.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        bundle = tracking.fetch_bundle(name, version, partial)
        Bundle.open(bundle)
        replace_folder(bundle, target)
        shutil.rmtree(partial, ignore_errors=True)
    previous = pointed_at(model)
    write_text(model / POINTER, json.dumps({"version": version}))
    _prune(model, [version, *([previous] if previous else [])])


def _prune(model: Path, recent: list[str]) -> None:
    for folder in model.iterdir():
        if folder.is_dir() and folder.name not in recent[:_KEPT]:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """`python -m tasks.deploy WORKSPACE`: follow the registry until standard input ends."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    workspace = Workspace(Path(sys.argv[1]))
    stop = threading.Event()
    follower = threading.Thread(target=follow, args=(Tracking.of(workspace), workspace.served, stop), daemon=True)
    follower.start()
    sys.stdin.buffer.read()
    stop.set()


if __name__ == "__main__":
    main()
