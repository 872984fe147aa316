"""What a training minimises, and by what it is judged."""

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

BatchT = TypeVar("BatchT")


class Objective(Protocol[BatchT]):
    """The loop takes a batch through the module in parts: `places` are numbers from 0 to `size(batch)`."""

    @property
    def steps(self) -> int:
        """Optimizer steps in one epoch."""
        ...

    def batches(self, epoch: int) -> list[BatchT]:
        """One batch for each step of an epoch, decided by the seed and the epoch alone."""
        ...

    def spread(self, rows: int, size: int) -> list[BatchT]:
        """Batches of at most `size` places, evenly spread over the training split: `rows` of them together, or all there are."""
        ...

    def size(self, batch: BatchT) -> int:
        """How many places there are in a batch."""
        ...

    def weight(self, batch: BatchT) -> float:
        """What the whole batch's summed loss is divided by."""
        ...

    def inputs(self, batch: BatchT, places: Any) -> dict[str, Tensor]:
        """What the module is called with for some places."""
        ...

    def losses(self, module: nn.Module, batch: BatchT, places: Any) -> Iterator[Tensor]:
        """The summed loss of some places, in summands: each is taken back through the module before the next is asked for."""
        ...

    def step_done(self) -> None:
        """All places of a batch went through and the weights were changed."""
        ...

    def carried(self) -> dict[str, Tensor]:
        """What the rest of the epoch depends on beside the weights, for the checkpoint."""
        ...

    def carry(self, tensors: dict[str, Tensor], /) -> None:
        """Go on from what a checkpoint holds; nothing at the beginning of an epoch."""
        ...

    def validate(self, module: nn.Module) -> dict[str, float]:
        """The metrics of the module as it is now on the validation split. Raises MaasflowError where an answer is not finite."""
        ...
