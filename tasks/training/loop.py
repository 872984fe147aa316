"""The training loop, over Hugging Face accelerate."""

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from tasks.core.config import Config
from tasks.core.errors import MaasflowError
from tasks.core.recipe import LOWER_IS_BETTER, METRICS, Metric, Training
from tasks.models import HEAD
from tasks.training.checkpoint import Checkpoint, save_weights
from tasks.training.device import fitting_threads
from tasks.training.objective import Objective
from tasks.training.optimizer import learning_rate_factor, make_optimizer
from tasks.training.progress import Progress

WEIGHTS = "model.safetensors"

_DIVERGED = "lower training.learning_rate, set training.clip_norm to 1, or look for extreme values in the data"
_STEPS_AHEAD = 20
"""How far the processor may run ahead of a GPU: meanwhile it has the next batches ready."""
_log = logging.getLogger("maasflow.train")


class Epoch(Config):
    """What one epoch ended with."""

    epoch: int
    step: int
    learning_rate: float
    train_loss: float
    validation: dict[str, float]
    finished: float
    """Unix time in seconds."""

    @property
    def headline(self) -> dict[str, float]:
        """The two validation metrics that matter most."""
        names = ("log_loss", "accuracy") if "accuracy" in self.validation else METRICS["language_modelling"][:2]
        return {f"validation {name.replace('_', ' ')}": self.validation[name] for name in names}


@dataclass
class _State:
    """Where the loop stands; all of it goes into the checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches of this epoch already done, each of which was one step."""
    loss_sum: float = 0.0
    """Of this epoch's batches, each batch's mean loss times its size."""
    seen: int = 0
    """Places in this epoch's batches."""
    best: float | None = None
    stale: int = 0
    """Epochs since the early-stopping metric last improved."""
    stopping_best: float | None = None
    part: int = 0
    """How many places go through the module at once; fewer than the recipe says where memory was short."""
    history: list[dict[str, Any]] = field(default_factory=list)


class Loop:
    """Trains a module by an objective and keeps the weights of its best epoch.

    `folder` receives `checkpoint.safetensors` and WEIGHTS; a loop that finds a checkpoint there goes on from it
    and ends with the same weights as one that was never broken off. In several processes (torchrun, accelerate launch)
    each takes its share of every batch, so that the steps are those of one process.
    """

    def __init__(self, module: nn.Module, training: Training, objective: Objective[Any], accelerator: Accelerator, folder: Path) -> None:
        self.training, self.objective, self.accelerator, self.folder = training, objective, accelerator, folder
        self.plain = module
        optimizer = make_optimizer(module, training)
        self.module, self.optimizer = accelerator.prepare(torch.compile(module, dynamic=True) if training.compile else module, optimizer)
        self.checkpoint = Checkpoint(folder / "checkpoint.safetensors")
        self.steps = objective.steps * training.epochs
        self.factor = learning_rate_factor(training, self.steps)
        self.penalised = [p for p in module.parameters() if p.requires_grad and p.ndim >= 2] if training.l1 else []

    def run(self, report: Callable[[Epoch], None]) -> list[Epoch]:
        """Train to the end; every epoch's figures, also of those that an earlier run finished."""
        state = self._resumed()
        first = self.objective.batches(0)[0]
        one_batch = self.objective.inputs(first, np.arange(min(state.part, self.objective.size(first))))
        with fitting_threads(self.plain, one_batch), Progress(self.steps, state.step) as progress:
            while state.epoch < self.training.epochs and not self._stopped(state):
                self._train_epoch(state, progress)
                epoch = self._finish_epoch(state)
                last = state.epoch == self.training.epochs or self._stopped(state)
                progress.epoch(epoch.epoch, self.training.epochs, {"train loss": epoch.train_loss, **epoch.headline}, last=last)
                report(epoch)
        self.part = state.part
        return [Epoch.parse(epoch) for epoch in state.history]

    def _resumed(self) -> _State:
        found = self.checkpoint.load(self.plain, self.optimizer, self.accelerator.scaler)
        state = _State(**(found[0] if found else {"part": self.training.batch_size}))
        if found:
            self.objective.carry(found[1])
        if self.accelerator.process_index:
            # Random numbers of its own, as it sees rows of its own.
            torch.manual_seed(hash((self.training.seed, self.accelerator.process_index, state.step)) % 2**63)
        return state

    def _train_epoch(self, state: _State, progress: Progress) -> None:
        self._train_mode()
        losses: list[tuple[Tensor, int]] = []
        for batch in self.objective.batches(state.epoch)[state.batch :]:
            for group in self.optimizer.param_groups:
                group["lr"] = self.training.learning_rate * self.factor(state.step)
            size = self.objective.size(batch)
            losses.append((self._fitting_step(batch, state), size))
            if self.accelerator.device.type == "cpu" or len(losses) == _STEPS_AHEAD:
                self._settle(losses, state)
            state.step, state.batch = state.step + 1, state.batch + 1
            self.objective.step_done()
            progress.step()
            if state.step % self.training.checkpoint_steps == 0:
                self._settle(losses, state)
                self._save(state)
        self._settle(losses, state)

    def _settle(self, losses: list[tuple[Tensor, int]], state: _State) -> None:
        """Wait for the losses of the last steps, and add them up. Raises MaasflowError where one is not finite."""
        for loss, size in losses:
            value = float(loss)
            if not np.isfinite(value):
                raise MaasflowError(f"the training loss became {value}", _DIVERGED)
            state.loss_sum += value * size
            state.seen += size
        losses.clear()

    def _fitting_step(self, batch: Any, state: _State) -> Tensor:
        """One optimizer step; where memory does not suffice, again in parts of half the size, from then on."""
        while True:
            try:
                return self._step(batch, state.part)
            except Exception as error:
                if not should_reduce_batch_size(error):
                    raise
                if state.part == 1 or self.accelerator.num_processes > 1:
                    raise MaasflowError(
                        f"the device's memory does not suffice for batches of {state.part}",
                        "lower training.batch_size and raise training.accumulation, set training.gradient_checkpointing, or use a smaller model",
                    ) from error
            self.optimizer.zero_grad()
            clear_device_cache(garbage_collection=True)
            state.part = -(-state.part // 2)
            _log.warning("out of memory: batches now go through the model in parts of %d, whose gradients are summed", state.part)

    def _step(self, batch: Any, size: int) -> Tensor:
        """One optimizer step on one batch, taken through the module in parts of at most `size`; the batch's mean loss."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        places = np.arange(self.objective.size(batch))[rank::processes]
        # The whole batch's weight, so that the parts' gradients add up to exactly those of the batch at once. Gradients are
        # averaged over processes; a process without a place takes one for nothing, as all must meet.
        weight = self.objective.weight(batch) / (processes if len(places) else 0 or np.inf)
        places = places if len(places) else np.zeros(1, np.int64)
        value = torch.zeros((), device=self.accelerator.device)
        for start in range(0, len(places), size):
            last = start + size >= len(places)
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                for number, summand in enumerate(self.objective.losses(self.module, batch, places[start : start + size])):
                    loss = summand / weight
                    value += loss.detach()
                    if last and number == 0 and self.penalised:
                        loss = loss + self.training.l1 * torch.stack([p.abs().sum() for p in self.penalised]).sum()
                    self.accelerator.backward(loss)
        found: Tensor = self.accelerator.reduce(value, "mean")
        if self.training.clip_norm:
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.training.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return found

    def _finish_epoch(self, state: _State) -> Epoch:
        """Measure on the validation split, keep the weights if they are the best yet, and save the checkpoint."""
        try:
            validation = self.objective.validate(self.module)
        except MaasflowError as error:
            raise MaasflowError(f"after epoch {state.epoch + 1}: {error.what}", _DIVERGED) from None
        epoch = Epoch(
            epoch=state.epoch + 1,
            step=state.step,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            train_loss=state.loss_sum / state.seen,
            validation=validation,
            finished=time.time(),
        )
        kept = validation[self.training.keep_best]
        if state.best is None or _better(self.training.keep_best, kept, state.best):
            state.best = kept
            if self.accelerator.is_main_process:
                save_weights(self.folder / WEIGHTS, self.plain.state_dict())
        if self.training.early_stopping:
            metric = self.training.early_stopping.metric
            improved = state.stopping_best is None or _better(metric, validation[metric], state.stopping_best)
            state.stopping_best = validation[metric] if improved else state.stopping_best
            state.stale = 0 if improved else state.stale + 1
        state.history.append(epoch.model_dump())
        state.epoch, state.batch, state.loss_sum, state.seen = state.epoch + 1, 0, 0.0, 0
        self.objective.carry({})
        self._save(state)
        return epoch

    def _train_mode(self) -> None:
        self.module.train()
        if self.training.freeze_backbone:
            # Its norms keep their statistics, and nothing in it is dropped.
            self.plain.eval()
            self.plain.get_submodule(HEAD.rstrip(".")).train()

    def _stopped(self, state: _State) -> bool:
        return self.training.early_stopping is not None and state.stale >= self.training.early_stopping.patience

    def _save(self, state: _State) -> None:
        if self.accelerator.is_main_process:
            self.checkpoint.save(self.plain, self.optimizer, vars(state), self.accelerator.scaler, self.objective.carried())


def _better(metric: Metric, new: float, old: float) -> bool:
    return new < old if metric in LOWER_IS_BETTER else new > old
