"""Model families: each owns its options and builds a torch module from them."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from tasks.core.catalog import Catalog
from tasks.core.config import Config
from tasks.core.dataset import Task
from tasks.core.errors import ConfigError
from tasks.core.transforms import TensorSpec

if TYPE_CHECKING:
    from torch import nn

    from tasks.units import Layers, Units

HEAD: Final = "head."
"""What the names of the parameters begin with that turn a module's features into its outputs."""


@dataclass(frozen=True)
class Attention:
    """What ONNX Runtime's transformer optimizer must be told to fuse a module's attention."""

    kind: Literal["bert", "gpt2"]
    layers: int
    heads: int
    hidden: int


class Family(Config):
    """Options of one family of models, and how to build it."""

    task: ClassVar[Task] = "classification"
    layered: ClassVar[bool] = False
    """Whether whole layers are among its `units`."""

    @abstractmethod
    def build(self, inputs: tuple[TensorSpec, ...], outputs: int) -> "nn.Module":
        """A module that takes the inputs by name and returns logits: float32 [batch, outputs], one for each class.

        A language model's returns float32 [batch, length, outputs], one for each entry of the vocabulary, followed by the
        next `state`. Each input has the shape [batch, *spec.shape]. Weights come from torch's random state unless they are
        pretrained. Raises ConfigError where the family does not take such inputs.
        """

    @property
    def state(self) -> tuple[TensorSpec, ...]:
        """What a language model carries from one call to the next, beside its inputs."""
        return ()

    def attention(self, module: "nn.Module") -> Attention | None:  # noqa: ARG002 - most families have none
        """What there is to fuse in the exported module."""
        return None

    def token_embedding(self, module: "nn.Module") -> "nn.Module | None":  # noqa: ARG002 - most families have none
        """What turns token ids [batch, length] into embeddings [batch, length, width] in the module."""
        return None

    def units(self, module: "nn.Module") -> "tuple[Units | Layers, ...]":  # noqa: ARG002 - not all have some
        """What may be left out of the module to make it smaller. Whatever was, a language model's takes and gives the whole `state`."""
        return ()

    def _refuse(self, inputs: tuple[TensorSpec, ...], family: str, wanted: str) -> ConfigError:
        found = ", ".join(f"{spec.name} ({spec.dtype})" for spec in inputs)
        return self.origin.error((), f"the family '{family}' takes {wanted}, the dataset's transform gives {found}")


def text_inputs(inputs: tuple[TensorSpec, ...]) -> bool:
    """Whether these are token ids with their mask."""
    return [spec.name for spec in inputs] == ["input_ids", "attention_mask"]


MODELS: Catalog[Family] = Catalog(
    "model family",
    {
        "mlp": "tasks.models.mlp:MLP",
        "text_pool": "tasks.models.text_pool:TextPool",
        "bert": "tasks.models.bert:Bert",
        "gpt2": "tasks.models.gpt2:GPT2",
        "lstm_lm": "tasks.models.lstm_lm:LSTMLanguageModel",
        "resnet": "tasks.models.resnet:ResNet",
    },
    key="family",
)


def build_family(model: dict[str, Any], task: Task, origin: Any = None) -> Family:
    """The recipe's family, for datasets of that task. Raises ConfigError."""
    family = MODELS.build(model, origin)
    if family.task != task:
        fitting = [name for name in MODELS if MODELS.load(name).task == task]
        raise family.origin.error(
            (MODELS.key,),
            f"'{model[MODELS.key]}' is for {family.task.replace('_', ' ')}, the dataset is for {task.replace('_', ' ')}",
            f"families for it: {', '.join(fitting)}",
        )
    return family
