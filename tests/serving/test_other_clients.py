"""Other people's clients of the Open Inference Protocol, unchanged, get what ONNX Runtime answers.

They want an older protobuf and pandas than maasflow, so they live in an environment of their own, made once and kept in the user's cache.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.bundle import Bundle
from tasks.core.predictor import Predictor
from tests.conftest import REPOSITORY
from tests.serving.conftest import IMAGE, Served, end, start_server
from tests.serving.other_clients import CLIENTS
from tests.texts import HIDDEN, write_classifier, write_language_model

VERSIONS = ("tritonclient[grpc,http]==2.73.0", "kserve==0.21.0")
SCRIPT = Path(__file__).with_name("other_clients.py")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TENSORS: dict[str, dict[str, Any]] = {
    "people": {"x": np.array([[0, 0, 0, 1, 0, 0], [0.25, -1.5, 0, 0, 1, 0]], np.float32)},
    "moods": {"input_ids": np.array([[4, 5, 6], [7, 0, 0]], np.int64), "attention_mask": np.array([[1, 1, 1], [1, 0, 0]], np.int64)},
    "writer": {
        "input_ids": np.array([[4, 5, 6, 7]], np.int64),
        "hidden": np.full((1, 1, HIDDEN), 0.25, np.float32),
        "cell": np.full((1, 1, HIDDEN), -0.5, np.float32),
    },
}


@pytest.fixture(scope="session")
def python() -> Path:
    """Python with the clients. Made where none was yet, and moved to its place once it is whole."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maasflow" / "tests"
    folder = (
        cache
        / f"clients-{sys.version_info.major}.{sys.version_info.minor}-{'-'.join(VERSIONS).replace('[grpc,http]', '').replace('==', '-')}"
    )
    found = folder / "bin" / "python"
    if not found.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as fresh:
            make_environment(Path(fresh) / "clients")
            shutil.rmtree(folder, ignore_errors=True)
            # Its Python knows itself by where it lies; only its commands do not, and they are not needed.
            (Path(fresh) / "clients").rename(folder)
    return found


def environment() -> dict[str, str]:
    """Without what would let maasflow's packages stand in for theirs."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONWARNINGS")}


def make_environment(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *VERSIONS]
    done = subprocess.run(install, capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        pytest.skip(f"the clients cannot be installed, as where no package index can be reached: {done.stderr.strip()[-300:]}")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    served = Served(tmp_path_factory.mktemp("clients") / "served")
    served.serve("people", "1")
    write_classifier(served.folder / "moods" / "1")
    served.point("moods", "1")
    write_language_model(served.folder / "writer" / "1")
    served.point("writer", "1")
    return served


@pytest.fixture(scope="module")
def addresses(served: Served) -> Iterator[tuple[str, str]]:
    running = start_server(served.folder, served.folder.with_name("server.log"), "--grpc-port", "0")
    yield str(running.client.base_url).rstrip("/"), running.line.partition("gRPC on ")[2].split(")")[0]
    end(running)
    assert "Traceback" not in served.folder.with_name("server.log").read_text()


@pytest.mark.parametrize("model", TENSORS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_gets_what_the_model_answers(python: Path, served: Served, addresses: tuple[str, str], client: str, model: str) -> None:
    inputs = io.BytesIO()
    np.savez(inputs, **TENSORS[model])
    command = [str(python), str(SCRIPT), client, *addresses, model]
    done = subprocess.run(command, input=inputs.getvalue(), capture_output=True, env=environment(), check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    answered = np.load(io.BytesIO(done.stdout))

    predictor = Predictor(Bundle.open(served.folder / model / "1"))
    names = [spec.name for spec in predictor.manifest.outputs]
    assert answered.files == names
    for name, expected in zip(names, predictor.run(names, TENSORS[model]), strict=True):
        assert answered[name].dtype == np.float32
        np.testing.assert_allclose(answered[name], expected, atol=1e-6)


def test_tritons_client_asks_as_the_readme_says(python: Path, tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n([^`]*tritonclient[^`]*)```", (REPOSITORY / "README.md").read_text())
    served = Served(tmp_path / "served")
    served.serve("digits-mlp", "1", IMAGE.model_copy(update={"size": (8, 8)}))
    running = start_server(served.folder, tmp_path / "server.log")
    script = block.replace("localhost:8000", str(running.client.base_url).removeprefix("http://").rstrip("/"))
    done = subprocess.run([str(python), "-c", script], capture_output=True, text=True, env=environment(), check=False, timeout=120)
    end(running)
    assert done.stdout.split() == ["[[-0.5", "0.5]]"], done.stderr
