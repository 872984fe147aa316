"""Versions of datasets: the one place that calls DVC, by its command line, because its Python API only reads.

`dvc.yaml` has one pipeline for every dataset. DVC cannot list `data/*.yaml` itself, so `data/datasets.json` is derived from
them before each call: for every dataset and stage what the stage depends on, with defaults filled in. A changed comment in
a dataset file runs nothing again, a changed `split` prepares again, a changed CSV fetches again.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tasks.core import dvc_files
from tasks.core.bundle import DatasetVersion
from tasks.core.command import FAILURE_FILE, read_failure
from tasks.core.errors import MaasflowError, explain
from tasks.core.file_digests import FileDigests
from tasks.core.splits import read_summary
from tasks.core.stages import write_text
from tasks.core.workspace import Workspace
from tasks.sources import SOURCES

Log = Callable[[str], None]

init = dvc_files.init

_STAGES: Final = ("fetch", "validate", "prepare")
_FORMATS: Final = dict.fromkeys(_STAGES, 1)
"""Raise a stage's number when it makes something else of the same input, so that it runs again."""

_PATIENCE: Final = 1.0
"""Seconds that an interrupted DVC gets to end by itself, as it does where Ctrl-C in a terminal reached it too."""


_LEAST_BYTES: Final = 1 << 20
"""With less space than this on the disk, a failure of DVC is taken for that."""

_FULL_SECONDS: Final = 5


@dataclass(frozen=True)
class Build:
    """A dataset that DVC is building. It goes on by itself; `result` waits for its end."""

    workspace: Workspace
    name: str
    process: subprocess.Popen[str]
    failure: Path
    """Where a stage leaves its error."""
    errors: Path
    """DVC's standard error."""
    started: float = field(default_factory=time.perf_counter)

    def result(self, log: Log = lambda _: None) -> DatasetVersion:
        """The version, once DVC has ended. `log` gets the stages' lines.

        Raises the stage's own error: ConfigError, SourceError, DataError with the table of a failed validation.
        """
        try:
            with _no_endless_wait_for_space(self.process, self.workspace.root):
                for line in self.process.stdout or ():
                    log(line.rstrip())
                code = self.process.wait()
        except BaseException:
            self.stop()
            raise
        finally:
            if self.process.stdout:
                self.process.stdout.close()
        try:
            if code:
                raise read_failure(self.failure) or _failure_of_dvc(self.errors, code)
        finally:
            self.failure.unlink(missing_ok=True)
            self.errors.unlink(missing_ok=True)
        found = version(self.workspace, self.name)
        if found is None or not found.rows:
            raise MaasflowError(f"DVC ended well but there is no prepared data of '{self.name}'", "run again with --force")
        return found

    def stop(self) -> None:
        """Interrupt the stage that DVC runs, and wait for both; nothing where DVC has ended."""
        import psutil  # type: ignore[import-untyped]  # noqa: PLC0415 - comes with DVC

        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.send_signal(signal.SIGINT)
            self.process.wait()


def begin(workspace: Workspace, name: str, *, force: bool = False, log: Log = lambda _: None) -> Build:
    """Begin to fetch, validate and prepare what is not current. Raises ConfigError."""
    _depends_on(workspace, name, FileDigests(_memory(workspace)))
    init(workspace.root)
    with _alone(workspace, log) as lock:
        _write_datasets(workspace)
        _forget_dead_holders(workspace)
        failure, errors = (workspace.state / f"{what}-{os.getpid()}-{name}" for what in ("failure", "dvc-stderr"))
        failure.unlink(missing_ok=True)
        with errors.open("wb") as stderr:
            arguments = ["repro", "--quiet", *(["--force"] if force else []), f"prepare@{_key(name)}"]
            process = _start(workspace, arguments, lock, stderr=stderr, failure=failure)
    return Build(workspace, name, process, failure, errors)


def build(workspace: Workspace, name: str, *, force: bool = False, log: Log = lambda _: None) -> DatasetVersion:
    """Fetch, validate and prepare what is not current; the version. Raises as `begin` and `Build.result` do."""
    return begin(workspace, name, force=force, log=log).result(log)


def version(workspace: Workspace, name: str) -> DatasetVersion | None:
    """The version that `dvc.lock` pins, or None where there is none. `rows` is empty where the data itself is not here."""
    try:
        lock = yaml.load((workspace.root / "dvc.lock").read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        raw, prepared = (lock["stages"][f"{stage}@{_key(name)}"]["outs"][0]["md5"] for stage in ("fetch", "prepare"))
    except (FileNotFoundError, KeyError, TypeError):
        return None
    try:
        rows = read_summary(workspace.prepared(name)).rows
    except FileNotFoundError:
        rows = {}
    return DatasetVersion(name=name, raw=raw, digest=prepared, rows=rows)


def is_current(workspace: Workspace, name: str) -> bool:
    """Whether `build` would do nothing. While another build runs, the answer is no."""
    _depends_on(workspace, name, FileDigests(_memory(workspace)))
    if not (workspace.root / "dvc.yaml").is_file() or version(workspace, name) is None:
        return False
    with _alone(workspace, wait=False) as lock:
        if lock is None:
            return False
        _write_datasets(workspace)
        targets = [f"{stage}@{_key(name)}" for stage in _STAGES]
        with _start(workspace, ["status", "--quiet", *targets], lock, stderr=subprocess.DEVNULL) as process:
            return process.wait() == 0


@contextmanager
def _no_endless_wait_for_space(process: subprocess.Popen[str], folder: Path) -> Iterator[None]:
    """Kill DVC if the disk stays full while it runs: its store of file states then tries again without a pause, for ever."""
    done = threading.Event()

    def watch() -> None:
        full = 0
        while not done.wait(1.0):
            full = full + 1 if shutil.disk_usage(folder).free < _LEAST_BYTES else 0
            if full == _FULL_SECONDS:
                process.kill()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _key(name: str) -> str:
    """The dataset's name as DVC takes it in a stage's name and in the path of a parameter."""
    return name.replace(".", "_dot_")


def _memory(workspace: Workspace) -> Path:
    return workspace.state / "file-digests.json"


def _write_datasets(workspace: Workspace) -> None:
    """Derive `data/datasets.json`. A dataset file with a mistake is left out: that is for its own build to tell."""
    digests = FileDigests(_memory(workspace))
    datasets: dict[str, Any] = {}
    for name in workspace.datasets():
        try:
            datasets[_key(name)] = {"name": name, **_depends_on(workspace, name, digests)}
        except MaasflowError:
            continue
    digests.save()
    path, text = workspace.data / "datasets.json", json.dumps({"datasets": datasets}, indent=1, sort_keys=True) + "\n"
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)


def _depends_on(workspace: Workspace, name: str, digests: FileDigests) -> dict[str, Any]:
    """By stage the values whose change runs it again. Raises ConfigError."""
    dataset = workspace.dataset(name)
    source = SOURCES.build(dataset.source, dataset.origin.below("source"))
    values = dataset.model_dump(mode="json")
    depends: dict[str, Any] = {
        "fetch": {
            "source": values["source"],
            "columns": {column: spec.type for column, spec in dataset.columns.items()},
            "files": {workspace.shown(path): digests.of(path) for path in source.files(workspace)},
        },
        "validate": {"columns": values["columns"], "expectations": values["expectations"]},
        "prepare": {"columns": values["columns"], "cleaning": values["cleaning"], "split": values["split"]},
    }
    return {stage: {"format": _FORMATS[stage], **depends[stage]} for stage in _STAGES}


@contextmanager
def _alone(workspace: Workspace, log: Log = lambda _: None, *, wait: bool = True) -> Iterator[int | None]:
    """An open lock file for DVC to inherit, so that it counts as busy until DVC itself has ended, whatever becomes of this process.

    DVC's own lock would give up after three seconds. None where another holds it and `wait` is off.
    """
    workspace.state.mkdir(parents=True, exist_ok=True)
    file = os.open(workspace.state / "dvc.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield None
                return
            log("waiting for another run that prepares data in this workspace")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _forget_dead_holders(workspace: Workspace) -> None:
    """Remove DVC's list of who uses which file unless a DVC is alive that may have written it.

    After a kill it is left behind, sometimes half-written, and process numbers in it may have been given to others since.
    """
    path = workspace.root / ".dvc" / "tmp" / "rwlock"
    try:
        holders = {int(number) for number in re.findall(r'"pid": *(\d+)', path.read_text())}
    except FileNotFoundError:
        return
    if not any(_is_dvc(holder) for holder in holders):
        path.unlink(missing_ok=True)


def _is_dvc(process: int) -> bool:
    import psutil  # noqa: PLC0415 - comes with DVC

    try:
        return any("dvc" in part for part in psutil.Process(process).cmdline())
    except psutil.Error:
        return False


def _start(
    workspace: Workspace, arguments: list[str], lock: int | None, *, stderr: Any, failure: Path | None = None
) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(workspace.state / "dvc"),
        # `python` in dvc.yaml is to be this one, and the shell to be one that needs no set-up.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "SHELL": "/bin/sh",
        "MAASFLOW_WORKSPACE": str(workspace.root),
        **({FAILURE_FILE: str(failure)} if failure else {}),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=workspace.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        pass_fds=() if lock is None else (lock,),
    )


def _failure_of_dvc(stderr: Path, code: int) -> BaseException:
    """What DVC's own errors mean. On a full disk there may be none, because they could not be written either."""
    errors = stderr.read_text(errors="replace")
    full = OSError(errno.ENOSPC, "") if shutil.disk_usage(stderr.parent).free < _LEAST_BYTES else None
    known = explain(full or RuntimeError(errors))
    if known:
        return known
    if "No module named dvc" in errors:
        return MaasflowError("versions of data need DVC, which is not installed", "in maasflow's folder: pip install '.[pipeline]'")
    if "Unable to acquire lock" in errors or "is busy, it is being blocked" in errors:
        return MaasflowError("another DVC command is running in this workspace", "wait until it has ended, then run this again")
    ended = re.search(r"tasks\.(\w+) (\S+), exited with (-?\d+)", errors)
    if ended:
        stage, name, status = ended[1], ended[2], int(ended[3])
        if status in (130, -signal.SIGINT):
            return KeyboardInterrupt()
        killed = " (killed, perhaps for want of memory)" if status in (-signal.SIGKILL, 137) else ""
        return MaasflowError(
            f"the stage {stage} of '{name}' ended with status {status}{killed}", f"run it alone to see more: python -m tasks.{stage} {name}"
        )
    said = [line.removeprefix("ERROR: ") for line in errors.splitlines() if line.startswith("ERROR: ")]
    return MaasflowError(
        f"DVC ended with status {code}: {said[-1] if said else 'it said nothing'}", "try `dvc repro` in this workspace to see more"
    )
