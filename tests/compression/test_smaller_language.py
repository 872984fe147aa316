"""Pruning and distillation of a small language model that was trained: what is left of it keeps to the whole model's state."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from tasks.compress import SCORES
from tasks.compression import COMPRESSORS, Subject
from tasks.compression.prune import Prune
from tasks.core.bundle import Bundle
from tasks.core.errors import MaasflowError
from tasks.core.generator import Generator, Options
from tasks.core.language import Run, first_state, next_name
from tasks.core.predictor import Predictor, open_session, run_session
from tasks.core.scoring import load_scores
from tasks.core.transforms import Tensors
from tasks.export import BUNDLE
from tasks.recovery import Trained
from tests.tiny import Stages

MODEL: dict[str, Any] = {"family": "lstm_lm", "embedding": 16, "hidden": 48, "layers": 2, "dropout": 0.1}
TRAINING: dict[str, Any] = {"batch_size": 8, "window": 16, "epochs": 3}
PRUNE: dict[str, Any] = {"kind": "prune", "units": 0.5, "epochs": 2}
DISTILL: dict[str, Any] = {"kind": "distill", "layers": 1, "epochs": 3}


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """After a search of which both are part."""
    compression = {"compressors": [PRUNE, DISTILL], "objective": "size"}
    return Stages.run(tmp_path_factory.mktemp("language") / "stages", "running", model=MODEL, training=TRAINING, compression=compression)


def bundle(stages: Stages) -> Bundle:
    return Bundle.open(stages.folder("compressed") / BUNDLE)


def subject(stages: Stages) -> Subject:
    return Subject(stages.recipe, stages.encoded, 0, stages.folder("trained"))


def lstms(stages: Stages, name: str) -> list[onnx.NodeProto]:
    """The layers in a variant's file."""
    return [node for node in onnx.load(bundle(stages).file(name)).graph.node if node.op_type == "LSTM"]


def read(run: Run, ids: npt.NDArray[np.int64], state: Tensors, length: int) -> Iterator[Tensors]:
    """The outputs for each so many tokens of ids [rows, tokens], the state carried."""
    for start in range(0, ids.shape[1], length):
        outputs = run({"input_ids": ids[:, start : start + length], **state})
        yield outputs
        state = {name: outputs[next_name(name)] for name in state}


smaller = pytest.mark.parametrize("name", ["prune", "distill"])


@smaller
def test_it_is_smaller_and_has_learnt_to_do_without(name: str, searched: Stages) -> None:
    assert searched.compression.failed == {}
    found, whole = (bundle(searched).manifest.variant(variant) for variant in (name, "fp32"))
    assert found.bytes < 0.7 * whole.bytes
    here, there = (load_scores(searched.folder("compressed") / SCORES / f"{variant}.npz").metrics() for variant in (name, "fp32"))
    assert here["nats"] <= there["nats"] + 0.05


@smaller
def test_its_file_asks_for_the_whole_models_state(name: str, searched: Stages) -> None:
    def declared(variant: str) -> dict[str, Any]:
        session = open_session(bundle(searched).file(variant))
        return {node.name: node.shape for node in (*session.get_inputs(), *session.get_outputs())}

    assert declared(name) == declared("fp32")


@smaller
@pytest.mark.parametrize("length", [1, 7])
def test_read_step_by_step_it_answers_as_at_once(name: str, length: int, searched: Stages) -> None:
    run, state = run_session(open_session(bundle(searched).file(name))), bundle(searched).manifest.state_inputs
    ids = searched.encoded.split("test").tokens[:84].astype(np.int64).reshape(3, 28)
    parts = [outputs["logits"] for outputs in read(run, ids, first_state(state, 3), length)]
    whole = next(read(run, ids, first_state(state, 3), 28))["logits"]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


@smaller
def test_the_server_can_go_on_with_it(name: str, searched: Stages) -> None:
    generation = Generator(Predictor(bundle(searched), name)).generate("the cat ", Options(max_tokens=20, temperature=0))
    assert "".join(generation).split()[0] in ("sees", "hears", "likes")


def test_what_is_left_out_of_the_state_is_never_looked_at_and_comes_out_as_zeros(searched: Stages) -> None:
    run, state = run_session(open_session(bundle(searched).file("prune"))), bundle(searched).manifest.state_inputs
    ids, first = np.array([[1, 2, 3], [4, 5, 6]], np.int64), first_state(state, 2)
    expected = next(read(run, ids, first, 3))
    for layer, node in enumerate(lstms(searched, "prune")):
        width = next(attribute.i for attribute in node.attribute if attribute.name == "hidden_size")
        assert width < MODEL["hidden"]
        for name, values in first.items():
            assert expected[next_name(name)][:, layer, :width].all()
            assert not expected[next_name(name)][:, layer, width:].any()
            values[:, layer, width:] = 9.0
    found = next(read(run, ids, first, 3))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_units_go_from_every_layer_and_no_layer_goes(searched: Stages) -> None:
    compressor = COMPRESSORS.build({**PRUNE, "layers": 0.5})
    assert isinstance(compressor, Prune)
    kept = compressor.kept(Trained.open(searched.recipe, searched.encoded, 0, searched.folder("trained")))
    assert kept.keys() == {"lstm.0 units", "lstm.1 units"}
    assert all(len(units) in (16, 32) for units in kept.values())


def test_a_student_keeps_the_first_layer_which_alone_takes_embeddings(searched: Stages) -> None:
    (layer,) = lstms(searched, "distill")
    weights = {tensor.name: list(tensor.dims) for tensor in onnx.load(bundle(searched).file("distill")).graph.initializer}
    assert weights[layer.input[1]] == [1, 4 * MODEL["hidden"], MODEL["embedding"]]


def test_after_pruning_its_weights_can_be_made_int8(searched: Stages, tmp_path: Path) -> None:
    source = bundle(searched).file("prune")
    COMPRESSORS.build({"kind": "int8_dynamic", "smallest": 64}).compress(source, tmp_path / "small.onnx", subject(searched))
    assert (tmp_path / "small.onnx").stat().st_size < 0.6 * source.stat().st_size
    state = bundle(searched).manifest.state_inputs
    runs = [run_session(open_session(path)) for path in (source, tmp_path / "small.onnx")]
    ids = searched.encoded.split("test").tokens[:200].astype(np.int64).reshape(4, 50)
    fp32, int8 = (next(read(run, ids, first_state(state, 4), 50))["logits"].argmax(axis=-1) for run in runs)
    assert (fp32 == int8).mean() >= 0.95


def test_a_student_of_as_many_layers_is_refused(searched: Stages, tmp_path: Path) -> None:
    with pytest.raises(MaasflowError, match="the model has 2 layers, a student of 2 is asked for"):
        COMPRESSORS.build({**DISTILL, "layers": 2}).compress(bundle(searched).file(), tmp_path / "student.onnx", subject(searched))
