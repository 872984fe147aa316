"""Training a smaller classifier on what a larger one answers (Hinton, Vinyals and Dean, 2015)."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.training.batches import Rows
from tasks.training.classification import Classification


@dataclass(frozen=True)
class Teacher:
    """Whose answers are learnt, and how much they count beside the labels."""

    module: nn.Module
    temperature: float
    """By which the logits of both are divided, so that the less probable classes count more."""
    share: float
    """Of the teacher's answers in the loss; the rest is the labels'."""
    hidden: float = 0.0
    """Weight of the mean squared difference between the outputs of the paired layers (Jiao et al., 2020)."""
    pairs: Sequence[tuple[nn.Module, nn.Module]] = ()
    """Layers of the student, each with the teacher's that it is to equal."""


class Distillation(Classification):
    """The objective of a student: the teacher's answers for the same rows, augmented alike, and their labels."""

    teacher: Teacher

    def losses(self, module: nn.Module, batch: Rows, places: Any) -> Iterator[Tensor]:
        inputs, targets = self.examples(batch, places)
        teacher = self.teacher
        with _outputs([there for _, there in teacher.pairs]) as wanted, torch.no_grad(), self.accelerator.autocast():
            answers = teacher.module(**inputs).float()
        with _outputs([here for here, _ in teacher.pairs]) as found, self.accelerator.autocast():
            logits = module(**inputs).float()
        loss = (1 - teacher.share) * self.cross_entropy(logits, targets)
        loss = loss + teacher.share * _divergence(logits, answers, teacher.temperature)
        if teacher.hidden:
            mask = inputs.get("attention_mask")
            loss = loss + teacher.hidden * torch.stack([_difference(*pair, mask) for pair in zip(found, wanted, strict=True)]).sum()
        yield loss


def _divergence(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """The rows' Kullback-Leibler divergence, summed, on the scale of a cross-entropy whatever the temperature."""
    here, there = (functional.log_softmax(values / temperature, dim=-1) for values in (logits, answers))
    return temperature**2 * functional.kl_div(here, there, reduction="sum", log_target=True)


def _difference(here: Tensor, there: Tensor, mask: Tensor | None) -> Tensor:
    """The mean squared difference within each row, padding aside, summed over the rows."""
    squared = (here.float() - there.float()).square().flatten(2) if here.ndim > 2 else (here.float() - there.float()).square().unsqueeze(1)
    if mask is None:
        return squared.mean((1, 2)).sum()
    weights = mask.unsqueeze(-1).to(squared.dtype)
    return ((squared * weights).sum((1, 2)) / (weights.sum((1, 2)) * squared.shape[-1])).sum()


@contextmanager
def _outputs(modules: list[nn.Module]) -> Iterator[list[Tensor]]:
    """What each of the modules returns in the block."""
    found: list[Tensor] = []

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(note).remove)
        yield found
