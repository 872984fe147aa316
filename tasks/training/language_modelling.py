"""Training a language model: the next token, along a text that is read in parallel lanes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from tasks.core.encoded import EncodedSplit
from tasks.core.errors import DataError, MaasflowError
from tasks.core.recipe import Training
from tasks.core.scoring import score_split
from tasks.core.transforms import TensorSpec
from tasks.training.carried import Carried
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
        self._carried = Carried(state, accelerator.device)

    @property
    def steps(self) -> int:
        return self._lane_length // self.training.window

    def batches(self, epoch: int) -> list[Window]:
        """Each epoch begins at another of the first tokens, so that the windows are cut elsewhere."""
        start = int(np.random.default_rng([self.training.seed, epoch]).integers(self.training.window))
        lanes = start + self._lane_length * np.arange(self._lanes)
        return [Window(lanes + self.training.window * number, first=number == 0) for number in range(self.steps)]

    def spread(self, rows: int, size: int) -> list[Window]:
        """Windows that know nothing of what stands before them."""
        window = self.training.window
        starts = np.linspace(0, len(self._tokens) - 1 - window, min(rows, len(self._tokens) // window)).astype(np.int64)
        return [Window(starts[start : start + size], first=True) for start in range(0, len(starts), size)]

    def size(self, batch: Window) -> int:
        return len(batch.lanes)

    def weight(self, batch: Window) -> float:
        return len(batch.lanes) * self.training.window

    def inputs(self, batch: Window, places: Any) -> dict[str, Tensor]:
        return {"input_ids": self._read(batch, places, 0), **self._carried.at(places, first=batch.first)}

    def losses(self, module: nn.Module, batch: Window, places: Any) -> Iterator[Tensor]:
        with self.accelerator.autocast():
            logits, *state = module(**self.inputs(batch, places))
        self._carried.keep(state, places, self.size(batch))
        yield self.cross_entropy(logits, batch, places)

    def cross_entropy(self, logits: Tensor, batch: Window, places: Any) -> Tensor:
        """Of logits [places, window, vocabulary] and the tokens that follow, summed."""
        following = self._read(batch, places, 1)
        return functional.cross_entropy(
            logits.float().flatten(0, 1), following.flatten(), reduction="sum", label_smoothing=self.training.label_smoothing
        )

    def step_done(self) -> None:
        self._carried.step_done()

    def carried(self) -> dict[str, Tensor]:
        return self._carried.tensors

    def carry(self, tensors: dict[str, Tensor], /) -> None:
        self._carried.carry(tensors)

    def validate(self, module: nn.Module) -> dict[str, float]:
        run = run_module(module, self.state, self.accelerator.device, self.accelerator.autocast)
        scored = score_split(run, self.validation, self.state)
        if lost := scored.unanswered:
            raise MaasflowError(f"the model has no finite answer for {len(lost)} of {len(scored)} blocks of the validation text")
        return scored.metrics()

    def _read(self, batch: Window, places: Any, ahead: int) -> Tensor:
        """The tokens of some lanes' windows, or those so many places ahead of them: int64 [places, window]."""
        tokens = self._tokens[batch.lanes[places][:, None] + np.arange(ahead, ahead + self.training.window)]
        return as_tensors({"tokens": tokens.astype(np.int64)}, self.accelerator.device)["tokens"]
