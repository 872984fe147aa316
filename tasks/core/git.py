"""The commit that a run was made from."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Commit:
    """`digest` is None where the folder is not in a git repository, or git is not installed."""

    digest: str | None
    dirty: bool


def current_commit(root: Path) -> Commit:
    """The commit that the folder is at, and whether tracked files in it differ from that."""
    try:
        digest = _git(root, "rev-parse", "HEAD")
        return Commit(digest, bool(_git(root, "status", "--porcelain", "--untracked-files=no")))
    except (OSError, subprocess.SubprocessError):
        return Commit(None, dirty=False)


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True, timeout=30).stdout.strip()
