"""`maasflow export`: a release for other servers."""

from pathlib import Path

import onnx
import pytest

from tests.flows.conftest import maasflow

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("model", ["small", "small@champion", "small@1"])
def test_a_release_becomes_a_triton_model_repository(model: str, released: Path, tmp_path: Path) -> None:
    done = maasflow(released, "export", "triton", model, str(tmp_path / "triton"))
    assert done.code == 0, done.err
    assert "small version 1" in done.out
    config = (tmp_path / "triton" / "small" / "config.pbtxt").read_text()
    assert 'name: "small"' in config
    inputs = onnx.load(tmp_path / "triton" / "small" / "1" / "model.onnx").graph.input
    assert all(f'name: "{each.name}"' in config for each in inputs)


@pytest.mark.parametrize(
    ("model", "told"),
    [("small@99", "the registry has no version 99 of a model 'small'"), ("large", "no version of 'large' is champion")],
)
def test_what_is_not_there_is_told(model: str, told: str, released: Path, tmp_path: Path) -> None:
    done = maasflow(released, "export", "triton", model, str(tmp_path / "triton"))
    assert done.code == 1
    assert told in done.err
    assert not (tmp_path / "triton").exists()
