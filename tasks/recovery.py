"""A trained module made smaller, taught by what it was, and written as ONNX."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Self

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import Field
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tasks.core.config import Config
from tasks.core.encoded import Encoded
from tasks.core.errors import MaasflowError
from tasks.core.recipe import Augmentation, Recipe, Training
from tasks.export import largest_difference, write_onnx
from tasks.models import MODELS, Family
from tasks.train import load, objective
from tasks.training.augmentation import augmenter
from tasks.training.averaging import averaged
from tasks.training.device import accelerator
from tasks.training.distillation import Distillation, Teacher
from tasks.training.language_distillation import LanguageDistillation
from tasks.training.loop import Loop
from tasks.units import Kept, Layers, Units, remove

_FAITHFUL = 1e-3
"""The largest difference between torch's and ONNX Runtime's logits, as for a whole model's export."""


class Lesson(Config):
    """How what is left of a module learns to answer as the whole one does."""

    epochs: Annotated[int, Field(ge=0)] = 8
    """Of training. 0 leaves what is left as it is."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """The recipe's where not given."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """By which the logits are divided before the answers are compared."""
    answers: Annotated[float, Field(ge=0, le=1)] = 0.9
    """The share of the whole model's answers in the loss; the rest is the labels'."""
    hidden: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the mean squared difference between each layer's features and those of the whole model's layer that it is to equal."""
    crossed: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The share of texts to be classified that end as another does: no label is known for them, but the whole model has an answer, and is
    less sure of it than of what it was trained on."""

    def taught(self, share: float) -> Self | None:
        """The same with so much of the training, from 0 to 1; None where there is none."""
        return self.model_copy(update={"epochs": round(self.epochs * share + 0.25)}) if self.epochs else None

    def write_taught(self, whole: "Trained", kept: Kept, like: Sequence[int], target: Path) -> None:
        """Write as ONNX what is left of a module when it has learnt.

        `like` names, for each layer that is left, the one of the whole whose features it is to equal; it may be empty.
        Raises MaasflowError where ONNX Runtime does not answer as torch does.
        """
        smaller = whole.without(kept)
        if self.epochs:
            with TemporaryDirectory(dir=target.parent) as folder:
                smaller.taught_by(whole, self, Path(folder), like)
        smaller.write(target)


@dataclass(frozen=True)
class Trained:
    """A family's trained module, with the rows that it was trained on."""

    recipe: Recipe
    encoded: Encoded
    family: Family
    module: nn.Module

    @classmethod
    def open(cls, recipe: Recipe, encoded: Encoded, classes: int, folder: Path) -> "Trained":
        return cls(recipe, encoded, *load(recipe, encoded, classes, folder))

    @property
    def parts(self) -> tuple[Units | Layers, ...]:
        """What may be left out."""
        return self.family.units(self.module)

    @property
    def layers(self) -> Layers | None:
        """The list of its layers, where it has one that may be shorter."""
        return next((part for part in self.parts if isinstance(part, Layers)), None)

    def effects(self, rows: int, size: int = 32) -> dict[str, torch.Tensor]:
        """float32 [count] by the key of each part: how much the loss depends on each unit, to first order.

        The mean over batches of the absolute change, from `rows` training rows, of a running text windows, spread over the split.
        """
        exact = {"device": "cpu", "precision": "fp32", "augmentation": Augmentation(), "adversarial": 0.0, "label_smoothing": 0.0}
        training, parts = self.recipe.training.model_copy(update=exact), self.parts
        module = copy.deepcopy(self.module).eval().requires_grad_(requires_grad=True)
        recipe = self.recipe.model_copy(update={"training": training})
        measured = objective(recipe, self.family, module, self.encoded, accelerator(training))
        found = {part.key: torch.zeros(part.count) for part in parts}
        for batch in measured.spread(rows, size):
            module.zero_grad()
            for loss in measured.losses(module, batch, np.arange(measured.size(batch))):
                (loss / measured.weight(batch)).backward()  # type: ignore[no-untyped-call]
            for part in parts:
                found[part.key] += part.effects(module).abs()
        return found

    def without(self, kept: Kept) -> "Trained":
        """A copy in which all but the kept units are left out of the tensors."""
        smaller = copy.deepcopy(self.module)
        remove(smaller, self.parts, kept)
        return Trained(self.recipe, self.encoded, self.family, smaller)

    def taught_by(self, teacher: "Trained", lesson: Lesson, folder: Path, like: Sequence[int] = ()) -> "Trained":
        """Train this module on the teacher's answers, in place; it ends with an average of its last steps' weights.

        A student does not get worse while it learns a function, and a small validation split could not tell its epochs apart.
        `folder` is for the checkpoint, `like` as of `Lesson.write_taught`.
        """
        training = self.recipe.training.model_copy(
            update={
                "epochs": lesson.epochs,
                "learning_rate": lesson.learning_rate or self.recipe.training.learning_rate,
                "schedule": "linear",
                "warmup": 0.1,
                "early_stopping": None,
                "freeze_backbone": False,
                "compile": False,
                "label_smoothing": 0.0,
            }
        )
        torch.manual_seed(training.seed)
        pairs = self._pairs(teacher, like) if lesson.hidden else []
        self._prepare(pairs)
        on = accelerator(training)
        heard = self._distillation(training, on)
        original = teacher.module.to(on.device).eval()
        heard.teacher = Teacher(original, lesson.temperature, lesson.answers, lesson.hidden, pairs, lesson.crossed)
        loop, average = Loop(self.module, training, heard, on, folder), averaged(self.module)
        loop.optimizer.optimizer.register_step_post_hook(lambda *_: average.update_parameters(self.module))
        # On a CPU the kernel that spares memory is slow to go back through short texts: steps take a fifth longer with it.
        with sdpa_kernel(SDPBackend.MATH) if on.device.type == "cpu" else nullcontext():
            loop.run(lambda _: None)
        # accelerate left it computing in the training's precision, in which it would be exported too.
        on.unwrap_model(self.module, keep_fp32_wrapper=False)
        self.module.cpu().load_state_dict(average.module.state_dict())
        self.module.requires_grad_(requires_grad=True).eval()
        return self

    def _prepare(self, pairs: Sequence[tuple[nn.Module, nn.Module]]) -> None:
        for module in self.module.modules():
            # What is left has too few weights to learn the rows by heart, and its teacher's features come without noise.
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            # Where its layers are to give what the teacher's give, they may as well be given what those are.
            if pairs and isinstance(module, nn.Embedding):
                module.requires_grad_(requires_grad=False)

    def _pairs(self, teacher: "Trained", like: Sequence[int]) -> list[tuple[nn.Module, nn.Module]]:
        if not like:
            return []
        assert teacher.layers
        here, there = (module.get_submodule(teacher.layers.name) for module in (self.module, teacher.module))
        assert isinstance(here, nn.ModuleList)
        assert isinstance(there, nn.ModuleList)
        return [(layer, there[index]) for layer, index in zip(here, like, strict=True)]

    def _distillation(self, training: Training, on: Accelerator) -> Distillation | LanguageDistillation:
        """The objective of a student on this data, for which a teacher is still to be named."""
        train, validation = self.encoded.split("train"), self.encoded.split("validation")
        if self.encoded.task == "language_modelling":
            return LanguageDistillation(training, train, validation, on, self.family.state)
        augment = augmenter(training.augmentation, self.encoded.transform, self.recipe.origin.below("training"))
        return Distillation(training, train, validation, on, augment)

    def write(self, path: Path) -> None:
        """Write the module as ONNX. Raises MaasflowError where ONNX Runtime does not answer as torch does."""
        test = self.encoded.split("test")
        write_onnx(self.family, self.module, test, path)
        difference = largest_difference(self.family, self.module, test, path)
        if difference > _FAITHFUL:
            raise MaasflowError(f"exported, its logits differ by {difference:.1e} from torch's, more than {_FAITHFUL:g}")


def can_be_smaller(recipe: Recipe, trained: Path | None) -> str | None:
    """Why a model cannot be made smaller and taught again; None where it can."""
    family = MODELS.load(str(recipe.model[MODELS.key]))
    if family.units is Family.units:
        return f"the family '{recipe.model[MODELS.key]}' has nothing that can be left out"
    return None if trained else "the trained weights are not at hand"
