"""The real command in a real workspace."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SMALL = """\
dataset: digits
model: {family: mlp, hidden: [32]}
training: {epochs: 4, learning_rate: 5.0e-3, checkpoint_steps: 20}
evaluation: {bootstrap: 100}
release: {approval: automatic}
"""
"""A recipe that takes a second to train."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without anything that would lead out of the workspace."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_", "MAASFLOW_W"))}
    # A home without Prefect profiles, and no bytecode written into the repository.
    return {**kept, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", **changes}


def maasflow(folder: Path, *arguments: str, **changes: str) -> Ended:
    """Run the command in the folder to its end."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(**changes), capture_output=True, text=True, check=False, timeout=240)
    return Ended(done.returncode, done.stdout, done.stderr)


Patched = Callable[..., Ended]


def patched(folder: Path, patch: str, *arguments: str) -> Ended:
    """Run the command in a process whose code was changed by the statements of `patch`."""
    script = f"import os, signal, sys\n{patch}\nfrom flows.cli import main\nsys.argv = ['maasflow', *{list(arguments)!r}]\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        # A process group of its own, which a patch can kill as a whole.
        start_new_session=True,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


KILLED = -signal.SIGKILL


def make_workspace(folder: Path) -> Path:
    done = maasflow(folder.parent, "init", str(folder))
    assert done.code == 0, done.err
    (folder / "recipes").mkdir()
    (folder / "recipes" / "small.yaml").write_text(SMALL)
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose digits are built. Not to be changed: copy it."""
    folder = make_workspace(tmp_path_factory.mktemp("built") / "workspace")
    done = maasflow(folder, "data", "build", "digits")
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def ready(built: Path, tmp_path: Path) -> Path:
    """A workspace of its own whose digits are built."""
    return Path(shutil.copytree(built, tmp_path / "workspace", symlinks=True))


def release_small(built: Path, folder: Path) -> Path:
    """A copy of a workspace with one finished run of the recipe `small`, whose release is champion; `out.txt` is what it printed."""
    shutil.copytree(built, folder, symlinks=True)
    done = maasflow(folder, "run", "small")
    assert done.code == 0, done.err
    (folder / "out.txt").write_text(done.out)
    return folder


@pytest.fixture(scope="session")
def released(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one release, for tests that only look."""
    return release_small(built, tmp_path_factory.mktemp("released") / "workspace")


@pytest.fixture(scope="module")
def own_release(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for the tests of one file, which may change it."""
    return release_small(built, tmp_path_factory.mktemp("own") / "workspace")
