"""Training a classifier: cross-entropy over rows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn import functional

from tasks.core.encoded import EncodedSplit
from tasks.core.errors import MaasflowError
from tasks.core.recipe import Training
from tasks.core.scoring import scored_rows
from tasks.training.adversary import Adversary
from tasks.training.augmentation import Augment
from tasks.training.batches import Batches, Rows
from tasks.training.forward import as_tensors, run_module


class Classification:
    """The objective of a dataset with labels. A batch is its row numbers."""

    def __init__(
        self,
        training: Training,
        train: EncodedSplit,
        validation: EncodedSplit,
        accelerator: Accelerator,
        augment: Augment | None = None,
        adversary: Adversary | None = None,
    ) -> None:
        self.training, self.train, self.validation, self.accelerator = training, train, validation, accelerator
        self._batches = Batches(train, training)
        self._augment, self._adversary = augment, adversary
        self._class_weights = (
            _class_weights(train.targets[self._batches.rows], accelerator.device) if training.balance == "weights" else None
        )

    @property
    def steps(self) -> int:
        return self._batches.steps

    def batches(self, epoch: int) -> list[Rows]:
        return self._batches.epoch(epoch)

    def spread(self, rows: int, size: int) -> list[Rows]:
        chosen = np.linspace(0, len(self.train) - 1, min(rows, len(self.train))).astype(np.int64)
        return [chosen[start : start + size] for start in range(0, len(chosen), size)]

    def size(self, batch: Rows) -> int:
        return len(batch)

    def weight(self, batch: Rows) -> float:
        return len(batch) if self._class_weights is None else float(self._class_weights[self.train.targets[batch]].sum())

    def inputs(self, batch: Rows, places: Any) -> dict[str, Tensor]:
        return as_tensors(self.train.tensors(batch[places]), self.accelerator.device)

    def losses(self, module: nn.Module, batch: Rows, places: Any) -> Iterator[Tensor]:
        inputs, targets = self.examples(batch, places)

        def loss() -> Tensor:
            with self.accelerator.autocast():
                logits = module(**inputs)
            return self.cross_entropy(logits.float(), targets)

        if self._adversary:
            yield from self._adversary.losses(loss)
        else:
            yield loss()

    def examples(self, batch: Rows, places: Any) -> tuple[dict[str, Tensor], Tensor]:
        """The inputs of some places, augmented, and their targets int64 [places]."""
        inputs = self.inputs(batch, places)
        targets = torch.from_numpy(self.train.targets[batch[places]]).to(self.accelerator.device)
        return self._augment(inputs) if self._augment else inputs, targets

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Summed over the rows, each with the weight of its class."""
        return functional.cross_entropy(
            logits, targets, self._class_weights, reduction="sum", label_smoothing=self.training.label_smoothing
        )

    def step_done(self) -> None:
        return

    def carried(self) -> dict[str, Tensor]:
        return {}

    def carry(self, _: dict[str, Tensor], /) -> None:
        return

    def validate(self, module: nn.Module) -> dict[str, float]:
        scored = scored_rows(self.logits(module, self.validation), self.validation.targets)
        if lost := scored.unanswered:
            raise MaasflowError(f"the model has no finite answer for {len(lost)} of {len(scored)} validation rows")
        return scored.metrics()

    def logits(self, module: nn.Module, split: EncodedSplit) -> npt.NDArray[np.float32]:
        """float32 [rows, classes] of the module as it is now. Each process answers for its share of the rows."""
        run = run_module(module, device=self.accelerator.device, autocast=self.accelerator.autocast)
        mine = split.calls(256)[self.accelerator.process_index :: self.accelerator.num_processes]
        answers = gather_object([(rows, run(split.tensors(rows))["logits"]) for rows in mine])
        found = np.empty((len(split), answers[0][1].shape[1]), np.float32)
        for rows, logits in answers:
            found[rows] = logits
        return found


def _class_weights(targets: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    """Inverse class frequency, of mean 1 over the rows."""
    counts = np.bincount(targets).astype(np.float64)
    return torch.tensor(counts.sum() / (len(counts) * counts), dtype=torch.float32, device=device)
