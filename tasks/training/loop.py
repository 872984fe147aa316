"""The training loop, over Hugging Face accelerate."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from tasks.core.config import Config
from tasks.core.encoded import EncodedSplit
from tasks.core.errors import MaasflowError
from tasks.core.metrics import score
from tasks.core.predictor import probabilities, unanswered
from tasks.core.recipe import LOWER_IS_BETTER, Training
from tasks.training.checkpoint import Checkpoint, save_weights
from tasks.training.device import accelerator, fitting_threads
from tasks.training.optimizer import learning_rate_factor, make_optimizer
from tasks.training.progress import Progress

WEIGHTS = "model.safetensors"

_DIVERGED = "lower training.learning_rate, set training.clip_norm to 1, or look for extreme values in the data"


class Epoch(Config):
    """What one epoch ended with."""

    epoch: int
    step: int
    learning_rate: float
    train_loss: float
    validation: dict[str, float]
    finished: float
    """Unix time in seconds."""


@dataclass
class _State:
    """Where the loop stands; all of it goes into the checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches of this epoch already done, each of which was one step."""
    loss_sum: float = 0.0
    """Of this epoch's batches, each batch's mean loss times its rows."""
    best: float | None = None
    stale: int = 0
    """Epochs since the early-stopping metric last improved."""
    stopping_best: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def batches(rows: int, training: Training, epoch: int) -> list[npt.NDArray[np.int64]]:
    """The epoch's row numbers, shuffled by the seed and the epoch alone, cut into one batch for each optimizer step."""
    order = np.random.default_rng([training.seed, epoch]).permutation(rows)
    size = training.batch_size * training.accumulation
    return [order[start : start + size] for start in range(0, rows, size)]


class Loop:
    """Trains a module on one split and keeps the weights of its best epoch on another.

    `folder` receives `checkpoint.safetensors` and WEIGHTS; a loop that finds a checkpoint there goes on from it
    and ends with the same weights as one that was never broken off.
    """

    def __init__(self, module: nn.Module, training: Training, train: EncodedSplit, validation: EncodedSplit, folder: Path) -> None:
        self.training, self.train_split, self.validation_split, self.folder = training, train, validation, folder
        self.accelerator: Accelerator = accelerator(training)
        self.module, self.optimizer = self.accelerator.prepare(module, make_optimizer(module, training))
        self.checkpoint = Checkpoint(folder / "checkpoint.safetensors")
        self.steps = len(batches(len(train), training, 0)) * training.epochs
        self.factor = learning_rate_factor(training, self.steps)
        self.class_weights = self._class_weights()
        self.penalised = [p for p in module.parameters() if p.requires_grad and p.ndim >= 2] if training.l1 else []

    def run(self, report: Callable[[Epoch], None]) -> list[Epoch]:
        """Train to the end; every epoch's figures, also of those that an earlier run finished."""
        found = self.checkpoint.load(self.accelerator.unwrap_model(self.module), self.optimizer, self.accelerator.scaler)
        state = _State(**(found or {}))
        one_batch = self._tensors(self.train_split, slice(0, self.training.batch_size))[0]
        with fitting_threads(self.module, one_batch), Progress(self.steps, state.step) as progress:
            while state.epoch < self.training.epochs and not self._stopped(state):
                self._train_epoch(state, progress)
                epoch = self._finish_epoch(state)
                last = state.epoch == self.training.epochs or self._stopped(state)
                progress.epoch(epoch.epoch, self.training.epochs, {"train loss": epoch.train_loss, **_headline(epoch)}, last=last)
                report(epoch)
        return [Epoch.parse(epoch) for epoch in state.history]

    def _train_epoch(self, state: _State, progress: Progress) -> None:
        self.module.train()
        for rows in batches(len(self.train_split), self.training, state.epoch)[state.batch :]:
            self._set_learning_rate(state.step)
            state.loss_sum += self._step(rows) * len(rows)
            state.step, state.batch = state.step + 1, state.batch + 1
            progress.step()
            if state.step % self.training.checkpoint_steps == 0:
                self._save(state)

    def _step(self, rows: npt.NDArray[np.int64]) -> float:
        """One optimizer step on one batch, taken through the module in parts of the recipe's batch size; the batch's mean loss."""
        size, value = self.training.batch_size, 0.0
        # The whole batch's weight, so that the parts' gradients add up to exactly those of the batch at once.
        weight = len(rows) if self.class_weights is None else float(self.class_weights[self.train_split.targets[rows]].sum())
        for start in range(0, len(rows), size):
            loss = self._loss(rows[start : start + size]) / weight
            self.accelerator.backward(loss)
            value += float(loss.detach())
        if not np.isfinite(value):
            raise MaasflowError(f"the training loss became {value}", _DIVERGED)
        if self.penalised:
            self.accelerator.backward(self.training.l1 * torch.stack([p.abs().sum() for p in self.penalised]).sum())
        if self.training.clip_norm:
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.training.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return value

    def _loss(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """The summed, weighted loss of some rows."""
        inputs, targets = self._tensors(self.train_split, rows)
        with self.accelerator.autocast():
            logits = self.module(**inputs)
        return functional.cross_entropy(
            logits.float(), targets, self.class_weights, reduction="sum", label_smoothing=self.training.label_smoothing
        )

    def _finish_epoch(self, state: _State) -> Epoch:
        """Measure on the validation split, keep the weights if they are the best yet, and save the checkpoint."""
        logits = self.logits(self.validation_split)
        if lost := unanswered(logits):
            raise MaasflowError(f"after epoch {state.epoch + 1} the model has no finite answer for {len(lost)} validation rows", _DIVERGED)
        validation = score(probabilities(logits), self.validation_split.targets)
        epoch = Epoch(
            epoch=state.epoch + 1,
            step=state.step,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            train_loss=state.loss_sum / len(self.train_split),
            validation=validation,
            finished=time.time(),
        )
        kept = validation[self.training.keep_best]
        if state.best is None or _better(self.training.keep_best, kept, state.best):
            state.best = kept
            save_weights(self.folder / WEIGHTS, self.accelerator.unwrap_model(self.module).state_dict())
        if self.training.early_stopping:
            metric = self.training.early_stopping.metric
            improved = state.stopping_best is None or _better(metric, validation[metric], state.stopping_best)
            state.stopping_best = validation[metric] if improved else state.stopping_best
            state.stale = 0 if improved else state.stale + 1
        state.history.append(epoch.model_dump())
        state.epoch, state.batch, state.loss_sum = state.epoch + 1, 0, 0.0
        self._save(state)
        return epoch

    def logits(self, split: EncodedSplit) -> npt.NDArray[np.float32]:
        """float32 [rows, classes] of the module as it is now."""
        self.module.eval()
        with torch.inference_mode(), self.accelerator.autocast():
            found = [self.module(**self._tensors(split, rows)[0]).float().cpu().numpy() for rows in _slices(len(split), self.training)]
        return np.concatenate(found)

    def _tensors(self, split: EncodedSplit, rows: Any) -> tuple[dict[str, Tensor], Tensor]:
        device = self.accelerator.device
        inputs = {name: torch.from_numpy(array).to(device) for name, array in split.tensors(rows).items()}
        return inputs, torch.from_numpy(split.targets[rows]).to(device)

    def _set_learning_rate(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.learning_rate * self.factor(step)

    def _class_weights(self) -> Tensor | None:
        """Inverse class frequency, of mean 1 over the rows, where the recipe balances classes."""
        if self.training.class_weights == "none":
            return None
        counts = np.bincount(self.train_split.targets).astype(np.float64)
        return torch.tensor(counts.sum() / (len(counts) * counts), dtype=torch.float32, device=self.accelerator.device)

    def _stopped(self, state: _State) -> bool:
        return self.training.early_stopping is not None and state.stale >= self.training.early_stopping.patience

    def _save(self, state: _State) -> None:
        self.checkpoint.save(self.accelerator.unwrap_model(self.module), self.optimizer, vars(state), self.accelerator.scaler)


def _slices(rows: int, training: Training) -> Iterator[slice]:
    size = max(training.batch_size, 256)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _better(metric: str, new: float, old: float) -> bool:
    return new < old if metric in LOWER_IS_BETTER else new > old


def _headline(epoch: Epoch) -> dict[str, float]:
    return {f"validation {name.replace('_', ' ')}": epoch.validation[name] for name in ("log_loss", "accuracy")}
