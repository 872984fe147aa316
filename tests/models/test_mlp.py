"""The multilayer perceptron's own options."""

from typing import Any

import pytest
import torch
from torch import nn

from tasks.core.errors import ConfigError
from tasks.core.transforms import TensorSpec
from tasks.models.mlp import MLP

IMAGE = (TensorSpec(name="x", dtype="FP32", shape=(1, 4, 4)),)


def layers(**options: Any) -> list[nn.Module]:
    found = MLP.parse(options).build(IMAGE, 10).modules()
    return [module for module in found if not list(module.children()) and not isinstance(module, nn.Sequential)]


def test_its_widths_are_those_of_the_recipe() -> None:
    linear = [layer for layer in layers(hidden=[5, 3]) if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(16, 5), (5, 3), (3, 10)]


def test_without_hidden_layers_it_is_a_linear_model() -> None:
    assert [type(layer) for layer in layers(hidden=[])] == [nn.Linear]


@pytest.mark.parametrize(("name", "kind"), [("relu", nn.ReLU), ("gelu", nn.GELU), ("tanh", nn.Tanh), ("silu", nn.SiLU)])
def test_every_activation_is_torchs(name: str, kind: type[nn.Module]) -> None:
    assert sum(isinstance(layer, kind) for layer in layers(hidden=[4, 4], activation=name)) == 2


def test_dropout_acts_in_training_alone() -> None:
    module = MLP.parse({"hidden": [64], "dropout": 0.5}).build(IMAGE, 10)
    x = torch.ones(1, 1, 4, 4)
    assert not torch.equal(module.train()(x), module.train()(x))
    assert torch.equal(module.eval()(x), module.eval()(x))


@pytest.mark.parametrize("options", [{"hidden": [0]}, {"hidden": 8}, {"dropout": 1.0}, {"dropout": -0.1}, {"activation": "rleu"}])
def test_an_option_out_of_its_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(options))}"):
        MLP.parse(options)
