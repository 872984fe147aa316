"""What every test may rely on: a workspace of its own, no telemetry, no network."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

from tasks.core.workspace import Workspace

if TYPE_CHECKING:
    from tasks.tracking import Tracking
    from tests.tiny import Stages

REPOSITORY = Path(__file__).parents[1]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As for a job in the background. The commands that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
# No deadline, because a busy machine is no failure; and nothing is remembered in the repository.
settings.register_profile("maasflow", database=None, deadline=None)
settings.load_profile("maasflow")
set_hypothesis_home_dir(str(Path(tempfile.gettempdir()) / "maasflow-hypothesis"))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace, which is also the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MAASFLOW_WORKSPACE", raising=False)
    (tmp_path / "data").mkdir()
    return Workspace(tmp_path)


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder with the real datasets; the test is skipped where MAASFLOW_MIRROR names none."""
    folder = os.environ.get("MAASFLOW_MIRROR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the real datasets: set MAASFLOW_MIRROR to their folder")
    return Path(folder).resolve()


AddDataset = Callable[..., str]


@pytest.fixture
def add_dataset(workspace: Workspace) -> AddDataset:
    """Write `data/<name>.yaml` with this source, these columns and any other sections; the name."""

    def add(name: str, source: dict[str, Any], columns: dict[str, Any], **sections: Any) -> str:
        (workspace.data / f"{name}.yaml").write_text(json.dumps({"source": source, "columns": columns, **sections}))
        return name

    return add


PEOPLE: dict[str, Any] = {
    "age": {"type": "number", "minimum": 0, "maximum": 120},
    "port": {"type": "category", "categories": ["S", "C", "Q"]},
    "survived": {"type": "label", "classes": [0, 1], "names": ["died", "survived"]},
}


@pytest.fixture
def add_people(workspace: Workspace, add_dataset: AddDataset) -> AddDataset:
    """A CSV of 200 good rows, or of the given lines, with its dataset file `people`; the name."""

    def add(*lines: str, header: str = "age,port,survived", columns: dict[str, Any] = PEOPLE, **sections: Any) -> str:
        rows = lines or tuple(f"{20 + row / 4},{'SCQ'[row % 3]},{row % 2}" for row in range(200))
        (workspace.root / "people.csv").write_text("\n".join((header, *rows)) + "\n")
        return add_dataset("people", {"kind": "csv", "path": "people.csv"}, columns, **sections)

    return add


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of two megabytes."""
    folder = tmp_path_factory.mktemp("disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs a small disk, and may not mount one: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> "Stages":
    """The small problem of `tests.tiny` after compression. Nobody may change its folders."""
    from tests.tiny import Stages  # noqa: PLC0415 - the server's tests need no torch

    return Stages.run(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of an MLflow store with nothing in it, which takes seconds to make."""
    from tasks.tracking import Tracking  # noqa: PLC0415 - the server's tests need no MLflow

    folder = tmp_path_factory.mktemp("store")
    assert Tracking(f"sqlite:///{folder / 'mlflow.db'}", folder).champions() == {}
    return folder / "mlflow.db"


@pytest.fixture
def tracking(workspace: Workspace, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> "Tracking":
    """The workspace's embedded MLflow store, with nothing in it."""
    from tasks.tracking import Tracking  # noqa: PLC0415

    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    workspace.mlruns.mkdir()
    shutil.copyfile(empty_store, workspace.mlruns / "mlflow.db")
    return Tracking.of(workspace)


@pytest.fixture(scope="session")
def mlflow_address(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[str]:
    """The address of a real MLflow server that tests share: each uses names of its own."""
    from tests.releases import mlflow_server  # noqa: PLC0415

    with mlflow_server(tmp_path_factory.mktemp("server"), empty_store) as address:
        yield address
