"""Where a model runs: what is asked for, what there is, and that a device which a session does not get is an error."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core import cuda, machine
from tasks.core.bound import BoundSession
from tasks.core.bundle import Bundle
from tasks.core.errors import MaasflowError
from tasks.core.machine import cuda_device, device_for, this_machine
from tasks.core.predictor import Predictor, open_session, runtime_of
from tests.texts import write_classifier

with_device = pytest.mark.skipif(cuda_device() is None, reason="needs a CUDA device")
without_device = pytest.mark.skipif(cuda_device() is not None, reason="there is a CUDA device")


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that knows of a device."""
    for module in (machine, cuda):
        monkeypatch.setattr(module, "cuda_device", lambda: "NVIDIA H200")


def test_the_cpu_is_taken_unless_something_else_is_said(bundle: Bundle) -> None:
    assert bundle.manifest.device == "cpu"
    assert Predictor(bundle).session.get_providers() == ["CPUExecutionProvider"]


@without_device
def test_auto_is_the_cpu_where_there_is_no_device(bundle: Bundle) -> None:
    assert device_for("auto") == "cpu"
    assert this_machine().cuda is None
    assert runtime_of(open_session(bundle.file(), 1, "auto", bundle.manifest.inputs)).provider == "CPUExecutionProvider"


@pytest.mark.usefixtures("pretended")
def test_auto_is_a_device_that_a_mocked_driver_knows_of() -> None:
    assert [device_for(wanted) for wanted in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]


@without_device
def test_a_device_that_is_not_there_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(MaasflowError, match=r"serving\.device asks for a CUDA device, but the driver knows of no CUDA device") as caught:
        Predictor(Bundle(bundle.folder, bundle.manifest.replace(device="cuda")))
    assert caught.value.do.startswith("set serving.device to cpu, or install a driver for CUDA ")


@without_device
@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_provider_that_the_session_does_not_get_is_an_error_with_a_mocked_driver(device: machine.Device, bundle: Bundle) -> None:
    with pytest.raises(MaasflowError, match="ONNX Runtime gives the session CPUExecutionProvider alone"):
        open_session(bundle.file(), 1, device, bundle.manifest.inputs)


@without_device
@pytest.mark.usefixtures("pretended")
def test_a_model_that_cannot_be_captured_runs_without_graphs_and_says_so_with_a_mocked_device(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def session(path: Path, options: Any, provider: dict[str, str]) -> Any:
        if "enable_cuda_graph" in provider:
            raise RuntimeError("as all compute graph nodes have not been partitioned to the CUDAExecutionProvider")
        return open_session(path, 1)

    monkeypatch.setattr(cuda, "_session", session)
    monkeypatch.setattr(cuda, "BoundSession", lambda session, inputs, _, graphs: BoundSession(session, inputs, "cpu", graphs=graphs))
    found = open_session(bundle.file(), 1, "cuda", bundle.manifest.inputs)
    assert "fp32.onnx runs without CUDA graphs: as all compute graph nodes have not been partitioned" in caplog.text
    rows = np.ones((3, 2), np.float32)
    np.testing.assert_allclose(found.run(["logits"], {"x": rows})[0], Predictor(bundle).logits({"x": rows}), rtol=1e-6)


@without_device
@pytest.mark.usefixtures("pretended")
def test_a_model_that_the_device_cannot_run_is_an_error_with_a_mocked_device(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def session(*_: Any) -> Any:
        raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version\nmore")

    monkeypatch.setattr(cuda, "_session", session)
    with pytest.raises(MaasflowError, match=r"ONNX Runtime cannot run fp32\.onnx there: CUDA failure 35: .* runtime version\n"):
        open_session(bundle.file(), 1, "cuda", bundle.manifest.inputs)


# On a device.


@with_device
def test_on_a_device_texts_of_any_size_are_answered_as_on_the_cpu(tmp_path: Path) -> None:
    bundle = write_classifier(tmp_path / "moods")
    here, there = (Predictor(Bundle(bundle.folder, bundle.manifest.replace(device=device))) for device in ("cpu", "cuda"))
    assert runtime_of(there.session).provider == cuda.PROVIDER
    for rows in (1, 2, 3, 32, 33, 200):
        texts = ["good " * (1 + row % 9) + "bad" * (row % 2) for row in range(rows)]
        for expected, found in zip(here.predict(texts), there.predict(texts), strict=True):
            np.testing.assert_allclose(list(found.probabilities.values()), list(expected.probabilities.values()), atol=1e-5)


@with_device
def test_on_a_device_a_simple_model_is_captured_in_graphs(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    there = Predictor(Bundle(bundle.folder, bundle.manifest.replace(device="cuda")))
    assert "without CUDA graphs" not in caplog.text
    rows = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    first, again = (there.logits({"x": rows}) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, Predictor(bundle).logits({"x": rows}), rtol=1e-4)
