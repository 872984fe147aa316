"""Distillation: fewer layers of the same family, which begin as some of the whole model's and learn what it answers."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, ClassVar, Self

from pydantic import Field
from torch import nn

from tasks.compression import Compressor, Subject
from tasks.core.errors import MaasflowError
from tasks.models import MODELS
from tasks.recovery import Lesson, Trained, can_be_smaller
from tasks.units import Layers


class Distill(Compressor):
    """A student with fewer layers, trained on the logits and the features of the whole model (Sanh et al., 2019; Jiao et al., 2020)."""

    begins_trained: ClassVar[bool] = True

    layers: Annotated[int, Field(ge=1)] = 3
    """How many the student has. They begin as layers of the whole model, evenly spaced, the last one among them; an LSTM's first stays."""
    epochs: Annotated[int, Field(ge=0)] = 8
    """Of training. 0 leaves the layers as they began."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """The recipe's where not given."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """By which the logits are divided before the answers are compared."""
    answers: Annotated[float, Field(ge=0, le=1)] = 0.9
    """The share of the whole model's answers in the loss; the rest is the labels'."""
    hidden: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the mean squared difference between each layer's features and those of the whole model's layer that it is to equal."""

    def unfit(self, subject: Subject) -> str | None:
        reason = can_be_smaller(subject.recipe, subject.trained)
        return reason or (
            None if MODELS.load(subject.family).layered else f"the family '{subject.family}' has no layers that can be left out"
        )

    def taught(self, share: float) -> Self | None:
        return self.model_copy(update={"epochs": round(self.epochs * share + 0.25)}) if self.epochs else None

    def compress(self, source: Path, target: Path, subject: Subject) -> None:  # noqa: ARG002 - it begins with the trained module
        assert subject.trained
        whole = Trained.open(subject.recipe, subject.encoded, subject.classes, subject.trained)
        layers = next((part for part in whole.parts if isinstance(part, Layers)), None)
        if layers is None or layers.count <= self.layers:
            found = "no layers that could be left out" if layers is None else f"{layers.count} layer{'' if layers.count == 1 else 's'}"
            raise MaasflowError(f"the model has {found}, a student of {self.layers} is asked for", "lower layers, or leave distill out")
        equalled = [(number + 1) * layers.count // self.layers - 1 for number in range(self.layers)]
        # Layers that do not add to what they are given may each take something else: the first stays the first.
        kept = equalled if layers.scored else [0, *equalled[1:]]
        student = whole.without({layers.key: kept})
        here, there = (module.get_submodule(layers.name) for module in (student.module, whole.module))
        assert isinstance(here, nn.ModuleList)
        assert isinstance(there, nn.ModuleList)
        pairs = [(here[number], there[index]) for number, index in enumerate(equalled)]
        lesson = Lesson(
            self.epochs, self.learning_rate or subject.recipe.training.learning_rate, self.temperature, self.answers, self.hidden
        )
        if self.epochs:
            with TemporaryDirectory(dir=target.parent) as folder:
                student.taught_by(whole, lesson, Path(folder), pairs)
        student.write(target)
