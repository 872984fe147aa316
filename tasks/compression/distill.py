"""Distillation: fewer layers of the same family, which begin as some of the whole model's and learn what it answers."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from tasks.compression import Compressor, Subject
from tasks.core.errors import MaasflowError
from tasks.models import MODELS
from tasks.recovery import Lesson, Trained, can_be_smaller


class Distill(Lesson, Compressor):
    """A student with fewer layers, trained on the logits and the features of the whole model (Sanh et al., 2019; Jiao et al., 2020)."""

    begins_trained: ClassVar[bool] = True

    layers: Annotated[int, Field(ge=1)] = 3
    """How many the student has. They begin as layers of the whole model, evenly spaced, the last one among them; an LSTM's first stays."""

    def unfit(self, subject: Subject) -> str | None:
        reason = can_be_smaller(subject.recipe, subject.trained)
        return reason or (
            None if MODELS.load(subject.family).layered else f"the family '{subject.family}' has no layers that can be left out"
        )

    def compress(self, source: Path, target: Path, subject: Subject) -> None:  # noqa: ARG002 - it begins with the trained module
        assert subject.trained
        whole = Trained.open(subject.recipe, subject.encoded, subject.classes, subject.trained)
        layers = whole.layers
        if layers is None or layers.count <= self.layers:
            found = "no layers that could be left out" if layers is None else f"{layers.count} layer{'' if layers.count == 1 else 's'}"
            raise MaasflowError(f"the model has {found}, a student of {self.layers} is asked for", "lower layers, or leave distill out")
        like = [(number + 1) * layers.count // self.layers - 1 for number in range(self.layers)]
        # Layers that do not add to what they are given may each take something else: the first stays the first.
        kept = like if layers.scored else [0, *like[1:]]
        self.write_taught(whole, {layers.key: kept}, like, target)
