"""How a command ends: one clear message for a failure that a person can act on, and the exit code that scripts rely on."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from filelock import FileLock

from tasks.core.errors import MaasflowError, explain
from tasks.core.workspace import Workspace

INTERRUPTED: Final = 130
FAILURE_FILE: Final = "MAASFLOW_FAILURE_FILE"
"""Where this variable names a file, a failing stage leaves its error there for the process that started it."""


def report(error: BaseException) -> int:
    """Print how a command failed, to stderr; the exit code. With MAASFLOW_DEBUG=1 the error is raised instead."""
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    if os.environ.get("MAASFLOW_DEBUG") == "1":
        raise error
    known = explain(error) or MaasflowError(
        f"unexpected {type(error).__name__}: {error}",
        "this is a defect of maasflow: run again with MAASFLOW_DEBUG=1 and report the traceback",
    )
    print(f"error: {known}", file=sys.stderr)
    return known.exit_code


def run_stage(stage: Callable[[Workspace, str], object]) -> NoReturn:
    """The `main` of `python -m tasks.<stage> NAME`: run the stage on that dataset, and exit."""
    _tell(logging.getLogger("tasks"))
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(
            f"usage: python -m {stage.__module__ if stage.__module__ != '__main__' else 'tasks.' + stage.__name__} DATASET", file=sys.stderr
        )
        sys.exit(2)
    name = sys.argv[1]
    try:
        workspace = Workspace.current()
        with stage_lock(workspace, name):
            stage(workspace, name)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last frame before the shell
        leave_failure(error)
        sys.exit(report(error))
    sys.exit(0)


def _tell(logger: logging.Logger) -> None:
    """Show what this logger says as plain lines on stdout. Not the root's: libraries say much there."""
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler(sys.stdout))


def stage_lock(workspace: Workspace, name: str) -> FileLock:
    """Held while a stage of a dataset runs: one whose parent was killed finishes before the next begins."""
    folder = workspace.state / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"data-{name}.lock")


def leave_failure(error: BaseException) -> None:
    """Write the error where FAILURE_FILE says, if it says so and if the error is one that a person can act on."""
    path, known = os.environ.get(FAILURE_FILE), explain(error)
    if not path or known is None:
        return
    try:
        Path(path).write_text(json.dumps({"kind": type(known).__name__, "what": known.what, "do": known.do}))
    except OSError:
        return  # The disk may be the failure.


def read_failure(path: Path) -> MaasflowError | None:
    """The error that a stage left in the file, as the class that it was."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    direct = MaasflowError.__subclasses__()
    kinds: dict[str, type[MaasflowError]] = {
        kind.__name__: kind for kind in (*direct, *(below for kind in direct for below in kind.__subclasses__()))
    }
    return kinds.get(found["kind"], MaasflowError)(found["what"], found["do"])
