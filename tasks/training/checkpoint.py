"""Checkpoints: everything that the rest of a training run depends on, in one safetensors file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

_MODEL, _OPTIMIZER, _RANDOM = "model.", "optimizer.", "random."


@dataclass(frozen=True)
class Checkpoint:
    """A model, its optimizer and torch's random states, with the loop's own state as plain values.

    Order of data and learning rate follow from the recipe's seed and the step, which the loop's state holds.
    """

    path: Path

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Replace the checkpoint; killed meanwhile, the old one stays."""
        tensors = {_MODEL + name: tensor for name, tensor in module.state_dict().items()}
        optimizer_state = optimizer.state_dict()
        plain: dict[str, dict[str, Any]] = {}
        for index, entries in optimizer_state["state"].items():
            for name, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"{_OPTIMIZER}{index}.{name}"] = value
                else:
                    plain.setdefault(str(index), {})[name] = value
        for device, random in enumerate(_random_states()):
            tensors[f"{_RANDOM}{device}"] = random
        record = {"state": state, "groups": optimizer_state["param_groups"], "plain": plain}
        save_weights(self.path, tensors, {"record": json.dumps(record)})

    def load(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Restore all three and return the loop's state; None where there is no checkpoint that can be read."""
        try:
            with safe_open(self.path, "pt") as file:
                record = json.loads(file.metadata()["record"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (FileNotFoundError, SafetensorError, KeyError, ValueError):
            return None
        module.load_state_dict(_below(_MODEL, tensors))
        entries: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in record["plain"].items()}
        for name, tensor in _below(_OPTIMIZER, tensors).items():
            index, _, key = name.partition(".")
            entries.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": entries, "param_groups": record["groups"]})
        random = _below(_RANDOM, tensors)
        torch.set_rng_state(random["0"])
        for device in range(1, len(random)):
            torch.cuda.set_rng_state(random[str(device)], device - 1)
        state: dict[str, Any] = record["state"]
        return state


def save_weights(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all."""
    partial = path.with_suffix(".partial")
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, partial, metadata)
    partial.replace(path)


def _random_states() -> list[Tensor]:
    devices = range(torch.cuda.device_count())
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
