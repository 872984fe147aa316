"""`maasflow run` to its end, and what it leaves: in the registry, in MLflow's runs, and for the next run."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.conftest import REPOSITORY
from tests.flows.conftest import environment, maasflow

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mlflow(released: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{released / 'mlruns' / 'mlflow.db'}")


def test_it_tells_every_stage_the_release_and_what_to_type_next(released: Path) -> None:
    out = (released / "out.txt").read_text()
    stages = [line.split()[0] for line in out.splitlines() if re.search(r"  (run|cached)  ", line)]
    assert stages == ["data", "encode", "train", "evaluate", "export", "compress", "gate", "register", "promote", "deploy"]
    assert "release  small version 1 (champion)" in out
    assert "maasflow predict small FILE" in out


def test_the_version_carries_what_a_reviewer_needs(mlflow: MlflowClient) -> None:
    version = mlflow.get_model_version_by_alias("small", "champion")
    assert {"dataset", "dataset_digest", "git_commit", "variant", "test_accuracy", "latency_ms", "gates", "promoted_by"} <= set(
        version.tags
    )
    assert "challenger" not in version.aliases
    assert "parity" in str(version.description)


def test_the_run_keeps_figures_curves_pictures_data_and_recipe(mlflow: MlflowClient) -> None:
    run = mlflow.get_run(str(mlflow.get_model_version_by_alias("small", "champion").run_id))
    assert run.info.status == "FINISHED"
    assert {"test_accuracy", "test_accuracy_low", "class/7/recall", "export_parity", "variant/int8_dynamic/latency_ms"} <= set(
        run.data.metrics
    )
    assert [point.step for point in mlflow.get_metric_history(run.info.run_id, "validation_log_loss")] == [1, 2, 3, 4]
    assert run.data.params["training.epochs"] == "4"
    assert run.inputs
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == run.data.tags["dataset_digest"]
    found = {
        artifact.path
        for folder in ("evaluation", "validation", "gates", "bundle")
        for artifact in mlflow.list_artifacts(run.info.run_id, folder)
    }
    assert {
        "evaluation/confusion.png",
        "evaluation/calibration.png",
        "evaluation/curves.png",
        "validation/index.html",
        "validation/report.json",
        "gates/verdicts.txt",
        "bundle/bundle.json",
    } <= found


def test_the_bundle_knows_where_it_came_from(released: Path) -> None:
    manifest = json.loads((released / ".maasflow/served/small/1/bundle.json").read_text())
    assert manifest["recipe"]["training"]["epochs"] == 4
    assert manifest["lineage"]["mlflow_run"]
    assert manifest["lineage"]["dataset"]["rows"]["test"] > 300
    assert {"torch", "onnx", "numpy"} <= set(manifest["lineage"]["versions"])


def test_a_second_run_does_nothing_and_says_the_same(released: Path) -> None:
    done = maasflow(released, "run", "small")
    assert done.code == 0, done.err
    assert done.out.count("cached") == 10
    assert "release  small version 1 (champion)" in done.out


def test_only_what_a_setting_changes_is_done_again(released: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(released, tmp_path / "workspace", symlinks=True))
    done = maasflow(workspace, "run", "small", "--set", "compression.objective=latency", "--set", "release.name=other")
    assert done.code == 0, done.err
    cached = [line.split()[0] for line in done.out.splitlines() if "  cached  " in line]
    assert cached == ["data", "encode", "train", "evaluate"]


def test_force_does_all_again_and_makes_a_version(released: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(released, tmp_path / "workspace", symlinks=True))
    done = maasflow(workspace, "run", "small", "--force")
    assert done.code == 0, done.err
    assert "cached" not in done.out
    assert "release  small version 2 (champion)" in done.out


def test_a_registry_that_was_removed_gets_the_release_again(released: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(released, tmp_path / "workspace", symlinks=True))
    shutil.rmtree(workspace / "mlruns")
    done = maasflow(workspace, "run", "small")
    assert done.code == 0, done.err
    assert "train     cached" in done.out
    assert "release  small version 1 (champion)" in done.out


def test_a_failed_gate_registers_nothing_and_keeps_the_evidence(ready: Path) -> None:
    done = maasflow(ready, "run", "small", "--set", "gates=[{kind: metric_floor, minimum: 0.999}, {kind: parity}]")
    assert done.code == 1
    assert "1 of 2 gates failed (metric_floor); nothing was registered" in done.err
    assert "FAIL" in done.err
    assert "Traceback" not in done.err
    client = MlflowClient(f"sqlite:///{ready / 'mlruns' / 'mlflow.db'}")
    assert not client.search_registered_models()
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FAILED"
    assert "test_accuracy" in run.data.metrics
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id, "gates")} == {"gates/verdicts.json", "gates/verdicts.txt"}


def test_a_release_under_review_is_served_once_it_is_promoted(ready: Path) -> None:
    done = maasflow(ready, "run", "small", "--set", "release.approval=review")
    assert done.code == 0, done.err
    assert "maasflow promote small 1" in done.out
    image = ready / "image.json"
    image.write_text(json.dumps([[0] * 8] * 8))
    assert "no champion of 'small' is here" in maasflow(ready, "predict", "small", str(image)).err
    assert maasflow(ready, "promote", "small", "1").out == "small version 1 is champion, after none\n"
    answer = json.loads(maasflow(ready, "predict", "small", str(image)).out)
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_a_run_in_another_folder_than_the_workspaces(released: Path, tmp_path: Path) -> None:
    done = maasflow(tmp_path, "run", "small", MAASFLOW_WORKSPACE=str(released))
    assert done.code == 0, done.err
    assert not list(tmp_path.iterdir())


def test_a_release_that_another_superseded_says_so_and_a_lost_bundle_is_brought_back(released: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(released, tmp_path / "workspace", symlinks=True))
    shutil.rmtree(workspace / ".maasflow" / "served")
    assert "deploy    run" in maasflow(workspace, "run", "small").out
    assert (workspace / ".maasflow/served/small/current.json").is_file()
    assert maasflow(workspace, "run", "small", "--set", "training.seed=1").code == 0
    assert "(superseded)" in maasflow(workspace, "run", "small").out


_AS_A_WORKER = """
import sys
from pathlib import Path
import flows.steps
from flows.training import training
from tasks.core.errors import RegistryError
work, tried = flows.steps.register_stage, []
def away_at_first(*arguments, **keywords):
    tried.append(1)
    if len(tried) == 1:
        raise RegistryError("away", "try again")
    return work(*arguments, **keywords)
flows.steps.register_stage = away_at_first
summary = training("small", workspace=Path(sys.argv[1]))
print(summary.name, summary.version, summary.alias, len(tried))
"""


def test_the_flow_runs_as_a_worker_would_run_it_and_tries_an_absent_registry_again(ready: Path) -> None:
    command = [sys.executable, "-c", _AS_A_WORKER, str(ready)]
    environ = environment(PREFECT_HOME=str(ready / "prefect"))
    done = subprocess.run(command, env=environ, cwd=ready, capture_output=True, text=True, check=False, timeout=240)
    assert done.stdout.splitlines()[-1:] == ["small 1 champion 2"], done.stderr


def test_the_demo_answers_over_http_as_alone(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    assert maasflow(tmp_path, "init", str(folder)).code == 0
    done = maasflow(folder, "demo")
    assert done.code == 0, done.err
    table = [line.split()[0] for line in (REPOSITORY / "README.md").read_text().split("```text\n")[1].split("```")[0].splitlines()]
    assert [line.split()[0] for line in done.out.strip().splitlines()[: len(table)]] == table
    metric = re.search(r"test accuracy ([\d.]+)", done.out)
    assert metric
    assert float(metric[1]) >= 0.96
    assert re.search(r"chose int8_\w+: .* validation drop [-+]0\.00", done.out)
    answers = re.findall(r"(?:answer over HTTP|maasflow predict) +(\d)  \(probability ([\d.]+)", done.out)
    assert len(answers) == 2
    assert answers[0] == answers[1]


def test_mnist_mlp_reaches_what_the_classic_reaches(mirror: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    assert maasflow(tmp_path, "init", str(folder)).code == 0
    done = maasflow(folder, "run", "mnist-mlp", MAASFLOW_MIRROR=str(mirror))
    assert done.code == 0, done.err
    metric = re.search(r"test accuracy ([\d.]+) \[.*\] on 10,000 rows", done.out)
    assert metric
    assert float(metric[1]) >= 0.975
    assert "release  mnist-mlp version 1 (champion)" in done.out
