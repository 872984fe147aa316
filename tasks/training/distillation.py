"""Training a smaller module on what a larger one answers (Hinton, Vinyals and Dean, 2015)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.training.augmentation import cross_texts
from tasks.training.batches import Rows
from tasks.training.classification import Classification

_UNKNOWN: Final = -100
"""The target that torch's cross-entropy passes over."""


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
    crossed: float = 0.0
    """The share of texts that end as another does."""

    def teach(
        self, student: nn.Module, inputs: dict[str, Tensor], own: dict[str, Tensor], autocast: Callable[[], AbstractContextManager[object]]
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """The student's outputs, those of the teacher for its `own` inputs, and the teacher's part of the summed loss."""
        with _outputs([there for _, there in self.pairs]) as wanted, torch.no_grad(), autocast():
            answers = _listed(self.module(**own))
        with _outputs([here for here, _ in self.pairs]) as found, autocast():
            outputs = _listed(student(**inputs))
        loss = self.share * _divergence(outputs[0].float(), answers[0].float(), self.temperature)
        if self.pairs:
            # A language model answers at each token of a row.
            each, mask = answers[0][..., 0].numel() / len(answers[0]), inputs.get("attention_mask")
            loss = loss + self.hidden * each * torch.stack([_difference(*pair, mask) for pair in zip(found, wanted, strict=True)]).sum()
        return outputs, answers, loss


class Distillation(Classification):
    """The objective of a student that classifies: the teacher's answers for the same rows, augmented alike, and the labels, where known."""

    teacher: Teacher

    def losses(self, module: nn.Module, batch: Rows, places: Any) -> Iterator[Tensor]:
        inputs, targets = self.examples(batch, places)
        if self.teacher.crossed and "attention_mask" in inputs:
            inputs, crossed = cross_texts(inputs, self.teacher.crossed)
            targets = targets.masked_fill(crossed, _UNKNOWN)
        (logits,), _, taught = self.teacher.teach(module, inputs, inputs, self.accelerator.autocast)
        yield (1 - self.teacher.share) * self.cross_entropy(logits.float(), targets) + taught


def _divergence(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """The answers' Kullback-Leibler divergence, summed, on the scale of a cross-entropy whatever the temperature."""
    here, there = (functional.log_softmax(values / temperature, dim=-1) for values in (logits, answers))
    return temperature**2 * functional.kl_div(here, there, reduction="sum", log_target=True)


def _difference(here: Tensor, there: Tensor, mask: Tensor | None) -> Tensor:
    """The mean squared difference within each row, padding aside, summed over the rows."""
    squared = (here.float() - there.float()).square().flatten(2) if here.ndim > 2 else (here.float() - there.float()).square().unsqueeze(1)
    if mask is None:
        return squared.mean((1, 2)).sum()
    weights = mask.unsqueeze(-1).to(squared.dtype)
    return ((squared * weights).sum((1, 2)) / (weights.sum((1, 2)) * squared.shape[-1])).sum()


def _listed(outputs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


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
