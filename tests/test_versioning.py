"""Dataset versions: what makes a new one, what does not, and what a failure or a kill leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tasks import versioning
from tasks.core.dvc_files import PIPELINE
from tasks.core.errors import ConfigError, DataError, MaasflowError, SourceError, explain
from tasks.core.workspace import Workspace

AddDataset = Callable[..., str]

REPOSITORY = Path(__file__).parents[1]

SLOW_STAGE = """\
import sys, time
from pathlib import Path
from tasks.core.workspace import Workspace
from tasks import versioning
versioning.build(Workspace(Path(sys.argv[1])), "people", log=lambda line: print(line, flush=True))
"""


@pytest.fixture
def quick(workspace: Workspace) -> None:
    """A pipeline whose validation only says that it ran: importing Great Expectations takes seconds."""
    folder = "data/${item.name}/validated"
    command = f"mkdir -p {folder} && touch {folder}/report.json && echo validate"
    (workspace.root / "dvc.yaml").write_text(PIPELINE.replace("python -m tasks.validate ${item.name}", command))


def stages(workspace: Workspace, name: str, *, force: bool = False) -> list[str]:
    """Build, and the stages that ran."""
    lines: list[str] = []
    versioning.build(workspace, name, force=force, log=lines.append)
    return [line.split()[0] for line in lines]


@pytest.mark.usefixtures("quick")
def test_each_change_runs_what_depends_on_it_and_no_more(workspace: Workspace, add_people: AddDataset) -> None:
    assert versioning.version(workspace, add_people()) is None
    assert not versioning.is_current(workspace, "people")
    assert stages(workspace, "people") == ["fetch", "validate", "prepare"]
    first = versioning.version(workspace, "people")
    assert first is not None
    assert sum(first.rows.values()) == 200
    assert versioning.is_current(workspace, "people")
    assert stages(workspace, "people") == []

    add_people(description="only words")
    assert versioning.is_current(workspace, "people")

    add_people(split={"seed": 3})
    assert not versioning.is_current(workspace, "people")
    assert stages(workspace, "people") == ["prepare"]
    second = versioning.version(workspace, "people")
    assert second is not None
    assert (second.raw == first.raw, second.digest == first.digest) == (True, False)

    add_people(split={"seed": 3}, expectations={"minimum_rows": 60})
    assert "fetch" not in stages(workspace, "people")

    add_people(*(f"{30 + row / 8},S,{row % 2}" for row in range(150)), split={"seed": 3})
    assert stages(workspace, "people") == ["fetch", "validate", "prepare"]
    third = versioning.version(workspace, "people")
    assert third is not None
    assert third.raw != first.raw
    assert stages(workspace, "people", force=True) == ["fetch", "validate", "prepare"]
    assert versioning.version(workspace, "people") == third


def test_a_failed_validation_comes_as_its_own_error_and_leaves_its_report(workspace: Workspace, add_people: AddDataset) -> None:
    name = add_people(*(f"{row},S,1" for row in range(10)))
    with pytest.raises(DataError) as caught:
        versioning.build(workspace, name)
    assert "expect_table_row_count_to_be_between" in caught.value.what
    assert "dvc" not in str(caught.value).lower()
    assert (workspace.validated(name) / "index.html").is_file()
    assert not workspace.prepared(name).exists()
    versioning.build(workspace, add_people())
    assert versioning.is_current(workspace, name)


def test_a_source_that_cannot_be_read_comes_as_its_own_error(workspace: Workspace, add_people: AddDataset) -> None:
    add_people()
    (workspace.root / "people.csv").unlink()
    with pytest.raises(SourceError, match=r"there is no file people\.csv"):
        versioning.build(workspace, "people")


@pytest.mark.usefixtures("quick")
def test_a_broken_dataset_file_breaks_no_other(workspace: Workspace, add_people: AddDataset) -> None:
    (workspace.data / "broken.yaml").write_text("source: {kind: cvs\n")
    (workspace.data / "wrong.yaml").write_text("source: {kind: cvs}\ncolumns: {}\n")
    versioning.build(workspace, add_people())
    with pytest.raises(ConfigError, match=r"data/broken\.yaml:"):
        versioning.build(workspace, "broken")
    with pytest.raises(ConfigError, match="there is no dataset 'peple'; did you mean 'people'"):
        versioning.build(workspace, "peple")


@pytest.mark.usefixtures("quick")
def test_no_machine_path_is_recorded(workspace: Workspace, add_people: AddDataset) -> None:
    versioning.build(workspace, add_people())
    for name in ("dvc.lock", "dvc.yaml", "data/datasets.json", ".dvc/config"):
        assert str(workspace.root) not in (workspace.root / name).read_text()


@pytest.mark.usefixtures("quick")
def test_names_with_dots(workspace: Workspace, add_people: AddDataset) -> None:
    add_people()
    (workspace.data / "people.yaml").rename(workspace.data / "people-1.2_x.yaml")
    assert versioning.build(workspace, "people-1.2_x").name == "people-1.2_x"
    assert versioning.is_current(workspace, "people-1.2_x")


@pytest.mark.usefixtures("quick")
def test_deleted_data_comes_back(workspace: Workspace, add_people: AddDataset) -> None:
    first = versioning.build(workspace, add_people())
    for file in workspace.prepared("people").iterdir():
        file.unlink()
    assert not versioning.is_current(workspace, "people")
    assert versioning.build(workspace, "people") == first


def start(workspace: Workspace) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_STAGE, str(workspace.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=workspace.root,
    )


def descendants(process: int) -> list[int]:
    return [child.pid for child in psutil.Process(process).children(recursive=True)]


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("stage", "victims"), [("fetch", "all"), ("validate", "all"), ("prepare", "all"), ("validate", "parent"), ("validate", "dvc")]
)
def test_a_kill_in_any_stage_and_then_another_build(workspace: Workspace, add_people: AddDataset, stage: str, victims: str) -> None:
    add_people()
    process = start(workspace)

    def running() -> bool:
        assert process.poll() is None
        return any(f"tasks.{stage}" in _command(child) for child in descendants(process.pid))

    wait_for(running)
    children = descendants(process.pid)
    dvc = [child for child in children if "dvc" in _command(child) and "tasks." not in _command(child)]
    for victim in {"all": [process.pid, *children], "parent": [process.pid], "dvc": dvc}[victims]:
        os.kill(victim, signal.SIGKILL)
    process.communicate()
    assert sum(versioning.build(workspace, "people").rows.values()) == 200
    assert versioning.is_current(workspace, "people")


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_an_interrupt_ends_the_stage_and_the_next_build_goes_on(workspace: Workspace, add_people: AddDataset) -> None:
    add_people()
    process = start(workspace)
    wait_for(lambda: any("tasks.validate" in _command(child) for child in descendants(process.pid)))
    children = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert not any(_command(child) for child in children)
    assert stages(workspace, "people") == ["validate", "prepare"]


@pytest.mark.usefixtures("quick")
def test_what_a_dead_dvc_left_does_not_count(workspace: Workspace, add_people: AddDataset) -> None:
    versioning.build(workspace, add_people())
    left = workspace.root / ".dvc" / "tmp" / "rwlock"
    # This process lives, as one that was given a dead DVC's number would.
    left.write_text(json.dumps({"write": {str(workspace.prepared("people")): {"pid": os.getpid(), "cmd": "repro"}}}))
    assert stages(workspace, "people", force=True) == ["fetch", "validate", "prepare"]
    left.write_text('{"write": {"/half')
    assert stages(workspace, "people", force=True) == ["fetch", "validate", "prepare"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("free", [40_000, 400_000])
def test_a_full_disk_is_told_and_space_is_all_that_the_next_build_needs(
    workspace: Workspace, add_people: AddDataset, small_disk: Path, free: int
) -> None:
    add_people(*(f"{row % 100},S,{row % 2}" for row in range(30_000)), expectations={"duplicates": 1.0}, cleaning=[])
    shutil.copytree(workspace.root, small_disk, dirs_exist_ok=True)
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - free))
    full = Workspace(small_disk)
    with pytest.raises((MaasflowError, OSError)) as caught:
        versioning.build(full, "people")
    known = explain(caught.value)
    assert known is not None
    assert "the disk is full" in known.what
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    assert sum(versioning.build(full, "people").rows.values()) == 30_000


def test_a_dvc_that_tries_for_ever_on_a_full_disk_is_ended(small_disk: Path) -> None:
    (small_disk / "errors").touch()
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 10_000))
    # DVC's store of file states does this when it cannot write.
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"], stdout=subprocess.PIPE, text=True)
    build = versioning.Build(Workspace(small_disk), "people", spinning, small_disk / "failure", small_disk / "errors")
    with pytest.raises(MaasflowError, match="the disk is full"):
        build.result()


def test_init_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    versioning.init(tmp_path)
    assert (tmp_path / "dvc.yaml").read_text() == "stages: {}\n"
    assert (tmp_path / ".dvc" / "config.local").read_text() == "[core]\n    no_scm = true\n"


def test_the_repository_has_the_pipeline_that_init_writes() -> None:
    assert (REPOSITORY / "dvc.yaml").read_text() == PIPELINE
