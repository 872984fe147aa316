"""`maasflow tune`, killed and interrupted on its way: its trials, what MLflow shows of them, and a run of the best."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.flows.conftest import KILLED, Ended, environment, maasflow, patched
from tests.flows.test_kill import before

pytestmark = pytest.mark.slow

DATASET = """\
source: {kind: csv, path: points.csv}
columns: {a: {type: number}, b: {type: number}, side: {type: label, classes: [0, 1]}}
"""
RECIPE = """\
dataset: points
model: {family: mlp, hidden: [16]}
training: {epochs: 3, batch_size: 32}  # quick
evaluation: {bootstrap: 100}
release: {approval: automatic}
tuning:
  trials: 4
  startup: 1
  space:
    training.learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}
    model.hidden: {choices: [[8], [16], [32, 32]]}
"""
TUNED = "training: {epochs: 3, batch_size: 32, learning_rate: "


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning") / "workspace"
    assert maasflow(folder.parent, "init", str(folder)).code == 0
    rows = [f"{row * 37 % 101 / 50 - 1:.2f},{row * 53 % 103 / 51 - 1:.2f},{int(row * 37 % 101 > row * 53 % 103)}" for row in range(400)]
    (folder / "points.csv").write_text("\n".join(["a,b,side", *rows]) + "\n")
    (folder / "data" / "points.yaml").write_text(DATASET)
    (folder / "recipes").mkdir()
    (folder / "recipes" / "points.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def killed(points: Path) -> Ended:
    """In the second epoch of the second trial: a trial of three epochs saves three checkpoints."""
    return patched(points, before("tasks.training.checkpoint", "Checkpoint", "save", calls=4), "tune", "points")


@pytest.fixture(scope="module")
def tuned(points: Path, killed: Ended) -> Ended:
    assert killed.code == KILLED, killed.err
    return maasflow(points, "tune", "points")


@pytest.fixture(scope="module")
def mlflow(points: Path, tuned: Ended) -> MlflowClient:
    return MlflowClient(f"sqlite:///{points / 'mlruns' / 'mlflow.db'}")


def rows(out: str) -> list[str]:
    return re.findall(r"^ +\d+  (?:complete|pruned|failed) .*$", out, re.MULTILINE)


def values(row: str) -> str:
    return row[row.index("training.learning_rate=") :]


def test_a_killed_study_goes_on_with_what_is_left(killed: Ended, tuned: Ended) -> None:
    assert tuned.code == 0, tuned.err
    assert len(rows(killed.out)) == 1
    assert "1 of 4 trials are done already" in tuned.out
    assert [int(row.split()[0]) for row in rows(tuned.out)] == [1, 2, 3, 4]
    assert rows(tuned.out)[0] == rows(killed.out)[0]
    assert "next     maasflow run points-tuned" in tuned.out


def test_mlflow_shows_each_trial_once_below_the_study(mlflow: MlflowClient, tuned: Ended) -> None:
    experiment = mlflow.get_experiment_by_name("points")
    assert experiment
    runs = {run.info.run_name: run for run in mlflow.search_runs([experiment.experiment_id])}
    (study,) = [run for name, run in runs.items() if str(name).startswith("tune points")]
    assert len(runs) == 5
    assert study.info.status == "FINISHED"
    assert "space.model.hidden" in study.data.params
    best = [point.value for point in mlflow.get_metric_history(study.info.run_id, "best_log_loss")]
    assert best == sorted(best, reverse=True)
    for row in rows(tuned.out):
        number, state = row.split()[:2]
        trial = runs[f"trial {number}"]
        assert trial.data.tags["mlflow.parentRunId"] == study.info.run_id
        assert (trial.data.tags["state"], trial.info.status) == (state, "FINISHED" if state == "complete" else "KILLED")
        assert f"training.learning_rate={trial.data.params['training.learning_rate']} " in row
        steps = [point.step for point in mlflow.get_metric_history(trial.info.run_id, "validation_log_loss")]
        assert sorted(set(steps)) == list(range(1, len(set(steps)) + 1))
        assert state != "complete" or steps[-1] == 3
        assert state != "complete" or f"{trial.data.metrics['objective']:.4f}" in row


def test_a_trial_far_behind_is_stopped_early(tuned: Ended) -> None:
    assert any("pruned" in row for row in rows(tuned.out)), tuned.out


def test_the_best_is_a_recipe_whose_training_is_done(points: Path, tuned: Ended, tmp_path: Path) -> None:
    before, after = RECIPE.splitlines(), (points / "recipes" / "points-tuned.yaml").read_text().splitlines()
    changed = [line for line in after if line not in before and not line.startswith(("#", "description", "model"))]
    assert len(changed) == 1
    assert changed[0].startswith(TUNED)
    assert changed[0].endswith("}  # quick")
    assert [line for line in before if line not in after and not line.startswith("model")] == [before[2]]
    workspace = Path(shutil.copytree(points, tmp_path / "workspace", symlinks=True))
    done = maasflow(workspace, "run", "points-tuned")
    assert done.code == 0, done.err
    assert re.findall(r"^(\w+) +cached", done.out, re.MULTILINE) == ["data", "encode", "train"]


def test_what_is_done_is_told_at_once_and_a_lost_file_is_written_again(points: Path, tuned: Ended) -> None:
    path = points / "recipes" / "points-tuned.yaml"
    text = path.read_text()
    path.unlink()
    again = maasflow(points, "tune", "points", "--trials", "3")
    assert again.code == 0, again.err
    assert rows(again.out) == rows(tuned.out)
    assert "all 4 trials are done already" in again.out
    assert "· data" not in again.err
    assert path.read_text() == text


def test_values_that_do_not_fit_fail_and_end_a_study_where_all_do(points: Path, tuned: Ended) -> None:
    recipe = RECIPE.replace("{low: 1.0e-4, high: 1.0e-1, log: true}", "{low: 1.0e+30, high: 1.0e+37}").replace("trials: 4", "trials: 9")
    (points / "recipes" / "wild.yaml").write_text(recipe)
    done = maasflow(points, "tune", "wild")
    assert done.code == 1
    assert "the last 3 trials failed" in done.err
    assert "narrow tuning.space in recipes/wild.yaml" in done.err
    assert "Traceback" not in done.err
    assert len([row for row in rows(done.out) if "failed" in row]) == 3
    client = MlflowClient(f"sqlite:///{points / 'mlruns' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("wild")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FAILED"}
    assert sum("loss" in run.data.tags.get("reason", "") for run in runs) == 3
    assert not (points / "recipes" / "wild-tuned.yaml").exists()


def test_ctrl_c_says_how_to_go_on(points: Path, tuned: Ended) -> None:
    command = [sys.executable, "-m", "flows.cli", "tune", "points", "--trials", "500"]
    with subprocess.Popen(
        command, cwd=points, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        assert any(line.startswith("    5  ") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert re.search(r"\d+ of 500 trials are done; the same command goes on: maasflow tune points", err), err
    assert "Traceback" not in err
