"""A multilayer perceptron on one flattened input: images or table rows."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tasks.core.transforms import TensorSpec
from tasks.models import Family
from tasks.units import Units, dense_neurons

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}


class MLP(Family):
    """Dense layers of the given widths, each with an activation and dropout, then one logit for each class."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (128, 128)
    activation: Literal["relu", "gelu", "tanh", "silu"] = "relu"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def build(self, inputs: tuple[TensorSpec, ...], outputs: int) -> nn.Module:
        if len(inputs) != 1 or inputs[0].dtype != "FP32":
            raise self._refuse(inputs, "mlp", "one float input")
        return _MLP(math.prod(inputs[0].shape), self, outputs)

    def units(self, module: nn.Module) -> tuple[Units, ...]:
        assert isinstance(module, _MLP)
        return dense_neurons("layers", module.layers)


class _MLP(nn.Module):
    def __init__(self, width: int, options: MLP, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for hidden in options.hidden:
            layers += [nn.Linear(width, hidden), _ACTIVATIONS[options.activation]()]
            if options.dropout:
                layers.append(nn.Dropout(options.dropout))
            width = hidden
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(torch.flatten(x, 1)))
        return logits
