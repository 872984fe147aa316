"""Pruning and distillation of small nets that were trained: what comes out is smaller, right, and said of it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tasks.compression import COMPRESSORS, Subject
from tasks.compression.prune import strongest
from tasks.core.errors import MaasflowError
from tasks.core.predictor import open_session, run_session
from tasks.core.scoring import score_split
from tasks.recovery import Lesson, Trained
from tests.tiny import LABELS, Stages

NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("table", {"hidden": [64, 64]}),
    "text_pool": ("text", {"family": "text_pool", "embedding": 8, "hidden": [64]}),
    "bert": ("text", {"family": "bert", "hidden": 16, "layers": 4, "heads": 4}),
    "gpt2": ("text", {"family": "gpt2", "hidden": 16, "layers": 4, "heads": 2}),
    "resnet": ("image", {"family": "resnet", "stem": "small", "embedding": 8, "widths": [16, 32], "depths": [1, 1]}),
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stages]:
    root = tmp_path_factory.mktemp("smaller")
    sections: dict[str, Any] = {"compression": {"compressors": []}, "training": {"epochs": 4}}
    return {name: Stages.run(root / name, kind, model=model, **sections) for name, (kind, model) in NETS.items()}


def subject(stages: Stages) -> Subject:
    return Subject(stages.recipe, stages.encoded, len(LABELS), stages.folder("trained"))


def fp32(stages: Stages) -> Path:
    return stages.folder("exported") / "bundle" / "variants" / "fp32.onnx"


def accuracy(path: Path, stages: Stages) -> float:
    return score_split(run_session(open_session(path)), stages.encoded.split("test")).metrics()["accuracy"]


def made(stages: Stages, target: Path, **spec: Any) -> Path:
    COMPRESSORS.build(spec).compress(fp32(stages), target, subject(stages))
    return target


@pytest.mark.parametrize("name", NETS)
def test_a_pruned_net_is_smaller_takes_any_batch_and_has_learnt_to_do_without(
    name: str, trained: dict[str, Stages], tmp_path: Path
) -> None:
    stages = trained[name]
    found = made(stages, tmp_path / "pruned.onnx", kind="prune", heads=0.5, layers=0.25, epochs=3)
    assert found.stat().st_size < 0.95 * fp32(stages).stat().st_size
    assert accuracy(found, stages) >= accuracy(fp32(stages), stages) - 0.05
    session, test = open_session(found), stages.encoded.split("test")
    for rows in (1, 7, 32):
        assert session.run(["logits"], test.tensors(np.arange(rows)))[0].shape == (rows, len(LABELS))
    assert [path.name for path in tmp_path.iterdir()] == ["pruned.onnx"]


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_student_has_so_many_layers_and_its_teachers_answers(name: str, trained: dict[str, Stages], tmp_path: Path) -> None:
    stages = trained[name]
    found = made(stages, tmp_path / "student.onnx", kind="distill", layers=2, epochs=4)
    assert sum(node.op_type == "Attention" for node in onnx.load(found).graph.node) == 2
    assert accuracy(found, stages) >= accuracy(fp32(stages), stages) - 0.05


def test_the_teacher_stays_as_it_was(trained: dict[str, Stages], tmp_path: Path) -> None:
    stages = trained["bert"]
    whole = Trained.open(stages.recipe, stages.encoded, len(LABELS), stages.folder("trained"))
    before = {name: value.clone() for name, value in whole.module.state_dict().items()}
    student = whole.without({"encoder.encoder.layer layers": [0, 3]})
    student.taught_by(whole, Lesson(epochs=1, learning_rate=0.01, temperature=2.0, answers=1.0), tmp_path)
    assert all(torch.equal(before[name], value) for name, value in whole.module.state_dict().items())
    assert not torch.equal(student.module.get_parameter("head.weight"), before["head.weight"])


def test_taught_in_bf16_it_is_written_in_fp32(trained: dict[str, Stages], tmp_path: Path) -> None:
    stages = trained["bert"]
    recipe = stages.recipe.model_copy(update={"training": stages.recipe.training.model_copy(update={"precision": "bf16"})})
    whole = Trained.open(recipe, stages.encoded, len(LABELS), stages.folder("trained"))
    student = whole.without({"encoder.encoder.layer layers": [0, 3]})
    student.taught_by(whole, Lesson(epochs=1, learning_rate=0.01, temperature=2.0, answers=1.0), tmp_path).write(tmp_path / "student.onnx")
    assert sum(node.op_type == "Attention" for node in onnx.load(tmp_path / "student.onnx").graph.node) == 2


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [("distill", "mlp", "the family 'mlp' has no layers that can be left out"), ("prune", "mlp", None), ("distill", "bert", None)],
)
def test_what_has_nothing_to_leave_out_says_so(kind: str, name: str, reason: str | None, trained: dict[str, Stages]) -> None:
    assert COMPRESSORS.build({"kind": kind}).unfit(subject(trained[name])) == reason


@pytest.mark.parametrize("kind", ["prune", "distill"])
def test_without_the_trained_weights_it_says_so(kind: str, trained: dict[str, Stages]) -> None:
    stages = trained["bert"]
    assert COMPRESSORS.build({"kind": kind}).unfit(Subject(stages.recipe, stages.encoded)) == "the trained weights are not at hand"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "distill", "layers": 4}, "the model has 4 layers, a student of 4 is asked for"),
        ({"kind": "prune", "neurons": 0.0}, "nothing would be left out"),
    ],
)
def test_what_would_leave_nothing_out_is_refused(spec: dict[str, Any], message: str, trained: dict[str, Stages], tmp_path: Path) -> None:
    with pytest.raises(MaasflowError, match=message):
        made(trained["bert"], tmp_path / "same.onnx", **spec)


def test_the_strongest_stay_wherever_they_are() -> None:
    effects = {"a": torch.tensor([9.0, 1.0, 8.0, 2.0]), "b": torch.tensor([0.1, 0.3, 0.2, 7.0])}
    assert strongest(effects, 0.5) == {"a": [0, 2, 3], "b": [3]}
    assert strongest(effects, 0.9) == {"a": [0], "b": [3]}
    assert strongest(effects, 0.5, multiple=2) == {"a": [0, 1, 2, 3], "b": [1, 3]}
