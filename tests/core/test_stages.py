"""Stages under every bad moment: killed, run twice at once, on a full disk."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core.stages import StageResult, StageStore, content_key, replace_folder, write_text

REPOSITORY = Path(__file__).parents[2]


class Found(StageResult):
    number: float


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "stages")


def make(folder: Path) -> Found:
    (folder / "model.bin").write_bytes(b"whole")
    return Found(number=1.5)


def never(folder: Path) -> Found:
    raise AssertionError(f"{folder} was done again")


def start(store: StageStore, work: str) -> "subprocess.Popen[str]":
    """Another process that runs the stage `train/k`, with `work` as the body of its function of `folder`."""
    script = f"""
import sys, time
from pathlib import Path
from tasks.core import stages
from tasks.core.stages import StageResult

class Found(StageResult):
    number: float

def say(word):
    print(word, flush=True)

def work(folder):
{textwrap.indent(textwrap.dedent(work).strip(), "    ")}
    return Found(number=1.5)

done = stages.StageStore(Path(sys.argv[1])).run("train", "k", Found, work, resumable=True)
say("cached" if done.cached else "done")
"""
    command = [sys.executable, "-c", script, str(store.root)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def wait_for(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdout
    assert process.stdout.readline().strip() == word


def kill(process: "subprocess.Popen[str]") -> None:
    with process:
        os.kill(process.pid, signal.SIGKILL)


def test_a_finished_stage_is_not_done_again(store: StageStore) -> None:
    first = store.run("train", "k", Found, make)
    second = store.run("train", "k", Found, never)
    assert (first.cached, second.cached) == (False, True)
    assert second.result == Found(number=1.5)
    assert (second.folder / "model.bin").read_bytes() == b"whole"


def test_another_key_is_another_stage(store: StageStore) -> None:
    store.run("train", "k", Found, make)
    assert not store.run("train", "other", Found, make).cached


def test_force_does_it_again_in_an_empty_folder_and_replaces_the_result(store: StageStore) -> None:
    store.run("train", "k", Found, make)

    def again(folder: Path) -> Found:
        assert list(folder.iterdir()) == []
        return Found(number=2.5)

    done = store.run("train", "k", Found, again, force=True)
    assert done.result.number == 2.5
    assert not (done.folder / "model.bin").exists()
    assert sorted(path.name for path in done.folder.parent.iterdir() if path.suffix != ".lock") == ["k"]


def test_a_result_that_cannot_be_read_counts_as_not_done(store: StageStore) -> None:
    for content in ("", "{", "[]", "{}", '{"result": {"other": 1}, "seconds": 1}'):
        folder = store.run("train", "k", Found, make).folder
        (folder / "result.json").write_text(content)
        assert store.find("train", "k", Found) is None
    assert not store.run("train", "k", Found, make).cached


@pytest.mark.parametrize("resumable", [True, False])
def test_what_failed_is_not_done_and_only_a_resumable_stage_finds_its_remains(store: StageStore, resumable: bool) -> None:
    def fail(folder: Path) -> Found:
        (folder / "checkpoint").write_text("step 3")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.run("train", "k", Found, fail, resumable=resumable)
    assert store.find("train", "k", Found) is None

    def resume(folder: Path) -> Found:
        assert (folder / "checkpoint").exists() is resumable
        return Found(number=1)

    assert not store.run("train", "k", Found, resume, resumable=resumable).cached


def refuse(_: Path) -> Found:
    raise RuntimeError


@pytest.mark.parametrize("resumable", [True, False])
def test_what_failed_before_it_wrote_anything_leaves_no_folder(store: StageStore, resumable: bool) -> None:
    with pytest.raises(RuntimeError):
        store.run("train", "k", Found, refuse, resumable=resumable)
    assert not store.partial("train", "k").exists()


def test_killed_at_work_it_is_not_done_and_resumes(store: StageStore) -> None:
    process = start(store, "(folder / 'checkpoint').write_text('step 3'); say('working'); time.sleep(60)")
    wait_for(process, "working")
    kill(process)
    assert store.find("train", "k", Found) is None

    def resume(folder: Path) -> Found:
        assert (folder / "checkpoint").read_text() == "step 3"
        return make(folder)

    assert not store.run("train", "k", Found, resume, resumable=True).cached


def test_killed_before_the_rename_it_is_done(store: StageStore) -> None:
    process = start(
        store,
        """
        def hang(new, old):
            say("written"); time.sleep(60)
        stages.replace_folder = hang
        """,
    )
    wait_for(process, "written")
    kill(process)
    assert store.run("train", "k", Found, never).cached


def test_killed_while_an_old_result_is_replaced_the_new_one_counts(store: StageStore) -> None:
    folder = store.run("train", "k", Found, make).folder
    partial = folder.with_name("k.partial")
    folder.rename(partial)
    write_text(folder.with_name("k.old") / "result.json", "{}")
    assert store.run("train", "k", Found, never).cached


def test_two_runs_at_once_do_it_once(store: StageStore) -> None:
    first = start(store, "say('working'); time.sleep(0.7)")
    wait_for(first, "working")
    second = start(store, "say('working')")
    with first, second:
        assert first.communicate(timeout=30)[0].split() == ["done"]
        assert second.communicate(timeout=30)[0].split() == ["cached"]


def test_the_lock_of_a_killed_run_is_free(store: StageStore) -> None:
    process = start(store, "say('working'); time.sleep(60)")
    wait_for(process, "working")
    kill(process)
    began = time.monotonic()
    store.run("train", "k", Found, make)
    assert time.monotonic() - began < 5


def test_a_reader_sees_the_old_text_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_text(path, "0" * 100_000)
    script = f"""
from itertools import cycle
from pathlib import Path
from tasks.core.stages import write_text
print("writing", flush=True)
for digit in cycle("0123456789"):
    write_text(Path({str(path)!r}), digit * 100_000)
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    wait_for(process, "writing")
    seen = {path.read_text() for _ in range(300)}
    kill(process)
    assert {(len(text), len(set(text))) for text in seen | {path.read_text()}} == {(100_000, 1)}


def test_a_failed_write_leaves_the_old_text_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\udcff")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs to mount a small disk: Linux, as root, with the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_text(small_disk: Path) -> None:
    path = small_disk / "state.json"
    write_text(path, "old")
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "x" * 200_000)
    assert path.read_text() == "old"
    assert list(small_disk.iterdir()) == [path]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for name in ("new", "old", "old.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "what").write_text(name)
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old" / "what").read_text() == "new"


def test_a_key_is_the_digest_of_content() -> None:
    assert content_key({"a": 1, "b": (2, 3)}, Found(number=1)) == content_key({"b": [2, 3], "a": 1}, {"number": 1.0})
    assert content_key("ab", "c") != content_key("a", "bc")
    with pytest.raises(TypeError, match="no stable content in object"):
        content_key(object())
