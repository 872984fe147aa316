"""Where training runs, and in which precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tasks.core.errors import MaasflowError
from tasks.core.machine import this_machine
from tasks.core.recipe import Training

_FLOPS_A_THREAD = 50_000_000
"""Of a batch's forward pass; where a second thread began to pay for dense nets on two cores."""

_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_MULTIPLIES_BF16 = ("avx512_bf16", "amx_bf16")


def chosen_precision(training: Training, *, on_cpu: bool) -> str:
    """The recipe's precision; for auto, bf16 where it is what the processor or the GPU multiplies in, and fp32 elsewhere.

    By what the hardware can do and not by a timing, so that the same machine trains the same weights.
    """
    if training.precision != "auto":
        return training.precision
    if on_cpu:
        return "bf16" if set(_MULTIPLIES_BF16) & set(this_machine().instructions) else "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def accelerator(training: Training) -> Accelerator:
    """An accelerator for the recipe's device and precision.

    Raises MaasflowError where the device that the recipe asks for is not there, or cannot do the precision.
    """
    if training.device == "cuda" and not torch.cuda.is_available():
        raise MaasflowError("training.device is 'cuda', but torch sees no CUDA device", "set training.device to auto or cpu")
    on_cpu = training.device == "cpu" or not torch.cuda.is_available()
    if training.precision == "fp16" and on_cpu:
        raise MaasflowError("training.precision is 'fp16', which needs a CUDA device", "set training.precision to bf16 or fp32")
    # accelerate keeps its settings for the whole process; a second training in it must not inherit them.
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - accelerate's own tests do the same, there is no public way
    GradientState._reset_state()  # noqa: SLF001
    return Accelerator(cpu=on_cpu, mixed_precision=_MIXED[chosen_precision(training, on_cpu=on_cpu)])


@contextmanager
def fitting_threads(module: nn.Module, inputs: dict[str, Tensor]) -> Iterator[None]:
    """For the block, let torch use as many threads on the CPU as one batch has work for.

    Threads that meet after each small operation gain nothing, and where another process wants a core they wait for it at
    every meeting: a step of a small dense net was seen to take 18 times as long. The number follows from the operations in
    one batch and not from a timing, so that the same recipe sums in the same order each time.
    """
    if next(iter(inputs.values())).device.type != "cpu":
        # It would compute a batch for nothing, whose memory may not suffice.
        yield
        return
    before = torch.get_num_threads()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(**inputs)
    torch.set_num_threads(max(1, min(before, counter.get_total_flops() // _FLOPS_A_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
