"""Model families: each owns its options and builds a torch module from them."""

from abc import abstractmethod
from typing import TYPE_CHECKING

from tasks.core.catalog import Catalog
from tasks.core.config import Config
from tasks.core.transforms import TensorSpec

if TYPE_CHECKING:
    from torch import nn


class Family(Config):
    """Options of one family of models, and how to build it."""

    @abstractmethod
    def build(self, inputs: tuple[TensorSpec, ...], classes: int) -> "nn.Module":
        """A module, newly initialised from torch's random state, that takes the inputs by name and returns logits.

        Each input has the shape [batch, *spec.shape]; the logits are float32 [batch, classes].
        Raises ConfigError where the family does not take such inputs.
        """


MODELS: Catalog[Family] = Catalog("model family", {"mlp": "tasks.models.mlp:MLP"}, key="family")
