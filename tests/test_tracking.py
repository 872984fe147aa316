"""MLflow as maasflow uses it: over a real embedded store, a real server, and servers that are away or broken."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.errors import MaasflowError, RegistryError
from tasks.core.workspace import Workspace
from tasks.tracking import CHAMPION, KEY, PARENT, Run, Tracking, tracking_uri
from tests.conftest import REPOSITORY
from tests.releases import add_champion, add_release, broken_server, stored
from tests.tiny import VERSION, Stages


@pytest.fixture
def remote(mlflow_address: str, tmp_path: Path) -> Tracking:
    """The same over HTTP."""
    return Tracking(mlflow_address, tmp_path / "unused")


def test_the_embedded_store_is_the_default(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(workspace) == f"sqlite:///{workspace.root}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert tracking_uri(workspace) == "http://somewhere:5000"
    assert not workspace.mlruns.exists()


def test_a_run_that_did_not_end_is_taken_up_again(tracking: Tracking) -> None:
    for status in (None, "FAILED", "KILLED"):
        first = tracking.run("points", "first", f"{status}")
        if status:
            first.end(status)
        again = Tracking(tracking.uri, tracking.folder).run("points", "again", f"{status}")
        assert again.id == first.id
        assert tracking.client.get_run(again.id).info.status == "RUNNING"


def test_a_run_that_ended_well_stays_as_it_is(tracking: Tracking) -> None:
    first = tracking.run("points", "first", "k")
    first.end()
    assert first.ended()
    assert tracking.run("points", "again", "k").id != first.id


def test_other_content_is_another_run(tracking: Tracking) -> None:
    assert tracking.run("points", "one", "k").id != tracking.run("points", "other", "l").id
    assert tracking.run("points", "one", "k").id != tracking.run("others", "one", "k").id


def test_a_deleted_experiment_is_restored_with_its_runs(tracking: Tracking) -> None:
    run = tracking.run("points", "first", "k")
    tracking.client.delete_experiment(experiment_of(tracking, run))
    assert experiment_of(tracking, tracking.run("points", "again", "k")) == experiment_of(tracking, run)


def test_two_that_make_the_experiment_at_once_share_it(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tracking.run("points", "first", "k")
    look = tracking.client.get_experiment_by_name
    answers = iter([None])
    monkeypatch.setattr(tracking.client, "get_experiment_by_name", lambda name: next(answers, look(name)))
    assert tracking._experiment("points") == experiment_of(tracking, run)


def everything(run: Run, folder: Path) -> None:
    """Log one of each."""
    (folder / "page.html").write_text("<p>")
    run.params({"model.hidden": [24], "training.epochs": 6})
    run.tags({"dataset": "points"})
    run.metrics([("train_loss", 0.5, 1, 1000.0), ("train_loss", 0.25, 2, 1001.0)])
    run.figures({"test_accuracy": 0.9})
    run.dataset(VERSION, "data/points/prepared")
    run.artifacts(folder, "validation")
    run.artifact(folder / "page.html", "more")
    run.text("table", "gates/verdicts.txt")


@pytest.mark.parametrize("where", ["tracking", "remote"])
def test_what_is_logged_twice_is_there_once(where: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found: Tracking = request.getfixturevalue(where)
    folder = tmp_path / "page"
    folder.mkdir()
    for _ in range(2):
        # A second look at the store, as a run that was killed and begun again takes.
        everything(Tracking(found.uri, found.folder).run("points", "first", "k"), folder)
    run = found.client.get_run(found.run("points", "first", "k").id)
    assert run.data.params == {"model.hidden": "[24]", "training.epochs": "6"}
    assert run.data.tags["dataset"] == "points"
    assert run.data.tags[KEY] == "k"
    history = {name: found.client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    assert {name: [(metric.value, metric.step) for metric in metrics] for name, metrics in history.items()} == {
        "train_loss": [(0.5, 1), (0.25, 2)],
        "test_accuracy": [(0.9, 0)],
    }
    assert run.inputs is not None
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == (VERSION.name, VERSION.digest)
    assert VERSION.raw in dataset.dataset.source
    assert [item.path for item in found.client.list_artifacts(run.info.run_id)] == ["gates", "more", "validation"]


def test_more_than_mlflow_takes_at_once_goes_in_parts(tracking: Tracking) -> None:
    run = tracking.run("points", "first", "k")
    run.metrics(("loss", 1 / step, step, float(step)) for step in range(1, 2502))
    run.params({f"p{number}": number for number in range(250)})
    assert len(tracking.client.get_metric_history(run.id, "loss")) == 2501
    assert len(tracking.client.get_run(run.id).data.params) == 250


@pytest.mark.parametrize("where", ["tracking", "remote"])
def test_a_version_holds_its_bundle_and_comes_back_whole(
    where: str, request: pytest.FixtureRequest, stages: Stages, tmp_path: Path
) -> None:
    found: Tracking = request.getfixturevalue(where)
    original = tmp_path / "original"
    release = add_champion(found, stages, "whole", "key", lambda made: shutil.copytree(made, original))
    assert release.tags[KEY] == "key"
    assert found.aliased("whole", CHAMPION) == found.version("whole", release.version)
    assert found.version("whole", 1).aliases == (CHAMPION,)
    assert found.release_of("whole", release.run) == found.version("whole", 1)
    bundle = found.fetch_bundle("whole", release.version, tmp_path / "fetched")
    files = [path.relative_to(original) for path in original.rglob("*") if path.is_file()]
    assert sorted(path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file()) == sorted(files)
    assert all((bundle / path).read_bytes() == (original / path).read_bytes() for path in files)


def test_champions_are_all_models_that_have_one(tracking: Tracking, stages: Stages) -> None:
    add_champion(tracking, stages, "one")
    add_release(tracking, stages, "two")
    add_champion(tracking, stages, "three")
    add_champion(tracking, stages, "three", "l")
    assert tracking.champions() == {"one": "1", "three": "2"}


def test_every_page_of_champions_is_read(tracking: Tracking, stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        add_champion(tracking, stages, name)
    whole = tracking.client.search_registered_models
    monkeypatch.setattr(tracking.client, "search_registered_models", lambda **options: whole(**options | {"max_results": 1}))
    assert set(tracking.champions()) == {"a", "b", "c"}


def test_what_is_not_there_is_none_or_told(tracking: Tracking, stages: Stages) -> None:
    assert tracking.aliased("points", CHAMPION) is None
    assert tracking.release_of("points", "0" * 32) is None
    add_release(tracking, stages)
    assert tracking.aliased("points", CHAMPION) is None
    with pytest.raises(RegistryError, match="the registry has no version 9 of a model 'points'"):
        tracking.version("points", "9")


def test_files_that_are_gone_from_the_store_are_told(tracking: Tracking, stages: Stages, tmp_path: Path) -> None:
    release = add_release(tracking, stages)
    shutil.rmtree(stored(tracking, release))
    with pytest.raises(RegistryError, match="failures occurred while downloading one or more artifacts"):
        tracking.fetch_bundle("points", "1", tmp_path / "fetched")


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def ask(tracking: Tracking) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        tracking.champions()
    return caught.value


@pytest.fixture
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow waits between tries."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def test_mlflow_is_told_not_to_try_for_minutes(tracking: Tracking) -> None:
    tracking.champions()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"


@pytest.mark.usefixtures("one_try")
def test_a_server_that_is_away_is_told_with_its_address_and_what_to_do(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{unused_port()}"
    error = ask(Tracking(uri, tmp_path))
    assert error.what.startswith(f"MLflow at {uri} did not do what was asked: ")
    assert error.what.endswith("Connection refused")
    assert error.do.startswith("start the server, see its log, or correct MLFLOW_TRACKING_URI")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("one_try")
def test_a_server_that_says_nothing_is_told_with_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        error = ask(Tracking(uri, tmp_path))
    assert error.what.startswith(f"MLflow at {uri} did not do what was asked: ")
    assert "timed out" in error.what


@pytest.mark.usefixtures("one_try")
def test_a_server_that_answers_with_its_own_failure_is_told(tmp_path: Path) -> None:
    with broken_server() as uri:
        assert ask(Tracking(uri, tmp_path)).what == f"MLflow at {uri} did not do what was asked: too many 500 error responses"


def test_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    assert "unsupported URI 'nonsense://x'" in ask(Tracking("nonsense://x", tmp_path)).what


def test_a_database_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, whatever its name says" * 100)
    error = ask(Tracking(f"sqlite:///{tmp_path}/mlflow.db", tmp_path))
    assert "file is not a database" in error.what
    assert str(tmp_path) in error.do


def test_a_full_disk_is_told_as_such(small_disk: Path, empty_store: Path) -> None:
    shutil.copyfile(empty_store, small_disk / "mlflow.db")
    tracking = Tracking(f"sqlite:///{small_disk}/mlflow.db", small_disk)
    run = tracking.run("points", "first", "k")
    with pytest.raises(MaasflowError, match="the disk is full"):
        run.metrics(("loss", 0.5, step, 1.0) for step in range(100_000))


_KILLED_AS_IT_IS_MADE = """
import os, signal, sys, threading, time
from pathlib import Path
from tasks.core.workspace import Workspace
from tasks.tracking import Tracking
workspace = Workspace(Path(sys.argv[1]))
def watch():
    while not (workspace.mlruns / "mlflow.partial").exists():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
Tracking.of(workspace).client
"""


def test_a_store_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED_AS_IT_IS_MADE, str(tmp_path)], cwd=REPOSITORY, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "mlruns" / "mlflow.db").exists()
    assert Tracking.of(Workspace(tmp_path)).champions() == {}


def experiment_of(tracking: Tracking, run: Run) -> str:
    return str(tracking.client.get_run(run.id).info.experiment_id)


def test_a_run_below_another_says_so_and_one_that_ended_well_is_opened_again_where_asked(tracking: Tracking) -> None:
    parent = tracking.run("points", "study", "s")
    child = tracking.run("points", "trial", "t", parent=parent)
    assert tracking.client.get_run(child.id).data.tags[PARENT] == parent.id
    parent.end()
    assert tracking.run("points", "study", "s", reopen=True).id == parent.id
    assert not parent.ended()
