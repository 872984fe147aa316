"""Export: the bundle holds the trained model, and parity would tell if it did not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tasks.core.bundle import Bundle
from tasks.core.errors import MaasflowError
from tasks.core.predictor import Predictor, this_place
from tasks.export import BUNDLE, largest_difference, write_onnx
from tasks.train import load
from tests.tiny import LABELS, TABLE, VERSION, Stages


def bundle(stages: Stages) -> Bundle:
    return Bundle.open(stages.folder("exported") / BUNDLE)


def tampered(stages: Stages, path: Path, value: float) -> float:
    """The parity of a file whose first weight is `value`."""
    model = onnx.load(bundle(stages).file())
    weights = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
    values = numpy_helper.to_array(weights).copy()
    values.flat[0] = value
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(model, path)
    family, module = load(stages.recipe, stages.encoded, len(LABELS), stages.folder("trained"))
    return largest_difference(family, module, stages.encoded.split("test"), path)


def test_parity_is_small_and_written_down(stages: Stages) -> None:
    assert 0 <= stages.export.parity < 1e-4
    assert bundle(stages).manifest.parity == stages.export.parity
    assert bundle(stages).manifest.parity_place == this_place()


def test_a_changed_weight_shows_in_the_parity(stages: Stages, tmp_path: Path) -> None:
    assert tampered(stages, tmp_path / "tampered.onnx", 50.0) > 1


def test_a_model_without_answers_has_no_parity(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(MaasflowError, match="no finite answer for some of the 1 test rows"):
        tampered(stages, tmp_path / "tampered.onnx", np.nan)


def test_the_manifest_says_what_a_client_and_a_reviewer_need(stages: Stages) -> None:
    manifest = bundle(stages).manifest
    assert manifest.columns == TABLE.features
    assert manifest.labels == LABELS
    assert manifest.inputs == stages.encoded.transform.inputs
    assert [(spec.name, spec.shape) for spec in manifest.outputs] == [("logits", (3,))]
    assert manifest.transform == stages.encoded.transform
    assert manifest.chosen == "fp32"
    assert manifest.recipe == json.loads(stages.recipe.model_dump_json())
    assert manifest.lineage.dataset == VERSION
    assert manifest.threads == stages.recipe.serving.threads


def test_the_bundle_is_its_manifest_and_one_file(stages: Stages) -> None:
    folder = bundle(stages).folder
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == ["bundle.json", "variants/fp32.onnx"]
    assert bundle(stages).file().stat().st_size == stages.export.bytes


def test_the_graph_is_valid_onnx_with_a_batch_of_any_size(stages: Stages) -> None:
    model = onnx.load(bundle(stages).file())
    onnx.checker.check_model(model, full_check=True)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_more_rows_are_compared_than_the_test_split_has(stages: Stages) -> None:
    family, module = load(stages.recipe, stages.encoded, len(LABELS), stages.folder("trained"))
    test = stages.encoded.split("test")
    assert largest_difference(family, module, test, bundle(stages).file(), (len(test) * 2 + 1,)) < 1e-4


def test_the_weights_in_the_file_are_the_trained_ones(stages: Stages) -> None:
    _, module = load(stages.recipe, stages.encoded, len(LABELS), stages.folder("trained"))
    weights = {tuple(value.shape): value.detach().numpy() for value in module.parameters()}
    for tensor in onnx.load(bundle(stages).file()).graph.initializer:
        found = numpy_helper.to_array(tensor)
        expected = weights.get(found.shape, weights.get(found.T.shape))
        assert expected is not None
        assert np.array_equal(found, expected) or np.array_equal(found.T, expected)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """A net wide enough that ONNX keeps tensors outside of its file, exported as if it were too large for one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(write_onnx, "__defaults__", (0,))
        sections: dict[str, Any] = {"model": {"hidden": [64, 64]}, "compression": {"compressors": [{"kind": "int8_dynamic"}]}}
        return Stages.run(tmp_path_factory.mktemp("apart") / "stages", **sections)


def test_weights_too_large_for_one_file_stand_beside_it(apart: Stages) -> None:
    found = bundle(apart)
    assert found.manifest.variant().files.keys() == {"variants/fp32.onnx", "variants/fp32.onnx.data"}
    assert {path.name for path in (found.folder / "variants").iterdir()} == {"fp32.onnx", "fp32.onnx.data"}
    assert found.manifest.variant().bytes == apart.export.bytes
    assert found.manifest.variant().external["variants/fp32.onnx.data"]
    assert apart.export.parity < 1e-4


def test_a_model_with_weights_beside_it_is_compressed_and_answers(apart: Stages) -> None:
    found = Bundle.open(apart.folder("compressed") / BUNDLE)
    assert apart.compression.failed == {}
    assert found.manifest.variant("int8_dynamic").bytes < found.manifest.variant("fp32").bytes
    named = {Path(name).name for variant in found.manifest.variants for name in variant.files}
    assert {path.name for path in (found.folder / "variants").iterdir()} == named
    answers = [Predictor(found, variant).predict([{"a": 2.0, "b": 1.0, "color": "red"}])[0].label for variant in ("fp32", "int8_dynamic")]
    assert answers == ["right", "right"]


def test_a_text_models_bundle_brings_its_tokenizer_and_fuses_its_attention(tmp_path: Path) -> None:
    found = Stages.run(
        tmp_path / "text", "text", model={"family": "bert", "hidden": 16, "layers": 2, "heads": 2}, compression={"compressors": []}
    )
    assert bundle(found).manifest.files.keys() == {"variants/fp32.onnx", "tokenizer.json"}
    assert found.export.fused["Attention"] == 2
    assert "2 attention layers fused" in found.export.figure
    (answer,) = Predictor(Bundle.open(found.folder("compressed") / BUNDLE)).predict(["the old man walks east"])
    assert answer.label == "right"


def test_a_language_models_bundle_says_what_it_carries(tmp_path: Path) -> None:
    model = {"family": "lstm_lm", "embedding": 8, "hidden": 12}
    found = Stages.run(
        tmp_path / "running", "running", model=model, training={"batch_size": 8, "window": 16}, compression={"compressors": []}
    )
    manifest = bundle(found).manifest
    assert (manifest.task, manifest.labels) == ("language_modelling", ())
    assert manifest.state == {"hidden": "next_hidden", "cell": "next_cell"}
    assert [(spec.name, spec.shape) for spec in manifest.state_inputs] == [("hidden", (1, 12)), ("cell", (1, 12))]
    assert [spec.name for spec in manifest.outputs] == ["logits", "next_hidden", "next_cell"]
    assert found.export.parity < 1e-4
