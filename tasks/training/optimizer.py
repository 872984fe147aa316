"""Optimizers and learning-rate schedules by the recipe's names."""

import math
from collections.abc import Callable

import torch
from torch import nn

from tasks.core.recipe import Training


def make_optimizer(module: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The recipe's optimizer. Weight decay falls on weights only: not on biases, nor on the scales of norms."""
    decayed = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.ndim >= 2]
    others = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.ndim < 2]
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    match training.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=training.learning_rate, fused=True)
        case "sgd":
            return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum, fused=True)


def learning_rate_factor(training: Training, steps: int) -> Callable[[int], float]:
    """What the learning rate is multiplied by at an optimizer step, of `steps` in all: a linear warm-up, then the schedule."""
    warmup = round(training.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        left = 1 - (step - warmup) / max(1, steps - warmup)
        match training.schedule:
            case "constant":
                return 1.0
            case "linear":
                return max(0.0, left)
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * (1 - max(0.0, left))))

    return factor
