"""Bad input to the command: one clear message, the right exit code, no traceback, and nothing that the next run trips over."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.check import check
from tasks.core.errors import ConfigError
from tasks.core.workspace import Workspace
from tests.conftest import REPOSITORY
from tests.flows.conftest import maasflow, make_workspace, patched

_TABLE = """\
source: {kind: csv, path: table.csv}
columns:
  age: {type: number}
  port: {type: category}
  outcome: {type: label, classes: [no, yes]}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A workspace with a dataset and a recipe of the user's own."""
    folder = make_workspace(tmp_path / "own")
    (folder / "data" / "table.yaml").write_text(_TABLE)
    (folder / "recipes" / "table.yaml").write_text("dataset: table\nmodel: {family: mlp, hidden: [8]}\ntraining: {epochs: 2}\n")
    rows = "".join(f"{20 + row / 7:.2f},{'abc'[row % 3]},{('no', 'yes')[row % 2]}\n" for row in range(400))
    (folder / "table.csv").write_text("age,port,outcome\n" + rows)
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "digts-mlp"], 1, ["there is no recipe 'digts-mlp'; did you mean 'digits-mlp'?", "recipes/digts-mlp.yaml"]),
        (["run", "small", "--set", "dataset=digts"], 1, ["there is no dataset 'digts'; did you mean 'digits'?"]),
        (["run", "small", "--set", "training.epocs=3"], 1, ["unknown key 'epocs'; did you mean 'epochs'?"]),
        (["run", "small", "--set", "training.epochs=three"], 1, ["'three' is not a whole number"]),
        (["run", "small", "--set", "training.epochs"], 1, ["expected KEY.PATH=VALUE"]),
        (["run"], 2, ["Missing argument 'RECIPE'"]),
        (["rnu"], 2, ["No such command 'rnu'"]),
        (["run", "small", "--forse"], 2, ["No such option '--forse'"]),
        (["data", "version", "digits"], 1, ["dataset 'digits' has no version yet", "maasflow data build digits"]),
        (["predict", "small", "missing.png"], 2, ["'missing.png' does not exist"]),
        (["predict", "small", "recipes/small.yaml"], 1, ["no champion of 'small' is here"]),
        (["schema", "recip"], 2, ["'recip' is not one of 'recipe', 'dataset'"]),
    ],
)
def test_what_a_mistake_says(tmp_path: Path, arguments: list[str], code: int, said: list[str]) -> None:
    done = maasflow(make_workspace(tmp_path / "workspace"), *arguments)
    assert done.code == code
    assert all(text in done.err for text in said), done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.family=mpl", ["model.family", "'mpl'", "did you mean 'mlp'?"]),
        ("model.hiden=[3]", ["unknown key 'hiden'; did you mean 'hidden'?"]),
        ("gates=[{kind: parrity}]", ["unknown gate 'parrity'; did you mean 'parity'?"]),
        ("compression.compressors=[{kind: int8_static, rows: 2}]", ["rows", "2"]),
    ],
)
def test_what_a_mistake_in_a_component_says(setting: str, said: list[str]) -> None:
    shipped = Workspace(REPOSITORY)
    recipe = shipped.recipe("digits-mlp", (setting,))
    with pytest.raises(ConfigError) as error:
        check(recipe, shipped.dataset(recipe.dataset))
    assert all(text in str(error.value) for text in said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("gates=[{kind: parrity}]", ["unknown gate 'parrity'"]),
        ("training.learning_rate=1.0e+30", ["the training loss became", "lower training.learning_rate"]),
        ("compression.limits.size_ratio=0.01", ["infeasible; the nearest is", "size beside fp32"]),
    ],
)
def test_what_a_run_that_cannot_end_says(ready: Path, setting: str, said: list[str]) -> None:
    done = maasflow(ready, "run", "small", "--set", setting)
    assert done.code == 1
    assert all(text in done.err for text in said), done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_debug_shows_the_traceback(ready: Path) -> None:
    done = maasflow(ready, "--debug", "run", "small", "--set", "gates=[{kind: parrity}]")
    assert done.code == 1
    assert "Traceback" in done.err


@pytest.mark.slow
def test_data_that_fails_validation_stops_the_run_and_is_kept_in_mlflow(own: Path) -> None:
    lines = (own / "table.csv").read_text().splitlines()
    (own / "table.csv").write_text("\n".join([*lines[:50], "old,a,maybe", *lines[50:]]) + "\n")
    done = maasflow(own, "run", "table")
    assert done.code == 1
    assert all(text in done.err for text in ("age", "row 50: old", "outcome", "row 50: maybe", "data/table.yaml")), done.err
    client = MlflowClient(f"sqlite:///{own / 'mlruns' / 'mlflow.db'}")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FAILED"
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id, "validation")} == {
        "validation/index.html",
        "validation/report.json",
    }
    assert not (own / ".maasflow" / "stages").exists()


@pytest.mark.slow
def test_a_csv_of_ones_own_is_served_in_words(own: Path) -> None:
    done = maasflow(own, "run", "table", "--set", "release.approval=automatic")
    assert done.code == 0, done.err
    (own / "rows.csv").write_text("age,port\n33,a\n44,unheard of\n")
    answers = [json.loads(line) for line in maasflow(own, "predict", "table", "rows.csv").out.splitlines()]
    assert [set(answer["probabilities"]) for answer in answers] == [{"no", "yes"}] * 2
    (own / "bad.csv").write_text("age,port\nforty,a\n")
    refused = maasflow(own, "predict", "table", "bad.csv")
    assert refused.code == 1
    assert "item 0: 'age' is 'forty', expected a number" in refused.err


@pytest.mark.slow
def test_a_registry_that_cannot_be_reached(ready: Path) -> None:
    done = maasflow(ready, "run", "small", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.code == 1
    assert "MLflow at http://127.0.0.1:9" in done.err
    assert "correct MLFLOW_TRACKING_URI" in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_a_prefect_server_that_cannot_be_reached(ready: Path) -> None:
    done = maasflow(ready, "run", "small", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.code == 1
    assert "Prefect's server at http://127.0.0.1:9/api does not answer" in done.err


_INTERRUPTED = """
import {module}
def interrupted(*arguments, **keywords):
    os.kill(os.getpid(), signal.SIGINT)
    import time
    time.sleep(60)
{module}.{name} = interrupted
"""

INTERRUPTED = {
    "while libraries are imported": "import threading, time\nthreading.Timer(1.2, os.kill, (os.getpid(), signal.SIGINT)).start()",
    "data": _INTERRUPTED.format(module="tasks.versioning", name="Build.result"),
    "encode": _INTERRUPTED.format(module="flows.steps", name="encode_stage"),
    "train": _INTERRUPTED.format(module="tasks.training.loop", name="Loop._finish_epoch"),
    "export": _INTERRUPTED.format(module="flows.steps", name="export_stage"),
    "register": _INTERRUPTED.format(module="flows.steps", name="register_stage"),
}


@pytest.mark.slow
def test_ctrl_c_in_any_stage_ends_with_130_and_the_next_run_goes_on(ready: Path) -> None:
    for stage, patch in INTERRUPTED.items():
        done = patched(ready, patch, "run", "small")
        assert done.code == 130, f"in {stage}: {done.err}"
        assert "Traceback" not in done.err, f"in {stage}: {done.err}"
    done = maasflow(ready, "run", "small")
    assert done.code == 0, done.err
    assert "train     cached" in done.out


@pytest.mark.slow
def test_a_full_disk_is_said_so(small_disk: Path) -> None:
    done = maasflow(make_workspace(small_disk / "workspace"), "run", "small")
    assert done.code == 1
    assert "the disk is full" in done.err
    assert "Traceback" not in done.err
