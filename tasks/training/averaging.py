"""Weights averaged over the last steps, which answer better than those of any one step (Polyak and Juditsky, 1992)."""

from collections.abc import Sequence
from typing import Final

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_SLOWEST: Final = 0.995
"""What the average keeps of itself at a step, once there were many."""


def averaged(module: nn.Module) -> AveragedModel:
    """A copy whose `update_parameters(module)`, called after each step, moves it towards the module: it looks back over the last ninth
    of the steps, but no further than two hundred.
    """
    return AveragedModel(module, multi_avg_fn=_move, use_buffers=True)


def _move(average: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
    kept = min(_SLOWEST, (1 + int(steps)) / (10 + int(steps)))
    for one, other in zip(average, current, strict=True):
        if one.is_floating_point():
            one.lerp_(other, 1 - kept)
        else:
            one.copy_(other)
