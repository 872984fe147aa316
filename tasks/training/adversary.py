"""Adversarial training of texts (Miyato, Dai and Goodfellow, 2017, section 3)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Adversary:
    """Moves each text's embeddings by a share of their own norm, in the direction in which its loss rises fastest.

    A text's move depends on that text alone, so that parts of a batch and several processes take the steps of one.
    """

    def __init__(self, embedding: nn.Module, share: float) -> None:
        self.embedding, self.share = embedding, share
        self._move = torch.zeros(())

    def losses(self, loss: Callable[[], Tensor]) -> Iterator[Tensor]:
        """Half of the loss, and half of it with the embeddings moved, once the first was taken back through the module."""
        with _after(self.embedding, self._watch):
            plain = loss()
        yield plain / 2
        with _after(self.embedding, self._moved):
            moved = loss()
        yield moved / 2

    def _watch(self, found: Tensor) -> Tensor:
        """Have the gradient of embeddings [batch, length, width] noted as the move."""
        embeddings = found.detach()

        def note(gradient: Tensor) -> None:
            # Padding has no gradient, and must not count: how much of it there is depends on the neighbours.
            length = (embeddings * (gradient != 0).any(-1, keepdim=True)).flatten(1).norm(dim=1, keepdim=True)
            # Where fp16 overflows the step is not taken, and the loss of a text that is not moved is at least finite.
            direction = torch.nan_to_num(functional.normalize(gradient.flatten(1)))
            self._move = (self.share * length * direction).view_as(gradient)

        # With a frozen embedding there is no gradient to follow unless it is asked for.
        watched: Any = found if found.requires_grad else found.requires_grad_()
        watched.register_hook(note)
        return found

    def _moved(self, found: Tensor) -> Tensor:
        return found + self._move


@contextmanager
def _after(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """For the block, let what the module returns go through a function."""

    def hook(_module: nn.Module, _inputs: Any, found: Tensor) -> Tensor:
        return change(found)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
