"""What an import costs: nothing heavy where it would be felt, and no side effect anywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

HEAVY = {"torch", "transformers", "accelerate", "prefect", "mlflow", "pandas", "great_expectations", "sklearn", "matplotlib", "dvc"}
CORE = sorted(f"tasks.core.{path.stem}" for path in (REPOSITORY / "tasks" / "core").glob("[a-z]*.py"))
CATALOGS = ["tasks.sources", "tasks.models", "tasks.compression", "tasks.gates"]
SERVER = sorted(f"deploy.serving.{path.stem}" for path in (REPOSITORY / "deploy" / "serving").glob("[a-z]*.py"))

SCRIPT = """
import importlib, json, os, sys, threading
sys.path.insert(0, sys.argv[1])
environment = dict(os.environ)
for name in sys.argv[2:]:
    importlib.import_module(name)
print(json.dumps({
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    "environment": sorted(name for name in environment.keys() | os.environ if environment.get(name) != os.environ.get(name)),
    "threads": threading.active_count(),
}))
"""


def after_importing(folder: Path, *modules: str) -> dict[str, Any]:
    """What a fresh interpreter in an empty folder holds once it has imported the modules."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(REPOSITORY), *modules]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("modules", [CORE, CATALOGS, SERVER, ["flows.cli"]], ids=["core", "catalogs", "server", "command"])
def test_nothing_heavy_is_imported(modules: list[str], tmp_path: Path) -> None:
    assert not HEAVY & set(after_importing(tmp_path, *modules)["modules"])


def test_the_command_starts_without_numpy_or_onnxruntime(tmp_path: Path) -> None:
    assert not {"numpy", "onnxruntime", "pyarrow", "PIL"} & set(after_importing(tmp_path, "flows.cli")["modules"])


@pytest.mark.parametrize("modules", [CORE, CATALOGS, SERVER, ["flows.cli"]], ids=["core", "catalogs", "server", "command"])
def test_an_import_does_nothing(modules: list[str], tmp_path: Path) -> None:
    after = after_importing(tmp_path, *modules)
    assert list(tmp_path.iterdir()) == []
    assert after["environment"] == []
    assert after["threads"] == 1


def test_onnx_runtime_is_kept_from_reporting_home(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from tasks.core.predictor import open_session
try:
    open_session("x.onnx")
except Exception as error:
    print(error)
"""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", script, str(REPOSITORY)], cwd=tmp_path, env=environment, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]
