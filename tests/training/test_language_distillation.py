"""A student of a running text reads it beside its teacher, and each carries what it read itself."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tasks.core.encoded import Encoded
from tasks.recovery import Trained
from tasks.train import build
from tasks.training.device import accelerator
from tasks.training.distillation import Teacher
from tasks.training.language_distillation import LanguageDistillation
from tasks.training.language_modelling import Window
from tests.tiny import encode_tiny, recipe

RECIPE = recipe(model={"family": "lstm_lm", "embedding": 8, "hidden": 24, "layers": 2}, training={"batch_size": 8, "window": 16})


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    return encode_tiny(tmp_path_factory.mktemp("language") / "running", "running")


@pytest.fixture
def whole(encoded: Encoded) -> Trained:
    torch.manual_seed(0)
    family, module = build(RECIPE, encoded, 0)
    # Far enough from zero that it matters what was read before.
    for parameter in module.parameters():
        parameter.data *= 3
    return Trained(RECIPE, encoded, family, module)


def lessons(whole: Trained, **teacher: Any) -> LanguageDistillation:
    train, validation = whole.encoded.split("train"), whole.encoded.split("validation")
    found = LanguageDistillation(RECIPE.training, train, validation, accelerator(RECIPE.training), whole.family.state)
    found.teacher = Teacher(**{"module": copy.deepcopy(whole.module).eval(), "temperature": 2.0, "share": 1.0, **teacher})
    return found


def losses(objective: LanguageDistillation, student: nn.Module, windows: list[Window]) -> list[float]:
    """Of some windows, one after the other: for each token."""
    found = []
    for batch in windows:
        (loss,) = objective.losses(student, batch, np.arange(objective.size(batch)))
        found.append(loss.item() / objective.weight(batch))
        objective.step_done()
    return found


def test_who_answers_as_the_teacher_does_has_nothing_to_learn(whole: Trained) -> None:
    """In later windows too, where both know the earlier ones."""
    objective = lessons(whole)
    assert losses(objective, whole.module, objective.batches(0)[:3]) == pytest.approx([0.0] * 3, abs=1e-6)


def test_the_teacher_answers_as_if_it_read_alone(whole: Trained) -> None:
    """Whatever a narrower student made of the window before."""
    objective, asked = lessons(whole), list[torch.Tensor]()
    objective.teacher.module.register_forward_hook(lambda _module, _inputs, outputs: asked.append(outputs[0]))
    student = whole.without({"lstm.0 units": range(8)}).module
    windows = objective.batches(0)[:2]
    losses(objective, student, windows)
    tokens = np.asarray(whole.encoded.split("train").tokens)
    ids = torch.from_numpy(tokens[windows[0].lanes[:, None] + np.arange(32)].astype(np.int64))
    expected = whole.module(ids, torch.zeros(8, 2, 24), torch.zeros(8, 2, 24))[0]
    torch.testing.assert_close(torch.cat(asked, dim=1), expected, rtol=1e-4, atol=1e-5)


def test_what_both_carry_is_in_the_checkpoint(whole: Trained) -> None:
    objective, student = lessons(whole), whole.without({"lstm.0 units": range(8)}).module
    windows = objective.batches(0)[:3]
    losses(objective, student, windows[:2])
    resumed = lessons(whole)
    resumed.carry({name: tensor.clone() for name, tensor in objective.carried().items()})
    assert losses(resumed, student, windows[2:]) == losses(objective, student, windows[2:])


def test_features_count_at_each_token_as_answers_do(whole: Trained) -> None:
    """A layer that gives its teacher's features and one more is wrong by one, on the scale of a token's loss."""
    student = copy.deepcopy(whole.module)
    here = student.get_submodule("lstm.1")
    here.register_forward_hook(lambda _module, _inputs, outputs: (outputs[0] + 1, outputs[1]))
    found = {}
    for weight in (0.0, 1.0):
        objective = lessons(whole, hidden=weight, pairs=[(here, whole.module.get_submodule("lstm.1"))], module=whole.module)
        (found[weight],) = losses(objective, student, objective.batches(0)[:1])
    assert found[1.0] - found[0.0] == pytest.approx(1.0, rel=1e-4)
