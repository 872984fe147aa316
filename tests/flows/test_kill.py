"""`maasflow run` killed in each stage in turn, and run again each time: the same release as an unbroken run, once."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.flows.conftest import KILLED, maasflow, make_workspace, patched

_WHEN_THERE = """
import threading, time
from pathlib import Path
assert not {condition}, "it is there before the stage begins"
def watch():
    while not {condition}:
        time.sleep(0.001)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
"""

_AFTER = """
import flows.steps
work = flows.steps.{name}
def killed(*arguments, **keywords):
    work(*arguments, **keywords)
    os.kill(os.getpid(), signal.SIGKILL)
flows.steps.{name} = killed
"""

_BEFORE_METHOD = """
from {module} import {owner}
work = {owner}.{name}
calls = []
def killed(*arguments, **keywords):
    calls.append(arguments)
    if len(calls) > {calls}:
        os.kill(os.getpid(), signal.SIGKILL)
    return work(*arguments, **keywords)
{owner}.{name} = killed
"""

_BEFORE_FUNCTION = """
import {module}
def killed(*arguments, **keywords):
    os.kill(os.getpid(), signal.SIGKILL)
{module}.{name} = killed
"""


def before(module: str, owner: str, name: str, calls: int = 0) -> str:
    return _BEFORE_METHOD.format(module=module, owner=owner, name=name, calls=calls)


STAGES = {
    "fetch": _WHEN_THERE.format(condition="Path('.maasflow/locks/data-digits.lock').exists()"),
    "validate": _WHEN_THERE.format(condition="Path('data/digits/raw').exists()"),
    "prepare": _WHEN_THERE.format(condition="Path('data/digits/validated/report.json').exists()"),
    "begin": before("tasks.tracking", "Run", "dataset"),
    "encode": _AFTER.format(name="encode_stage"),
    "train, in an epoch": before("tasks.training.checkpoint", "Checkpoint", "save", calls=3),
    "train, at its end": _AFTER.format(name="train_stage"),
    "evaluate": _AFTER.format(name="evaluate_stage"),
    "export": _AFTER.format(name="export_stage"),
    "compress": _AFTER.format(name="compress_stage"),
    "gate": _AFTER.format(name="gate_stage"),
    "register, before the version": before("tasks.tracking", "Tracking", "register"),
    "register, before the alias": before("tasks.tracking", "Tracking", "set_alias"),
    "promote, before the alias": before("tasks.tracking", "Tracking", "set_alias", calls=1),
    "deploy": _BEFORE_FUNCTION.format(module="tasks.delivery", name="replace_folder"),
    "after all of them": before("tasks.tracking", "Run", "end"),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_in_every_stage_ends_in_the_same_release(tmp_path: Path) -> None:
    broken, whole = make_workspace(tmp_path / "broken"), make_workspace(tmp_path / "whole")
    for stage, patch in STAGES.items():
        done = patched(broken, patch, "run", "small")
        assert done.code == KILLED, f"not killed in {stage}: {done.out}{done.err}"
    assert maasflow(broken, "run", "small").code == 0
    assert maasflow(whole, "run", "small").code == 0
    assert release(broken) == release(whole)
    with sqlite3.connect(broken / "mlruns" / "mlflow.db") as store:
        assert store.execute("select version from model_versions").fetchall() == [(1,)]
        assert store.execute("select alias, version from registered_model_aliases").fetchall() == [("champion", 1)]
        assert store.execute("select status from runs").fetchall() == [("FINISHED",)]


def release(workspace: Path) -> dict[str, str]:
    """The served release: its chosen variant and the digest of every file in it."""
    pointer = json.loads((workspace / ".maasflow/served/small/current.json").read_text())
    manifest = json.loads((workspace / ".maasflow/served/small" / pointer["version"] / "bundle.json").read_text())
    return {"chosen": manifest["chosen"], **{variant["name"]: variant["sha256"] for variant in manifest["variants"]}}
