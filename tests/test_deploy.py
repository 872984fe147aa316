"""Deploy: what is served is what the registry says, verified, and never a half of it."""

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from tasks import delivery
from tasks import deploy as module
from tasks.core.bundle import Bundle
from tasks.core.errors import RegistryError
from tasks.core.predictor import this_place
from tasks.core.served import POINTER, PROBLEM, pointed_at, problem_in
from tasks.core.signature import create_signing_key
from tasks.core.stages import replace_folder
from tasks.delivery import clean_up
from tasks.deploy import Versions, deploy, follow
from tasks.places import PASSED, tag_of
from tasks.tracking import CHALLENGER, CHAMPION, CONTENT, TRAFFIC, Release, Tracking
from tests.conftest import REPOSITORY
from tests.releases import add_champion, add_release, as_from_elsewhere, flip_a_byte, stored
from tests.tiny import Stages


@pytest.fixture
def served(tmp_path: Path) -> Path:
    return tmp_path / "served"


def versions(model: Path) -> list[str]:
    return sorted(path.name for path in model.iterdir() if path.is_dir())


def test_a_champion_is_brought_verified_and_pointed_at(tracking: Tracking, stages: Stages, served: Path) -> None:
    add_champion(tracking, stages)
    found = deploy(tracking, served)
    assert (found.wanted, found.served, found.changed, found.failed) == ({"points": "1"}, {"points": "1"}, ("points",), {})
    assert json.loads((served / "points" / POINTER).read_text()) == {"version": "1"}
    fetched = Bundle.open(served / "points" / "1").manifest
    assert fetched == Bundle.open(stages.folder("compressed") / "bundle").manifest
    assert sorted(path.name for path in (served / "points").iterdir()) == ["1", POINTER]


def test_with_nothing_new_nothing_is_done(tracking: Tracking, stages: Stages, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_champion(tracking, stages)
    deploy(tracking, served)
    monkeypatch.setattr(Tracking, "fetch_bundle", lambda *_: pytest.fail("it was fetched again"))
    assert deploy(tracking, served).changed == ()


def test_without_champions_nothing_is_served(tracking: Tracking, served: Path) -> None:
    assert deploy(tracking, served).served == {}


def test_the_served_version_and_the_one_before_it_stay(tracking: Tracking, stages: Stages, served: Path) -> None:
    for key in "abcd":
        add_champion(tracking, stages, key=key)
        deploy(tracking, served)
    assert versions(served / "points") == ["3", "4"]


def test_going_back_needs_no_download(tracking: Tracking, stages: Stages, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in "ab":
        add_champion(tracking, stages, key=key)
        deploy(tracking, served)
    tracking.set_alias("points", CHAMPION, "1")
    monkeypatch.setattr(Tracking, "fetch_bundle", lambda *_: pytest.fail("it was fetched again"))
    assert deploy(tracking, served).served == {"points": "1"}
    assert versions(served / "points") == ["1", "2"]


def test_going_back_to_files_that_rotted_fetches_them_anew(tracking: Tracking, stages: Stages, served: Path) -> None:
    for key in "ab":
        add_champion(tracking, stages, key=key)
        deploy(tracking, served)
    flip_a_byte(served / "points" / "1")
    tracking.set_alias("points", CHAMPION, "1")
    assert deploy(tracking, served).served == {"points": "1"}
    Bundle.open(served / "points" / "1")


def test_a_model_without_its_champion_is_served_no_more(tracking: Tracking, stages: Stages, served: Path) -> None:
    for name in ("points", "others"):
        add_champion(tracking, stages, name)
    deploy(tracking, served)
    tracking.drop_alias("points", CHAMPION)
    found = deploy(tracking, served)
    assert (found.served, found.changed) == ({"others": "1"}, ("points",))
    assert pointed_at(served / "points") is None
    assert deploy(tracking, served).changed == ()
    tracking.set_alias("points", CHAMPION, "1")
    assert deploy(tracking, served).served == {"others": "1", "points": "1"}


def lie(tracking: Tracking, statement: str) -> None:
    """Write into the registry's own database what it would refuse."""
    with closing(sqlite3.connect(tracking.uri.removeprefix("sqlite:///"))) as database, database:
        database.execute(statement)


def make_broken(kind: str, tracking: Tracking, stages: Stages, name: str) -> None:
    """A second version of the model, champion, whose files are not what they should be."""
    release = add_champion(tracking, stages, name, "broken")
    folder = stored(tracking, release)
    match kind:
        case "a flipped byte":
            flip_a_byte(folder)
        case "a missing file":
            Bundle.open(folder).file().unlink()
        case "no files":
            shutil.rmtree(folder)
        case "another format":
            (folder / "bundle.json").write_text('{"format": 99}')
        case "another's bundle":
            Bundle(folder, Bundle.open(folder).manifest.replace(name="others")).write()
        case "another digest":
            tracking.tag(name, release.version, {CONTENT: "0" * 64})
        case "a path outside":
            manifest = Bundle.open(folder).manifest
            Bundle(folder, manifest.replace(variants=(manifest.variant().model_copy(update={"file": "../1/x"}),))).write()
        case "no version":
            lie(tracking, f"DELETE FROM model_versions WHERE name = '{name}' AND version = {release.version}")
        case _:
            tracking.client.delete_model_version_tag(name, release.version, "maasflow.key")


def remarks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "its figures are of another machine" in message]


def test_figures_of_another_machine_are_remarked_on_once_and_served(
    tracking: Tracking, stages: Stages, served: Path, caplog: pytest.LogCaptureFixture
) -> None:
    as_from_elsewhere(stored(tracking, add_champion(tracking, stages)))
    assert deploy(tracking, served).served == {"points": "1"}
    deploy(tracking, served)
    (remark,) = remarks(caplog)
    assert remark.startswith("points version 1 is served, but ")
    assert "not Another Processor" in remark
    assert remark.endswith("to take them again: maasflow promote points 1")


def test_figures_of_this_machine_need_no_remark_whether_of_the_bundle_or_taken_again(
    tracking: Tracking, stages: Stages, served: Path, caplog: pytest.LogCaptureFixture
) -> None:
    as_from_elsewhere(stored(tracking, add_champion(tracking, stages)))
    tracking.tag("points", "1", {tag_of(this_place(1)): f"{PASSED}: as was measured"})
    add_champion(tracking, stages, "others")
    assert deploy(tracking, served).served == {"points": "1", "others": "1"}
    assert remarks(caplog) == []


BROKEN = {
    "a flipped byte": "differs from its digest",
    "a missing file": " is missing",
    "no files": "failures occurred while downloading",
    "another format": "has the format 99",
    "another's bundle": "its bundle is one of the model 'others', not of 'points'",
    "another digest": "bundle.json differs from the digest in the version's tag maasflow.bundle",
    "a path outside": "lies outside of the bundle",
    "no version": "the registry has no version 2 of a model 'points'",
    "another tool's": "points version 2 was not registered by maasflow",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_champion_keeps_the_old_one_and_holds_up_no_other(
    kind: str, tracking: Tracking, stages: Stages, served: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_champion(tracking, stages)
    deploy(tracking, served)
    make_broken(kind, tracking, stages, "points")
    for name in ("a-first", "z-last"):
        add_champion(tracking, stages, name)
    found = deploy(tracking, served)
    assert found.served == {"a-first": "1", "points": "1", "z-last": "1"}
    assert list(found.failed) == ["points"]
    assert BROKEN[kind] in found.failed["points"]
    assert caplog.messages == [f"points version 2 is not served: {found.failed['points']}"]
    assert sorted(path.name for path in (served / "points").iterdir()) == ["1", POINTER, PROBLEM]
    problem = problem_in(served / "points")
    assert problem
    assert problem.what.startswith("version 2 cannot be brought here: ")
    # What clients are shown names no folder of this machine.
    assert str(served.parent) not in problem.what
    tracking.set_alias("points", CHAMPION, "1")
    deploy(tracking, served)
    assert problem_in(served / "points") is None


def test_a_problem_is_counted_until_it_heals_or_nobody_wants_the_model(tracking: Tracking, stages: Stages, served: Path) -> None:
    make_broken("a flipped byte", tracking, stages, "points")
    retries = Versions(first=0.0)
    for tries in (1, 2, 3):
        deploy(tracking, served, retries)
        problem = problem_in(served / "points")
        assert problem
        assert problem.tries == tries
    tracking.drop_alias("points", CHAMPION)
    deploy(tracking, served, retries)
    assert problem_in(served / "points") is None


def test_a_champion_that_is_mended_is_served(tracking: Tracking, stages: Stages, served: Path) -> None:
    release = add_champion(tracking, stages)
    flip_a_byte(stored(tracking, release))
    assert deploy(tracking, served).served == {}
    shutil.rmtree(stored(tracking, release))
    shutil.copytree(stages.folder("compressed") / "bundle", stored(tracking, release))
    assert deploy(tracking, served).served == {"points": "1"}


def test_a_version_that_rests_is_passed_over(tracking: Tracking, stages: Stages, served: Path) -> None:
    add_champion(tracking, stages)
    retries = Versions()
    retries.failed(("points", "1"), "it failed")
    assert deploy(tracking, served, retries).served == {}
    add_champion(tracking, stages, key="another")
    assert deploy(tracking, served, retries).served == {"points": "2"}


class KilledError(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("at", ["fetch_bundle", "replace_folder", "write_text", "prune"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_anywhere_the_old_or_the_new_is_served_and_the_next_look_ends_it(
    at: str, moment: str, tracking: Tracking, stages: Stages, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in "ab":
        add_champion(tracking, stages, key=key)
        deploy(tracking, served)
    add_champion(tracking, stages, key="c")
    owner: Any = {"fetch_bundle": Tracking, "replace_folder": delivery}.get(at, module)
    real = getattr(owner, at)

    def kill(*args: Any) -> None:
        if moment == "after":
            real(*args)
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(owner, at, kill)
        # A kill runs no clean-up.
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KilledError):
            deploy(tracking, served)
    pointed = pointed_at(served / "points")
    assert pointed in ("2", "3")
    Bundle.open(served / "points" / pointed)
    assert deploy(tracking, served).served == {"points": "3"}
    add_champion(tracking, stages, key="d")
    deploy(tracking, served)
    assert versions(served / "points") == ["3", "4"]


def test_a_full_disk_leaves_what_is_served(tracking: Tracking, stages: Stages, small_disk: Path) -> None:
    served = small_disk / "served"
    add_champion(tracking, stages)
    deploy(tracking, served)
    add_champion(tracking, stages, key="l")
    ballast = small_disk / "ballast"
    fill(small_disk, ballast)
    found = deploy(tracking, served)
    assert found.failed["points"].startswith("the disk is full"), found.failed["points"]
    assert found.served == {"points": "1"}
    Bundle.open(served / "points" / "1")
    ballast.unlink()
    assert deploy(tracking, served).served == {"points": "2"}


def fill(disk: Path, ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        while free(disk):
            file.write(b"0" * min(65536, free(disk)))


def free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def test_a_disk_that_is_full_when_the_pointer_is_written_leaves_the_old_one(
    tracking: Tracking, stages: Stages, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, ballast = small_disk / "served", small_disk / "ballast"
    add_champion(tracking, stages)
    deploy(tracking, served)
    add_champion(tracking, stages, key="l")

    def place_and_fill(new: Path, old: Path) -> None:
        replace_folder(new, old)
        fill(small_disk, ballast)

    with monkeypatch.context() as patched:
        patched.setattr(delivery, "replace_folder", place_and_fill)
        assert deploy(tracking, served).failed["points"].startswith("the disk is full")
    assert json.loads((served / "points" / POINTER).read_text()) == {"version": "1"}
    ballast.unlink()
    monkeypatch.setattr(Tracking, "fetch_bundle", lambda *_: pytest.fail("it was fetched again"))
    assert deploy(tracking, served).served == {"points": "2"}
    assert sorted(path.name for path in (served / "points").iterdir()) == ["1", "2", POINTER]


def test_what_a_killed_deployer_left_is_removed_and_nothing_else(tracking: Tracking, stages: Stages, served: Path) -> None:
    for name in ("points", "others"):
        add_champion(tracking, stages, name)
    deploy(tracking, served)
    tracking.drop_alias("others", CHAMPION)
    deploy(tracking, served)
    whole = sorted(served.rglob("*"))
    for left in ("points/.2.partial/bundle", "others/.7.partial/bundle", "points/1.old/variants", "new/.1.partial"):
        (served / left).mkdir(parents=True)
    for left in ("points/.current.json.1-2.partial", ".problem.json.1-2.partial", "points/.2.partial/bundle/bundle.json"):
        (served / left).touch()
    clean_up(served)
    (served / "new").rmdir()
    assert sorted(served.rglob("*")) == whole


def test_a_model_that_meets_a_defect_holds_up_no_other(
    tracking: Tracking, stages: Stages, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("points", "others"):
        add_champion(tracking, stages, name)
    fetch = Tracking.fetch_bundle

    def fail(self: Tracking, name: str, version: str, folder: Path) -> Path:
        if name == "others":
            raise KeyError("nothing")
        return fetch(self, name, version, folder)

    monkeypatch.setattr(Tracking, "fetch_bundle", fail)
    found = deploy(tracking, served)
    assert (found.served, found.failed) == ({"points": "1"}, {"others": "KeyError: 'nothing'"})
    problem = problem_in(served / "others")
    assert problem
    assert problem.what == "version 1 cannot be brought here: the deployer could not store it, and says why in its log"


def test_two_at_once_do_it_once(tracking: Tracking, stages: Stages, served: Path) -> None:
    add_champion(tracking, stages)
    found: list[tuple[str, ...]] = []
    threads = [threading.Thread(target=lambda: found.append(deploy(tracking, served).changed)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(), (), ("points",)]


def test_a_registry_that_is_away_changes_nothing(tracking: Tracking, stages: Stages, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_champion(tracking, stages)
    deploy(tracking, served)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError):
        deploy(Tracking("http://127.0.0.1:9", served), served)
    assert pointed_at(served / "points") == "1"


def test_a_thousand_models_are_one_call(tracking: Tracking, stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    add_champion(tracking, stages)
    database = tracking.uri.removeprefix("sqlite:///")
    with closing(sqlite3.connect(database)) as connection, connection:
        # As MLflow would write them one by one, for minutes.
        columns = [column for _, column, *_ in connection.execute("PRAGMA table_info(registered_models)")]
        copied = ", ".join("'m' || value" if column == "name" else column for column in columns)
        connection.execute(
            f"INSERT INTO registered_models ({', '.join(columns)}) "
            f"WITH RECURSIVE numbers(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM numbers WHERE value < 999) "
            f"SELECT {copied} FROM registered_models, numbers"
        )
    calls = 0
    search = MlflowClient.search_registered_models

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return search(*args, **options)

    monkeypatch.setattr(MlflowClient, "search_registered_models", counted)
    assert tracking.champions() == {"points": "1"}
    assert calls == 1


@contextmanager
def following(tracking: Tracking, served: Path, seconds: float = 0.02, calls: threading.Event | None = None) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=follow, args=(tracking, served, stop, seconds, calls))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        if calls:
            calls.set()
        thread.join(30)
        assert not thread.is_alive()


def soon(true: Callable[[], bool]) -> None:
    """Wait until it is true, for as long as a busy machine may take."""
    waited = threading.Event()
    for _ in range(1500):
        if true():
            return
        waited.wait(0.02)
    pytest.fail("it never came true")


def test_the_follower_brings_what_others_promote(tracking: Tracking, stages: Stages, served: Path) -> None:
    with following(tracking, served):
        add_champion(tracking, stages)
        soon(lambda: pointed_at(served / "points") == "1")
        add_champion(tracking, stages, key="l")
        soon(lambda: pointed_at(served / "points") == "2")
        tracking.drop_alias("points", CHAMPION)
        soon(lambda: pointed_at(served / "points") is None)


def test_the_follower_tells_of_a_failure_once_and_outlives_it(
    tracking: Tracking, stages: Stages, served: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "maasflow.deploy")
    add_champion(tracking, stages)
    looks = 0
    whole = Tracking.aliases

    def away(self: Tracking) -> dict[str, dict[str, str]]:
        nonlocal looks
        looks += 1
        if looks <= 5:
            raise RuntimeError("the store is away")
        return whole(self)

    monkeypatch.setattr(Tracking, "aliases", away)
    with following(tracking, served):
        soon(lambda: problem_in(served) is not None)
        soon(lambda: pointed_at(served / "points") == "1")
        soon(lambda: problem_in(served) is None)
    assert caplog.messages == ["RuntimeError: the store is away"]


def test_a_call_makes_the_follower_look_at_once(tracking: Tracking, stages: Stages, served: Path) -> None:
    calls = threading.Event()
    with following(tracking, served, 3600.0, calls):
        add_champion(tracking, stages)
        calls.set()
        soon(lambda: pointed_at(served / "points") == "1")
        add_champion(tracking, stages, key="l")
        calls.set()
        soon(lambda: pointed_at(served / "points") == "2")


def test_the_follower_lets_a_broken_version_rest(
    tracking: Tracking, stages: Stages, served: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_broken("a flipped byte", tracking, stages, "points")
    looks, fetches = threading.Semaphore(0), list[str]()
    look, fetch = Tracking.aliases, Tracking.fetch_bundle

    def counted(self: Tracking) -> dict[str, dict[str, str]]:
        looks.release()
        return look(self)

    def noted(self: Tracking, name: str, version: str, folder: Path) -> Path:
        fetches.append(version)
        return fetch(self, name, version, folder)

    monkeypatch.setattr(Tracking, "aliases", counted)
    monkeypatch.setattr(Tracking, "fetch_bundle", noted)
    with following(tracking, served):
        for _ in range(5):
            assert looks.acquire(timeout=30)
        add_champion(tracking, stages, "points", "good")
        soon(lambda: pointed_at(served / "points") == "2")
    assert fetches == ["1", "2"]
    assert len(caplog.messages) == 1


def test_an_alias_that_is_moved_by_mlflows_own_page_is_followed(
    stages: Stages, mlflow_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_address)
    for key in "ab":
        add_champion(Tracking(mlflow_address, tmp_path), stages, "moved", key)
    follower = subprocess.Popen([sys.executable, "-m", "tasks.deploy", str(tmp_path)], cwd=REPOSITORY, stdin=subprocess.PIPE)
    model = tmp_path / ".maasflow" / "served" / "moved"
    with follower:
        soon(lambda: pointed_at(model) == "2")
        alias = {"name": "moved", "alias": CHAMPION, "version": "1"}
        answer = httpx.post(f"{mlflow_address}/api/2.0/mlflow/registered-models/alias", json=alias, trust_env=False)
        assert answer.is_success, answer.text
        soon(lambda: pointed_at(model) == "1")
        Bundle.open(model / "1")
        assert follower.stdin
        follower.stdin.close()
        assert follower.wait(30) == 0


def add_challenger(tracking: Tracking, stages: Stages, traffic: str | None = None, key: str = "challenger") -> Release:
    release = add_release(tracking, stages, key=key)
    tracking.set_alias("points", CHALLENGER, release.version)
    if traffic is not None:
        tracking.tag("points", release.version, {TRAFFIC: traffic})
    return release


def pointer(served: Path) -> Any:
    return json.loads((served / "points" / POINTER).read_text())


def test_a_challenger_gets_what_its_tag_says(tracking: Tracking, stages: Stages, served: Path) -> None:
    add_champion(tracking, stages)
    add_challenger(tracking, stages)
    deploy(tracking, served)
    assert (pointer(served), versions(served / "points")) == ({"version": "1"}, ["1"])
    tracking.tag("points", "2", {TRAFFIC: "Canary 10%"})
    assert deploy(tracking, served).changed == ("points",)
    assert pointer(served) == {"version": "1", "challenger": {"version": "2", "traffic": "canary", "share": 0.1}}
    Bundle.open(served / "points" / "2")
    assert deploy(tracking, served).changed == ()
    tracking.tag("points", "2", {TRAFFIC: "shadow"})
    deploy(tracking, served)
    assert pointer(served)["challenger"] == {"version": "2", "traffic": "shadow", "share": 1.0}
    tracking.tag("points", "2", {TRAFFIC: "none"})
    assert deploy(tracking, served).changed == ("points",)
    assert pointer(served) == {"version": "1"}


def test_what_nobody_signed_is_not_pointed_at_where_signatures_are_wanted(
    tracking: Tracking, stages: Stages, served: Path, tmp_path: Path
) -> None:
    add_champion(tracking, stages)
    deploy(tracking, served)
    trusted = create_signing_key(tmp_path / "key.pem")
    release = add_release(tracking, stages, key="other")
    tracking.set_alias("points", CHAMPION, release.version)
    found = deploy(tracking, served, trust=trusted)
    assert pointed_at(served / "points") == "1"
    assert "has no signature" in found.failed["points"]


def test_a_challenger_that_gets_another_share_is_not_fetched_again(
    tracking: Tracking, stages: Stages, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_champion(tracking, stages)
    add_challenger(tracking, stages, "canary 1%")
    deploy(tracking, served)
    for owner, name in ((Tracking, "fetch_bundle"), (module, "deliver")):
        monkeypatch.setattr(owner, name, lambda *_: pytest.fail("it was looked at again"))
    tracking.tag("points", "2", {TRAFFIC: "canary 50%"})
    deploy(tracking, served)
    assert pointer(served)["challenger"]["share"] == 0.5


def test_a_challenger_that_is_promoted_is_the_pointer_s_version_alone(tracking: Tracking, stages: Stages, served: Path) -> None:
    add_champion(tracking, stages)
    add_challenger(tracking, stages, "canary 10%")
    deploy(tracking, served)
    tracking.set_alias("points", CHAMPION, "2")
    deploy(tracking, served)
    assert (pointer(served), versions(served / "points")) == ({"version": "2"}, ["1", "2"])
    tracking.drop_alias("points", CHALLENGER)
    assert deploy(tracking, served).changed == ()


def test_a_challenger_stays_beside_another_champion(tracking: Tracking, stages: Stages, served: Path) -> None:
    add_champion(tracking, stages)
    add_challenger(tracking, stages, "shadow")
    deploy(tracking, served)
    add_champion(tracking, stages, key="other")
    deploy(tracking, served)
    assert (pointer(served)["version"], pointer(served)["challenger"]["version"]) == ("3", "2")
    assert versions(served / "points") == ["1", "2", "3"]


def test_a_challenger_that_is_one_no_more_is_removed(tracking: Tracking, stages: Stages, served: Path) -> None:
    add_champion(tracking, stages)
    add_challenger(tracking, stages, "shadow")
    deploy(tracking, served)
    add_challenger(tracking, stages, "shadow", "next")
    deploy(tracking, served)
    assert (pointer(served)["challenger"]["version"], versions(served / "points")) == ("3", ["1", "3"])
    tracking.drop_alias("points", CHALLENGER)
    deploy(tracking, served)
    assert (pointer(served), versions(served / "points")) == ({"version": "1"}, ["1"])


def test_a_tag_that_says_no_traffic_is_told_of_once_and_gives_none(
    tracking: Tracking, stages: Stages, served: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_champion(tracking, stages)
    add_challenger(tracking, stages, "canary a lot")
    for _ in range(2):
        found = deploy(tracking, served)
    assert (found.served, pointer(served)["version"]) == ({"points": "1"}, "1")
    problem = pointer(served)["challenger"]["problem"]
    assert problem.startswith("its tag 'traffic': 'canary a lot' says no traffic: expected none, shadow 100% or canary 10%")
    assert caplog.messages == [f"points version 2 gets none of the requests: {problem}"]
    assert versions(served / "points") == ["1"]
    tracking.tag("points", "2", {TRAFFIC: "canary 5%"})
    deploy(tracking, served)
    assert pointer(served)["challenger"] == {"version": "2", "traffic": "canary", "share": 0.05}


def test_a_challenger_that_is_broken_leaves_the_champion_alone(
    tracking: Tracking, stages: Stages, served: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_champion(tracking, stages)
    release = add_challenger(tracking, stages, "canary 10%")
    flip_a_byte(stored(tracking, release))
    found = deploy(tracking, served)
    assert (found.served, found.failed, list(found.failed_challengers)) == ({"points": "1"}, {}, ["points"])
    assert pointer(served)["challenger"]["problem"].startswith("it could not be brought here: bundle 'points': ")
    assert "differs from its digest" in caplog.text
    assert versions(served / "points") == ["1"]
    caplog.clear()
    retries = Versions()
    retries.failed(("points", "2"), "it failed")
    assert deploy(tracking, served, retries).failed_challengers == {}
    assert caplog.messages == []
    shutil.rmtree(stored(tracking, release))
    shutil.copytree(stages.folder("compressed") / "bundle", stored(tracking, release))
    deploy(tracking, served)
    assert pointer(served)["challenger"]["traffic"] == "canary"


def test_a_registry_that_goes_in_the_middle_leaves_the_challenger(
    tracking: Tracking, stages: Stages, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_champion(tracking, stages)
    add_challenger(tracking, stages, "canary 10%")
    deploy(tracking, served)
    before = pointer(served)

    def away(*_: object) -> None:
        raise RegistryError("the registry is away")

    monkeypatch.setattr(Tracking, "version", away)
    assert deploy(tracking, served).failed_challengers == {"points": "the registry is away"}
    assert pointer(served) == before
