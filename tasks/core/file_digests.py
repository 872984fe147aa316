"""Digests of local files, remembered so that a large file is read once and not on every run."""

import hashlib
import json
from pathlib import Path
from typing import Final

from tasks.core.stages import write_text

MISSING: Final = "missing"


class FileDigests:
    """SHA-256 by path, kept in a JSON file together with the size and time of change that they belong to."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        try:
            self._known: dict[str, list[int | str]] = json.loads(memory.read_text())
        except (OSError, ValueError):
            self._known = {}
        self._changed = False

    def of(self, path: Path) -> str:
        """The digest of a file, or of the names and contents of all files below a folder; MISSING where there is neither."""
        if path.is_file():
            return self._of_file(path)
        if not path.is_dir():
            return MISSING
        digest = hashlib.sha256()
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{self._of_file(file)}\n".encode())
        return digest.hexdigest()

    def save(self) -> None:
        if self._changed:
            write_text(self._memory, json.dumps(self._known))
            self._changed = False

    def _of_file(self, path: Path) -> str:
        stat = path.stat()
        stamp: list[int | str] = [stat.st_size, stat.st_mtime_ns]
        known = self._known.get(str(path))
        if known is None or known[:2] != stamp:
            known = self._known[str(path)] = [*stamp, sha256(path)]
            self._changed = True
        return str(known[2])


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
