"""A recurrent language model: embedding, LSTM, dense."""

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from tasks.core.dataset import Task
from tasks.core.transforms import TensorSpec
from tasks.models import Family


class LSTMLanguageModel(Family):
    """The next token from all before it (Graves, 2013). It carries the LSTM's two states from one call to the next."""

    task: ClassVar[Task] = "language_modelling"

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


class _LSTM(nn.Module):
    def __init__(self, options: LSTMLanguageModel, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(outputs, options.embedding)
        between = options.dropout if options.layers > 1 else 0.0
        self.lstm = nn.LSTM(options.embedding, options.hidden, options.layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(options.hidden, outputs)

    def forward(self, input_ids: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # torch has the layers first, all that is called in batches has the rows first.
        states = (hidden.transpose(0, 1).contiguous(), cell.transpose(0, 1).contiguous())
        features, (hidden, cell) = self.lstm(self.embedding(input_ids), states)
        logits: Tensor = self.head(self.dropout(features))
        return logits, hidden.transpose(0, 1), cell.transpose(0, 1)
