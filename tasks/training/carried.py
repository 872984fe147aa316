"""What a language model carries along the lanes of a text, from one window to the next."""

from typing import Any

import torch
from torch import Tensor

from tasks.core.language import first_state
from tasks.core.transforms import TensorSpec
from tasks.training.forward import as_tensors


class Carried:
    """The state of each lane: zeros, until a window was read."""

    def __init__(self, state: tuple[TensorSpec, ...], device: torch.device) -> None:
        self.state, self.device = state, device
        self.tensors: dict[str, Tensor] = {}
        """[lanes, *shape] by name; nothing at the beginning."""
        self._next: dict[str, Tensor] = {}

    def at(self, places: Any, *, first: bool) -> dict[str, Tensor]:
        """The state that some lanes begin a window with, which is the `first` or not."""
        if first or not self.tensors:
            return as_tensors(first_state(self.state, len(places)), self.device)
        return {name: tensor[places] for name, tensor in self.tensors.items()}

    def keep(self, state: list[Tensor], places: Any, lanes: int) -> None:
        """Note the next state of some of the lanes. The present one stays until all went through, in case they must go through again."""
        for spec, tensor in zip(self.state, state, strict=True):
            if spec.name not in self._next:
                self._next[spec.name] = torch.zeros((lanes, *spec.shape), device=tensor.device)
            self._next[spec.name][places] = tensor.detach().float()

    def step_done(self) -> None:
        """All lanes went through: the next state is the present one."""
        self.tensors, self._next = self._next, {}

    def carry(self, tensors: dict[str, Tensor]) -> None:
        """Go on from these."""
        self.tensors = {name: tensor.to(self.device) for name, tensor in tensors.items()}
