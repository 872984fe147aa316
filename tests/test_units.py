"""Leaving units out of the tensors is the same as having them act on nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tasks.core.encoded import Encoded
from tasks.core.language import first_state
from tasks.models import Family
from tasks.train import build
from tasks.training.forward import as_tensors
from tasks.units import Layers, Units, remove
from tests.tiny import LABELS, encode_tiny, recipe

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("table", {"family": "mlp", "hidden": [12, 8]}),
    "text_pool": ("text", {"family": "text_pool", "embedding": 8, "hidden": [12, 8]}),
    "bert": ("text", {"family": "bert", "hidden": 16, "layers": 3, "heads": 4}),
    "gpt2": ("text", {"family": "gpt2", "hidden": 8, "layers": 3, "heads": 2}),
    "lstm_lm": ("running", {"family": "lstm_lm", "embedding": 6, "hidden": 8, "layers": 3}),
    "resnet": ("image", {"family": "resnet", "stem": "small", "embedding": 4, "widths": [4, 8], "depths": [1, 2]}),
    "bottleneck": (
        "image",
        {"family": "resnet", "layer": "bottleneck", "stem": "small", "embedding": 4, "widths": [16, 32], "depths": [1, 1]},
    ),
}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoded]:
    return {kind: encode_tiny(tmp_path_factory.mktemp(kind) / kind, kind) for kind in ("table", "text", "image", "running")}


@pytest.fixture(params=MODELS)
def built(request: pytest.FixtureRequest, encoded: dict[str, Encoded]) -> tuple[Family, nn.Module, dict[str, torch.Tensor], torch.Tensor]:
    """A family, its module, the inputs of some rows and their targets."""
    kind, model = MODELS[request.param]
    torch.manual_seed(0)
    family, module = build(recipe(model=model), encoded[kind], 0 if kind == "running" else len(LABELS))
    split = encoded[kind].split("train")
    if kind == "running":
        ids = torch.from_numpy(split.tokens[:240].astype(np.int64).reshape(24, 10))
        return family, module.eval(), {"input_ids": ids[:, :-1], **as_tensors(first_state(family.state, 24))}, ids[:, 1:].flatten()
    return family, module.eval(), as_tensors(split.tensors(slice(24))), torch.from_numpy(split.targets[:24])


Built = tuple[Family, nn.Module, dict[str, torch.Tensor], torch.Tensor]


def answers(module: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits [rows, classes], or of a language model [tokens, vocabulary]."""
    found = module(**inputs)
    logits: torch.Tensor = found[0].flatten(0, 1) if isinstance(found, tuple) else found
    return logits


def silence(module: nn.Module, part: Units, unit: int) -> None:
    """Let one unit act on nothing."""
    for place in part.scored:
        weight = module.get_parameter(place.tensor).data
        weight.index_fill_(place.dimension, place.places([unit], part.count), 0.0)


def test_leaving_units_out_is_having_them_act_on_nothing(built: Built) -> None:
    family, module, inputs, _ = built
    parts = [part for part in family.units(module) if isinstance(part, Units)]
    assert parts
    for part in parts:
        silence(module, part, 1)
    expected = answers(module, inputs)
    kept = {part.key: [unit for unit in range(part.count) if unit != 1] for part in parts}
    remove(module, parts, kept)
    torch.testing.assert_close(answers(module, inputs), expected, rtol=1e-4, atol=1e-5)
    for part in parts:
        for place in part.slices:
            owner, _, name = place.tensor.rpartition(".")
            assert getattr(module.get_submodule(owner), name).shape[place.dimension] == place.groups * (part.count - 1) * place.width


def test_the_effect_is_how_the_loss_changes_to_first_order(built: Built) -> None:
    """By finite differences: the scored weights of one unit, made smaller by a ten-thousandth."""
    family, module, inputs, targets = built
    module.double()
    inputs = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(answers(module, inputs), targets)

    loss().backward()  # type: ignore[no-untyped-call]
    for part in family.units(module):
        if not isinstance(part, Units):
            continue
        effect, before = part.effects(module)[1], loss().item()
        saved = {place: module.get_parameter(place.tensor).data.clone() for place in part.scored}
        for place in part.scored:
            weight = module.get_parameter(place.tensor).data
            places = place.places([1], part.count)
            weight.index_copy_(place.dimension, places, weight.index_select(place.dimension, places) * (1 - 1e-4))
        changed = (before - loss().item()) / 1e-4
        for place, values in saved.items():
            module.get_parameter(place.tensor).data.copy_(values)
        assert changed == pytest.approx(effect.item(), rel=1e-2, abs=1e-6)


def test_layers_go_as_if_they_were_never_there(built: Built) -> None:
    family, module, inputs, _ = built
    for part in family.units(module):
        if isinstance(part, Layers):
            remove(module, [part], {part.key: [0, 2]})
            left = module.get_submodule(part.name)
            assert isinstance(left, nn.ModuleList)
            assert len(left) == 2
            before = answers(module, inputs)
            nn.init.zeros_(next(left[1].parameters()))
            assert not torch.equal(answers(module, inputs), before)
