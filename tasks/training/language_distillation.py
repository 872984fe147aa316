"""Training a smaller language model on what a larger one expects next (Kim and Rush, 2016, at the level of tokens)."""

from collections.abc import Iterator
from typing import Any, Final

from accelerate import Accelerator
from torch import Tensor, nn

from tasks.core.encoded import EncodedSplit
from tasks.core.recipe import Training
from tasks.core.transforms import TensorSpec
from tasks.training.carried import Carried
from tasks.training.distillation import Teacher
from tasks.training.language_modelling import LanguageModelling, Window

_TEACHERS: Final = "teacher."


class LanguageDistillation(LanguageModelling):
    """The objective of a student that reads a running text beside its teacher, each with a state of its own."""

    teacher: Teacher

    def __init__(
        self, training: Training, train: EncodedSplit, validation: EncodedSplit, accelerator: Accelerator, state: tuple[TensorSpec, ...]
    ) -> None:
        super().__init__(training, train, validation, accelerator, state)
        self._teachers = Carried(state, accelerator.device)

    def losses(self, module: nn.Module, batch: Window, places: Any) -> Iterator[Tensor]:
        inputs = self.inputs(batch, places)
        own = {**inputs, **self._teachers.at(places, first=batch.first)}
        (logits, *state), (_, *teachers), taught = self.teacher.teach(module, inputs, own, self.accelerator.autocast)
        self._carried.keep(state, places, self.size(batch))
        self._teachers.keep(teachers, places, self.size(batch))
        yield (1 - self.teacher.share) * self.cross_entropy(logits, batch, places) + taught

    def step_done(self) -> None:
        super().step_done()
        self._teachers.step_done()

    def carried(self) -> dict[str, Tensor]:
        return super().carried() | {_TEACHERS + name: tensor for name, tensor in self._teachers.tensors.items()}

    def carry(self, tensors: dict[str, Tensor], /) -> None:
        super().carry({name: tensor for name, tensor in tensors.items() if not name.startswith(_TEACHERS)})
        self._teachers.carry({name.removeprefix(_TEACHERS): tensor for name, tensor in tensors.items() if name.startswith(_TEACHERS)})
