"""Checkpoints: everything that the rest of a training run depends on, in one safetensors file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

_MODEL, _OPTIMIZER, _RANDOM, _CARRIED = "model.", "optimizer.", "random.", "carried."


@dataclass(frozen=True)
class Checkpoint:
    """A model, its optimizer, torch's random states and fp16's gradient scale, with the loop's own state as plain values.

    Order of data and learning rate follow from the recipe's seed and the step, which the loop's state holds.
    """

    path: Path

    def save(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: dict[str, Any],
        scaler: GradScaler | None = None,
        carried: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Replace the checkpoint; killed meanwhile, the old one stays. `carried` is what the objective goes on from."""
        tensors = {_MODEL + name: tensor for name, tensor in module.state_dict().items()}
        tensors |= {_CARRIED + name: tensor for name, tensor in (carried or {}).items()}
        optimizer_state = optimizer.state_dict()
        plain: dict[str, dict[str, Any]] = {}
        for index, entries in optimizer_state["state"].items():
            for name, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"{_OPTIMIZER}{index}.{name}"] = value
                else:
                    plain.setdefault(str(index), {})[name] = value
        tensors |= {_RANDOM + name: random for name, random in _random_states(module).items()}
        record = {"state": state, "groups": optimizer_state["param_groups"], "plain": plain, "scaler": scaler and scaler.state_dict()}
        save_weights(self.path, tensors, {"record": json.dumps(record)})

    def load(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, scaler: GradScaler | None = None
    ) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Restore all of it; the loop's state and what was carried. None where there is no checkpoint that can be read."""
        try:
            with safe_open(self.path, "pt") as file:
                record = json.loads(file.metadata()["record"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
            return None
        module.load_state_dict(_below(_MODEL, tensors))
        entries: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in record["plain"].items()}
        for name, tensor in _below(_OPTIMIZER, tensors).items():
            index, _, key = name.partition(".")
            entries.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": entries, "param_groups": record["groups"]})
        if scaler is not None and record["scaler"]:
            scaler.load_state_dict(record["scaler"])
        random = _below(_RANDOM, tensors)
        torch.set_rng_state(random["cpu"])
        # A run that began on another kind of device goes on here, on other random numbers.
        if "cuda" in random and (device := _cuda(module)) is not None:
            torch.cuda.set_rng_state(random["cuda"], device)
        return record["state"], _below(_CARRIED, tensors)


def save_weights(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all."""
    partial = path.with_suffix(".partial")
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, partial, metadata)
    partial.replace(path)


def _random_states(module: nn.Module) -> dict[str, Tensor]:
    device = _cuda(module)
    return {"cpu": torch.get_rng_state()} | ({} if device is None else {"cuda": torch.cuda.get_rng_state(device)})


def _cuda(module: nn.Module) -> torch.device | None:
    """The CUDA device that the module is on. Asking the others would take memory on each."""
    device = next(module.parameters()).device
    return device if device.type == "cuda" else None


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
