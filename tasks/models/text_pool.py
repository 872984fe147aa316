"""A mean of embeddings: word order is lost, which many texts are labelled without."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tasks.core.transforms import TensorSpec
from tasks.models import Family, text_inputs
from tasks.units import Units, dense_neurons


class TextPool(Family):
    """The mean of the tokens' embeddings, dense layers of the given widths, then one logit for each class.

    As fastText has it (Joulin et al., 2016), with the padding masked out.
    """

    embedding: Annotated[int, Field(ge=1)] = 64
    """Width of a token's embedding."""
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64,)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Of the mean and of each hidden layer."""
    output: Literal["softmax", "sigmoid"] = "softmax"
    """sigmoid, for two classes, learns one logit: that of the second class, beside a 0 for the first."""

    def build(self, inputs: tuple[TensorSpec, ...], outputs: int) -> nn.Module:
        if not text_inputs(inputs):
            raise self._refuse(inputs, "text_pool", "a text")
        if self.output == "sigmoid" and outputs != 2:
            raise self.origin.error(("output",), f"'sigmoid' is for two classes, the dataset has {outputs}", "set output: softmax")
        assert inputs[0].vocabulary
        return _TextPool(inputs[0].vocabulary, self, outputs)

    def units(self, module: nn.Module) -> tuple[Units, ...]:
        assert isinstance(module, _TextPool)
        return dense_neurons("layers", module.layers)

    def token_embedding(self, module: nn.Module) -> nn.Module:
        assert isinstance(module, _TextPool)
        return module.embedding


class _TextPool(nn.Module):
    def __init__(self, vocabulary: int, options: TextPool, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, options.embedding)
        nn.init.normal_(self.embedding.weight, std=0.1)
        layers: list[nn.Module] = [nn.Dropout(options.dropout)]
        width = options.embedding
        for hidden in options.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(options.dropout)]
            width = hidden
        self.layers = nn.Sequential(*layers)
        self.single = options.output == "sigmoid"
        self.head = nn.Linear(width, 1 if self.single else outputs)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.unsqueeze(-1).to(self.embedding.weight.dtype)
        mean = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1).clamp(min=1)
        logits: Tensor = self.head(self.layers(mean))
        return torch.cat([torch.zeros_like(logits), logits], 1) if self.single else logits
