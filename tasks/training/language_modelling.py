"""Training a language model: the next token, along a text that is read in parallel lanes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from tasks.core.encoded import EncodedSplit
from tasks.core.errors import DataError, MaasflowError
from tasks.core.language import first_state
from tasks.core.recipe import Training
from tasks.core.scoring import score_split
from tasks.core.transforms import TensorSpec
from tasks.training.forward import as_tensors, run_module


@dataclass(frozen=True)
class Window:
    """The tokens at which the lanes stand: int64 [lanes]; `first` where they begin."""

    lanes: npt.NDArray[np.int64]
    first: bool


class LanguageModelling:
    """The objective of a running text: backpropagation truncated at windows, over which the state is carried (Williams and Peng, 1990).

    A batch is a window, its places are lanes.
    """

    def __init__(
        self, training: Training, train: EncodedSplit, validation: EncodedSplit, accelerator: Accelerator, state: tuple[TensorSpec, ...]
    ) -> None:
        self.training, self.validation, self.accelerator, self.state = training, validation, accelerator, state
        self._tokens = np.asarray(train.tokens)
        self._lanes = training.batch_size * training.accumulation
        # Less one window, by which the beginning differs from epoch to epoch.
        self._lane_length = (len(self._tokens) - 1 - training.window) // self._lanes
        if self._lane_length < training.window:
            raise DataError(
                f"the training text has {len(self._tokens):,} tokens, too few for {self._lanes} lanes of {training.window}",
                "lower training.batch_size or training.window",
            )
        self._carried: dict[str, Tensor] = {}
        self._next: dict[str, Tensor] = {}

    @property
    def steps(self) -> int:
        return self._lane_length // self.training.window

    def batches(self, epoch: int) -> list[Window]:
        """Each epoch begins at another of the first tokens, so that the windows are cut elsewhere."""
        start = int(np.random.default_rng([self.training.seed, epoch]).integers(self.training.window))
        lanes = start + self._lane_length * np.arange(self._lanes)
        return [Window(lanes + self.training.window * number, first=number == 0) for number in range(self.steps)]

    def size(self, batch: Window) -> int:
        return len(batch.lanes)

    def weight(self, batch: Window) -> float:
        return len(batch.lanes) * self.training.window

    def inputs(self, batch: Window, places: Any) -> dict[str, Tensor]:
        ids = self._tokens[batch.lanes[places][:, None] + np.arange(self.training.window)]
        if batch.first or not self._carried:
            state = as_tensors(first_state(self.state, len(ids)), self.accelerator.device)
        else:
            state = {name: tensor[places] for name, tensor in self._carried.items()}
        return as_tensors({"input_ids": ids.astype(np.int64)}, self.accelerator.device) | state

    def losses(self, module: nn.Module, batch: Window, places: Any) -> Iterator[Tensor]:
        following = self._tokens[batch.lanes[places][:, None] + np.arange(1, self.training.window + 1)].astype(np.int64)
        with self.accelerator.autocast():
            logits, *state = module(**self.inputs(batch, places))
        self._keep(state, places)
        targets = torch.from_numpy(following).to(self.accelerator.device)
        yield functional.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), reduction="sum", label_smoothing=self.training.label_smoothing
        )

    def step_done(self) -> None:
        self._carried, self._next = self._next, {}

    def carried(self) -> dict[str, Tensor]:
        return self._carried

    def carry(self, tensors: dict[str, Tensor], /) -> None:
        self._carried = {name: tensor.to(self.accelerator.device) for name, tensor in tensors.items()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        run = run_module(module, self.state, self.accelerator.device, self.accelerator.autocast)
        scored = score_split(run, self.validation, self.state)
        if lost := scored.unanswered:
            raise MaasflowError(f"the model has no finite answer for {len(lost)} of {len(scored)} blocks of the validation text")
        return scored.metrics()

    def _keep(self, state: list[Tensor], places: Any) -> None:
        """Note the next state of some lanes. The present one stays until all went through, in case they must go through again."""
        for spec, tensor in zip(self.state, state, strict=True):
            if spec.name not in self._next:
                self._next[spec.name] = torch.zeros((self._lanes, *spec.shape), device=tensor.device)
            self._next[spec.name][places] = tensor.detach().float()
