"""Training in several processes, as torchrun and accelerate launch start them, takes the steps of one."""

import os
import shutil
import subprocess
import sys

import pytest

from tasks import versioning
from tasks.core.workspace import Workspace
from tasks.plan import Plan
from tasks.train import TrainResult
from tests.conftest import REPOSITORY, AddDataset

RECIPE = """
dataset: people
model: {family: mlp, hidden: [16]}
training: {epochs: 3, batch_size: 33, accumulation: 2, learning_rate: 0.01, balance: weights, l1: 1.0e-4, clip_norm: 1.0, device: cpu}
"""


@pytest.fixture
def people(workspace: Workspace, add_people: AddDataset) -> Workspace:
    """A recipe whose last batch has one row, so that one of two processes has none."""
    versioning.init(workspace.root)
    add_people()
    (workspace.root / "recipes").mkdir()
    (workspace.root / "recipes" / "people.yaml").write_text(RECIPE)
    return workspace


def launch(workspace: Workspace, *launcher: str, recipe: str = "people") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *launcher, "tasks.train", recipe]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "MAASFLOW_WORKSPACE": str(workspace.root)}
    return subprocess.run(command, env=environment, cwd=workspace.root, capture_output=True, text=True, check=False, timeout=200)


def trained(workspace: Workspace) -> TrainResult:
    """What lies where `maasflow run` looks for it."""
    plan = Plan.open("people", root=workspace.root)
    version = versioning.version(workspace, "people")
    assert version
    found = plan.store.find("train", plan.keys(version).train, TrainResult)
    assert found
    return found.result


TWO = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(people: Workspace) -> None:
    done = launch(people)
    assert done.returncode == 0, done.stderr
    alone = trained(people)
    shutil.rmtree(people.stages / "train")
    done = launch(people, *TWO)
    assert done.returncode == 0, done.stderr
    together = trained(people)
    assert (alone.processes, together.processes) == (1, 2)
    for one, two in zip(alone.history, together.history, strict=True):
        assert two.train_loss == pytest.approx(one.train_loss, abs=1e-4)
        assert two.validation["log_loss"] == pytest.approx(one.validation["log_loss"], abs=1e-4)


def test_an_error_is_told_once(people: Workspace) -> None:
    done = launch(people, recipe="poeple")
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no recipe 'poeple'")
    assert "Traceback" not in done.stderr
