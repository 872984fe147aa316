"""Restartable stages: each result lies under the digest of everything it came from, whole or not at all."""

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from filelock import FileLock, Timeout

from tasks.core.config import Config
from tasks.core.errors import ConfigError

log = logging.getLogger(__name__)


class StageResult(Config):
    """What a stage found. `figure` is the one figure of it that matters, in words, for the summary of a run."""

    @property
    def figure(self) -> str:
        return ""


ResultT = TypeVar("ResultT", bound=StageResult)

LIBRARIES: Final = ("maasflow", "torch", "onnxruntime-gpu", "onnxruntime", "onnx", "numpy")

RECORD: Final = "result.json"
"""What a stage found, beside what it made. It is written last, so a folder that has it is whole."""


@dataclass(frozen=True)
class Done(Generic[ResultT]):
    """A finished stage: what it found, the folder with what it made, and how long that took when it ran."""

    stage: str
    key: str
    result: ResultT
    folder: Path
    seconds: float
    cached: bool


def content_key(*parts: Any) -> str:
    """A digest of plain values, equal for equal content."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@cache
def code_key() -> str:
    """A digest of the source of all stages and of the libraries that compute: changed code is changed content."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256(json.dumps(library_versions()).encode())
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:24]


def library_versions() -> dict[str, str]:
    """Versions of the installed libraries that a result depends on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class StageStore:
    """Finished stages under `<root>/<stage>/<key>/`, each with its `result.json`.

    A stage works in `<key>.partial` and is renamed when it is whole, so that a kill at any moment leaves
    either the old state or the new one.
    """

    root: Path

    def folder(self, stage: str, key: str) -> Path:
        """Where a finished stage lies."""
        return self.root / stage / key

    def partial(self, stage: str, key: str) -> Path:
        """Where a stage works until it is whole."""
        return self.root / stage / f"{key}.partial"

    def find(self, stage: str, key: str, result: type[ResultT]) -> Done[ResultT] | None:
        """The finished stage, or None where it was never finished."""
        folder = self.folder(stage, key)
        try:
            record = json.loads((folder / RECORD).read_text())
            return Done(stage, key, result.parse(record["result"]), folder, record["seconds"], cached=True)
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, ConfigError):
            return None

    def run(
        self,
        stage: str,
        key: str,
        result: type[ResultT],
        work: Callable[[Path], ResultT],
        *,
        force: bool = False,
        resumable: bool = False,
    ) -> Done[ResultT]:
        """The finished stage, by doing `work(folder)` unless it is done already.

        A `resumable` stage finds what its killed forerunner left in the folder; any other starts in an empty one.
        """
        with self._lock(stage, key):
            folder, partial = self.folder(stage, key), self.partial(stage, key)
            if (partial / RECORD).is_file() and not force:
                # Killed between the last write and the rename: it is whole, so it counts.
                replace_folder(partial, folder)
            done = None if force else self.find(stage, key, result)
            if done:
                return done
            if force or not resumable:
                shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            try:
                found = work(partial)
            except BaseException:
                if not resumable or not any(partial.iterdir()):
                    shutil.rmtree(partial, ignore_errors=True)
                raise
            seconds = time.perf_counter() - start
            write_text(partial / RECORD, json.dumps({"result": found.model_dump(mode="json"), "seconds": seconds}, indent=1))
            replace_folder(partial, folder)
            return Done(stage, key, found, folder, seconds, cached=False)

    @contextmanager
    def _lock(self, stage: str, key: str) -> Iterator[None]:
        """Held while a stage runs, so that two runs of one recipe train it once. The system frees it with its holder."""
        (self.root / stage).mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / stage / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another run is at the stage '%s' with the same inputs: waiting for it", stage)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old text or the new one and never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new, empty folder to write into, which takes the place of `folder` when all went well and is removed otherwise."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(new: Path, old: Path) -> None:
    """Put the folder `new` in the place of `old`, which may exist."""
    if old.exists():
        trash = old.with_name(f"{old.name}.old")
        shutil.rmtree(trash, ignore_errors=True)
        old.rename(trash)
        new.rename(old)
        shutil.rmtree(trash, ignore_errors=True)
    else:
        new.rename(old)


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no stable content in {type(value).__name__}")


def link_file(source: Path | str, target: Path | str) -> None:
    """A second name for a file that nobody changes: a hard link where the file system has them, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
