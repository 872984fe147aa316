"""What every test may rely on: a workspace of its own, no telemetry, no network."""

import os
from pathlib import Path

import pytest

from tasks.core.workspace import Workspace

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace, which is also the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MAASFLOW_WORKSPACE", raising=False)
    (tmp_path / "data").mkdir()
    return Workspace(tmp_path)


@pytest.fixture
def mirror() -> Path:
    """The folder with the real datasets; the test is skipped where MAASFLOW_MIRROR names none."""
    folder = os.environ.get("MAASFLOW_MIRROR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the real datasets: set MAASFLOW_MIRROR to their folder")
    return Path(folder).resolve()
