"""Residual convolutional nets."""

import itertools
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import ResNetConfig

from tasks.core.transforms import TensorSpec
from tasks.models import Family
from tasks.transformer import new_module, pretrained_config, pretrained_module
from tasks.units import Slice, Units

Width = Annotated[int, Field(ge=1)]


class ResNet(Family):
    """A ResNet (He et al., 2016), its features averaged over the image, then one logit for each class.

    The defaults are those of ResNet-18; `{layer: bottleneck, widths: [256, 512, 1024, 2048], depths: [3, 4, 6, 3]}` is ResNet-50.
    """

    pretrained: str | None = None
    """A folder, an installed package, or an id of the hub, as microsoft/resnet-50. Without it, sizes and weights are new."""
    layer: Literal["basic", "bottleneck"] = "basic"
    """Two convolutions of 3 × 3 to a block, or one between two of 1 × 1."""
    stem: Literal["large", "small"] = "large"
    """large: 7 × 7 with pooling, a quarter of each side is left. small: 3 × 3, for images of few pixels."""
    embedding: Width = 64
    """Channels after the stem."""
    widths: tuple[Width, ...] = (64, 128, 256, 512)
    """Channels of each group of blocks. Each group but the first halves the sides."""
    depths: tuple[Width, ...] = (2, 2, 2, 2)
    """Blocks in each group."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Before the head."""

    def build(self, inputs: tuple[TensorSpec, ...], outputs: int) -> nn.Module:
        if len(inputs) != 1 or len(inputs[0].shape) != 3:
            raise self._refuse(inputs, "resnet", "an image")
        return _ResNet(self._backbone(inputs[0].shape[0]), self.dropout, outputs)

    def units(self, module: nn.Module) -> tuple[Units, ...]:
        """The channels within each block. Those between blocks are added to what went around them, and stay."""
        found = []
        for name, block in module.named_modules():
            if type(block).__name__ in ("ResNetBasicLayer", "ResNetBottleNeckLayer"):
                convolutions = [f"{name}.layer.{index}" for index in range(len(block.get_submodule("layer")))]
                found += [_channels(module, here, following) for here, following in itertools.pairwise(convolutions)]
        return tuple(found)

    def _backbone(self, channels: int) -> Any:
        if self.pretrained:
            config = pretrained_config(self, self.pretrained, ("resnet",), ("layer", "stem", "embedding", "widths", "depths"))
            if config.num_channels != channels:
                raise self.origin.error(
                    ("pretrained",),
                    f"it takes images of {config.num_channels} channels, the transform gives {channels}",
                    f"set transform.mode to {'RGB' if config.num_channels == 3 else 'L'}",
                )
            return pretrained_module(self, self.pretrained, config)
        if len(self.widths) != len(self.depths):
            raise self.origin.error(("depths",), f"{len(self.depths)} depths for {len(self.widths)} widths: one for each group is expected")
        module = new_module(
            ResNetConfig(
                num_channels=channels,
                embedding_size=self.embedding,
                hidden_sizes=list(self.widths),
                depths=list(self.depths),
                layer_type=self.layer,
                hidden_act="relu",
            )
        )
        if self.stem == "small":
            module.embedder.embedder.convolution = nn.Conv2d(channels, self.embedding, 3, padding=1, bias=False)
            module.embedder.pooler = nn.Identity()
        return module


def _channels(module: nn.Module, here: str, following: str) -> Units:
    """The channels between two convolutions."""
    norm = [Slice(f"{here}.normalization.{tensor}", 0) for tensor in ("weight", "bias", "running_mean", "running_var")]
    output = Slice(f"{following}.convolution.weight", 1)
    weight = f"{here}.convolution.weight"
    return Units(here, "channels", module.get_parameter(weight).shape[0], (Slice(weight, 0), *norm, output), (output,))


class _ResNet(nn.Module):
    def __init__(self, backbone: Any, dropout: float, outputs: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.config.hidden_sizes[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.backbone(pixel_values=x).pooler_output
        logits: Tensor = self.head(self.dropout(torch.flatten(features, 1)))
        return logits
