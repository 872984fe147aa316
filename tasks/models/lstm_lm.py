"""A recurrent language model: embedding, LSTM, dense."""

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tasks.core.dataset import Task
from tasks.core.transforms import TensorSpec
from tasks.models import Family
from tasks.units import Layers, Slice, Units

_GATES = 4


class LSTMLanguageModel(Family):
    """The next token from all before it (Graves, 2013). It carries the LSTM's two states from one call to the next."""

    task: ClassVar[Task] = "language_modelling"
    layered: ClassVar[bool] = True

    embedding: Annotated[int, Field(ge=1)] = 64
    """Width of a token's embedding."""
    hidden: Annotated[int, Field(ge=1)] = 256
    """Width of each LSTM layer."""
    layers: Annotated[int, Field(ge=1, le=16)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Between layers, and before the dense layer."""

    def build(self, inputs: tuple[TensorSpec, ...], outputs: int) -> nn.Module:
        if [spec.name for spec in inputs] != ["input_ids"]:
            raise self._refuse(inputs, "lstm_lm", "a running text")
        return _LSTM(self, outputs)

    @property
    def state(self) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name=name, dtype="FP32", shape=(self.layers, self.hidden)) for name in ("hidden", "cell"))

    def units(self, module: nn.Module) -> tuple[Units | Layers, ...]:
        assert isinstance(module, _LSTM)
        layers = [_units(module, number) for number in range(len(module.lstm))]
        # What a layer makes takes the place of what it is given: none can be taken out as if it had added nothing.
        return (*layers, Layers("lstm", len(layers), scored=()))


def _units(module: "_LSTM", number: int) -> Units:
    """The units of a layer, which it has once for each gate; they act on its own gates at the next token, and on what follows."""
    layer, next_layer = f"lstm.{number}", f"lstm.{number + 1}"
    last = number + 1 == len(module.lstm)
    gates = [Slice(f"{layer}.{name}_l0", 0, groups=_GATES) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    outputs = (Slice(f"{layer}.weight_hh_l0", 1), Slice("head.weight" if last else f"{next_layer}.weight_ih_l0", 1))
    widths = ((layer, "hidden_size", 1), ("head", "in_features", 1) if last else (next_layer, "input_size", 1))
    return Units(layer, "units", module.layers[number].hidden_size, (*gates, *outputs), outputs, widths)


class _LSTM(nn.Module):
    """Whatever was left out of it, it takes and gives the whole's state: it uses the first layers and places, and gives zeros for the rest."""

    def __init__(self, options: LSTMLanguageModel, outputs: int) -> None:
        super().__init__()
        self.whole = (options.layers, options.hidden)
        self.embedding = nn.Embedding(outputs, options.embedding)
        widths = [options.embedding] + [options.hidden] * options.layers
        # One by one, so that each may be of a width of its own.
        self.lstm = nn.ModuleList(nn.LSTM(*pair, batch_first=True) for pair in pairwise(widths))
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(options.hidden, outputs)

    @property
    def layers(self) -> list[nn.LSTM]:
        return [layer for layer in self.lstm if isinstance(layer, nn.LSTM)]

    def forward(self, input_ids: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, following = self.embedding(input_ids), []
        # torch has the layers first, all that is called in batches has the rows first.
        states = (hidden.transpose(0, 1), cell.transpose(0, 1))
        for number, layer in enumerate(self.layers):
            features, next_state = layer(features, tuple(self._part(state, number, layer.hidden_size) for state in states))
            features = self.dropout(features)
            following.append(next_state)
        logits: Tensor = self.head(features)
        next_hidden, next_cell = (self._joined(list(parts)).transpose(0, 1) for parts in zip(*following, strict=True))
        return logits, next_hidden, next_cell

    def _part(self, state: Tensor, number: int, units: int) -> Tensor:
        """Of a state [layers, batch, hidden] what a layer uses, [1, batch, units]."""
        layers, hidden = self.whole
        part = state if layers == 1 else state.narrow(0, number, 1)
        return (part if units == hidden else part.narrow(2, 0, units)).contiguous()

    def _joined(self, parts: list[Tensor]) -> Tensor:
        """The layers' states, each [1, batch, units], as one, [layers, batch, hidden]."""
        layers, hidden = self.whole
        padded = [
            part if layer.hidden_size == hidden else functional.pad(part, (0, hidden - layer.hidden_size))
            for part, layer in zip(parts, self.layers, strict=True)
        ]
        joined = padded[0] if len(padded) == 1 else torch.cat(padded)
        return joined if len(padded) == layers else functional.pad(joined, (0, 0, 0, 0, 0, layers - len(padded)))
