"""Where training runs, and in which precision."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from tasks.core.errors import MaasflowError
from tasks.core.recipe import Training

_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


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
    return Accelerator(cpu=on_cpu, mixed_precision=_MIXED[training.precision])
