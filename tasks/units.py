"""Parts of a module that can be left out of its tensors: heads, neurons, channels, recurrent units, layers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["heads", "neurons", "channels", "units", "layers"]


@dataclass(frozen=True)
class Slice:
    """Where a tensor holds some units: along one dimension, `groups` times, each time every unit with `width` places."""

    tensor: str
    dimension: int
    groups: int = 1
    width: int = 1

    def places(self, kept: Sequence[int], count: int) -> Tensor:
        """int64 [groups × kept × width], the places of the kept units of `count`."""
        grid = torch.arange(self.groups * count * self.width).view(self.groups, count, self.width)
        return grid[:, list(kept)].flatten()


@dataclass(frozen=True)
class Units:
    """Units of one kind in one part of a module, any of which can be left out."""

    name: str
    """Where they are, as `encoder.layer.3`."""
    kind: Kind
    count: int
    slices: tuple[Slice, ...]
    """Every tensor that holds them."""
    scored: tuple[Slice, ...]
    """Those by whose weights they act on what follows, so that setting these to zero leaves a unit out."""
    widths: tuple[tuple[str, str, int], ...] = ()
    """Attributes that hold how wide they are together: the submodule, the attribute's name, and the width of one unit."""

    @property
    def key(self) -> str:
        return f"{self.name} {self.kind}"

    def remove(self, module: nn.Module, kept: Sequence[int]) -> None:
        """Leave all but the kept units out of the module."""
        for part in self.slices:
            _cut(module, part.tensor, part.dimension, part.places(kept, self.count))
        for submodule, attribute, width in self.widths:
            setattr(module.get_submodule(submodule), attribute, width * len(kept))

    def effects(self, module: nn.Module) -> Tensor:
        """float32 [count], how the loss would change to first order without each unit, from the gradients that are there.

        The sum of gradient times weight (Molchanov et al., 2019, equation 8, before squaring).
        """
        found = torch.zeros(self.count)
        for part in self.scored:
            parameter = module.get_parameter(part.tensor)
            assert parameter.grad is not None
            product = (parameter.detach() * parameter.grad).float().cpu().movedim(part.dimension, 0)
            found += product.reshape(part.groups, self.count, -1).sum((0, 2))
        return found


@dataclass(frozen=True)
class Layers:
    """A list of layers through which features go one after the other."""

    name: str
    """The submodule, an nn.ModuleList."""
    count: int
    scored: tuple[str, ...]
    """Parameters within a layer by which it adds to the features. None where it does not add but makes others, as an LSTM's."""
    kind: Kind = "layers"

    @property
    def key(self) -> str:
        return f"{self.name} {self.kind}"

    def remove(self, module: nn.Module, kept: Sequence[int]) -> None:
        """Leave all but the kept layers out of the module."""
        layers = module.get_submodule(self.name)
        assert isinstance(layers, nn.ModuleList)
        _replace(module, self.name, nn.ModuleList(layers[index] for index in kept))

    def effects(self, module: nn.Module) -> Tensor:
        """float32 [count], as of `Units`."""
        layers = module.get_submodule(self.name)
        found = torch.zeros(self.count)
        for index in range(self.count):
            for name in self.scored:
                parameter = layers.get_submodule(str(index)).get_parameter(name)
                assert parameter.grad is not None
                found[index] += (parameter.detach() * parameter.grad).float().sum().cpu()
        return found


Kept = Mapping[str, Sequence[int]]
"""The units that stay, by the key of the `Units` or `Layers` that they belong to."""


def remove(module: nn.Module, parts: Iterable[Units | Layers], kept: Kept) -> None:
    """Leave all but the kept units out; parts of which nothing is said stay whole."""
    # Layers last: the others are named by their places among all layers.
    for part in sorted(parts, key=lambda part: part.kind == "layers"):
        if part.key in kept:
            part.remove(module, kept[part.key])


def _cut(module: nn.Module, name: str, dimension: int, places: Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    submodule = module.get_submodule(owner)
    found = getattr(submodule, attribute)
    shorter = found.detach().index_select(dimension, places.to(found.device))
    if isinstance(found, nn.Parameter):
        setattr(submodule, attribute, nn.Parameter(shorter, requires_grad=found.requires_grad))
    else:
        submodule.register_buffer(attribute, shorter)


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(owner), attribute, new)


def dense_neurons(name: str, layers: nn.Sequential, head: str = "head") -> tuple[Units, ...]:
    """The neurons of each dense layer in a list of layers that ends in the dense layer `head`."""
    dense = [f"{name}.{index}" for index, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
    found = []
    for layer, following in zip(dense, [*dense[1:], head], strict=True):
        width = layers.get_submodule(layer.removeprefix(f"{name}.")).get_parameter("weight").shape[0]
        output = Slice(f"{following}.weight", 1)
        found.append(Units(layer, "neurons", width, (Slice(f"{layer}.weight", 0), Slice(f"{layer}.bias", 0), output), (output,)))
    return tuple(found)
