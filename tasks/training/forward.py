"""A torch module called with arrays."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from tasks.core.language import Run, next_name
from tasks.core.transforms import Tensors, TensorSpec


def run_module(
    module: nn.Module,
    state: tuple[TensorSpec, ...] = (),
    device: torch.device | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Run:
    """The module as a function of its inputs, in evaluation mode: "logits", and the next value of each state."""
    names = ["logits", *(next_name(spec.name) for spec in state)]

    def run(inputs: Tensors) -> Tensors:
        with torch.inference_mode(), autocast():
            found = module(**as_tensors(inputs, device))
        outputs = found if isinstance(found, tuple) else (found,)
        return {name: output.float().cpu().numpy() for name, output in zip(names, outputs, strict=True)}

    module.eval()
    return run


def as_tensors(inputs: Tensors, device: torch.device | None = None) -> dict[str, Tensor]:
    """Arrays on the device; from pinned memory where that is a GPU, so that the copy overlaps with what it computes."""
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    if device is None or device.type == "cpu":
        return tensors
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors.items()}
