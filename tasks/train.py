"""Train: the recipe's model on the training split, keeping the weights that are best on the validation split."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from tasks.core.encoded import Encoded
from tasks.core.recipe import LOWER_IS_BETTER, Recipe
from tasks.core.stages import StageResult
from tasks.models import MODELS
from tasks.training.loop import WEIGHTS, Epoch, Loop


class TrainResult(StageResult):
    """What training ended with; the weights are those of `best`."""

    parameters: int
    device: str
    best: Epoch
    history: tuple[Epoch, ...]

    @property
    def figure(self) -> str:
        return (
            f"{self.parameters:,} parameters on {self.device}, best epoch {self.best.epoch} of {len(self.history)}: "
            f"validation accuracy {self.best.validation['accuracy']:.4f}"
        )


def train(recipe: Recipe, classes: int, encoded: Encoded, out: Path, report: Callable[[Epoch], None] = lambda _: None) -> TrainResult:
    """Write the best epoch's weights to `out`. Raises ConfigError for a model that does not fit, MaasflowError for a device."""
    torch.manual_seed(recipe.training.seed)
    module = build(recipe, encoded, classes)
    loop = Loop(module, recipe.training, encoded.split("train"), encoded.split("validation"), out)
    history = loop.run(report)
    loop.checkpoint.path.unlink(missing_ok=True)
    metric = recipe.training.keep_best
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return TrainResult(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        device=str(loop.accelerator.device),
        best=min(history, key=lambda epoch: sign * epoch.validation[metric]),
        history=tuple(history),
    )


def build(recipe: Recipe, encoded: Encoded, classes: int) -> nn.Module:
    """The recipe's module, newly initialised."""
    return MODELS.build(recipe.model, recipe.origin.below("model")).build(encoded.transform.inputs, classes)


def load(recipe: Recipe, encoded: Encoded, classes: int, trained: Path) -> nn.Module:
    """The trained module, on the CPU and in evaluation mode."""
    module = build(recipe, encoded, classes)
    module.load_state_dict(load_file(trained / WEIGHTS))
    return module.eval()
