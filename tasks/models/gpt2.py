"""GPT-2 as a classifier: it reads a text left to right and answers at its last token."""

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import GPT2Config

from tasks.core.transforms import TensorSpec
from tasks.models import Attention, Family, text_inputs
from tasks.transformer import new_module, pretrained_config, pretrained_module, require_division, require_fit
from tasks.units import Layers, Slice, Units

_GELU = "gelu_pytorch_tanh"
"""GPT-2's own activation, as one operation instead of eight."""


class GPT2(Family):
    """A causal transformer (Radford et al., 2019); its features at the last token that is not padding give one logit for each class."""

    layered: ClassVar[bool] = True

    pretrained: str | None = None
    """A folder, an installed package, or an id of the hub, as openai-community/gpt2. Without it, sizes and weights are new."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of embeddings and of what each layer adds, and before the head. Attention is not dropped: its fused kernels cannot."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """Width, where it is not pretrained."""
    layers: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 4

    def build(self, inputs: tuple[TensorSpec, ...], outputs: int) -> nn.Module:
        if not text_inputs(inputs):
            raise self._refuse(inputs, "gpt2", "a text")
        return _GPT2(self._transformer(inputs[0]), self.dropout, outputs)

    def attention(self, module: nn.Module) -> Attention:
        assert isinstance(module, _GPT2)
        config: Any = module.transformer.config
        return Attention("gpt2", len(module.transformer.h), config.n_head, config.n_embd)

    def units(self, module: nn.Module) -> tuple[Units | Layers, ...]:
        assert isinstance(module, _GPT2)
        config: Any = module.transformer.config
        neurons = [_neurons(f"transformer.h.{number}", config.n_inner or 4 * config.n_embd) for number in range(config.n_layer)]
        return (*neurons, Layers("transformer.h", config.n_layer, ("attn.c_proj.weight", "mlp.c_proj.weight")))

    def token_embedding(self, module: nn.Module) -> nn.Module:
        assert isinstance(module, _GPT2)
        found: nn.Module = module.transformer.get_input_embeddings()
        return found

    def _transformer(self, ids: TensorSpec) -> Any:
        if self.pretrained:
            changes = {"resid_pdrop": self.dropout, "embd_pdrop": self.dropout, "attn_pdrop": 0.0, "use_cache": False}
            config = pretrained_config(self, self.pretrained, ("gpt2",), ("hidden", "layers", "heads"), **changes)
            if config.activation_function == "gelu_new":
                config.activation_function = _GELU
            require_fit(self, ids, config.vocab_size, config.n_positions)
            return pretrained_module(self, self.pretrained, config)
        require_division(self, self.hidden, self.heads)
        assert ids.vocabulary
        assert ids.longest
        return new_module(
            GPT2Config(
                vocab_size=ids.vocabulary,
                n_positions=ids.longest,
                n_embd=self.hidden,
                n_layer=self.layers,
                n_head=self.heads,
                resid_pdrop=self.dropout,
                embd_pdrop=self.dropout,
                attn_pdrop=0.0,
                activation_function=_GELU,
                use_cache=False,
                bos_token_id=None,
                eos_token_id=None,
            )
        )


def _neurons(layer: str, count: int) -> Units:
    """The neurons of a layer's feed-forward net. Its weights have their inputs first."""
    output = Slice(f"{layer}.mlp.c_proj.weight", 0)
    inputs = (Slice(f"{layer}.mlp.c_fc.weight", 1), Slice(f"{layer}.mlp.c_fc.bias", 0))
    return Units(layer, "neurons", count, (*inputs, output), (output,), ((f"{layer}.mlp.c_fc", "nf", 1),))


class _GPT2(nn.Module):
    def __init__(self, transformer: Any, dropout: float, outputs: int) -> None:
        super().__init__()
        self.transformer = transformer
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(transformer.config.n_embd, outputs)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        # Padding follows the text, so a causal model never sees it from within, and needs no mask.
        features: Tensor = self._traced(input_ids) if _is_tracing() else self.transformer(input_ids=input_ids).last_hidden_state
        last = attention_mask.sum(1).clamp(min=1) - 1
        at_last = torch.gather(features, 1, last.view(-1, 1, 1).expand(-1, 1, features.shape[2]))[:, 0]
        logits: Tensor = self.head(self.dropout(at_last))
        return logits

    def _traced(self, ids: Tensor) -> Tensor:
        """The transformer written out in the form in which ONNX Runtime's optimizer knows GPT-2, which is not that of transformers 5."""
        model: Any = self.transformer
        length: Any = _sizes(ids)[1]
        features: Tensor = model.wte(ids) + model.wpe(torch.arange(length).unsqueeze(0))
        for block in model.h:
            features = features + _attend(block.attn, block.ln_1(features))
            features = features + block.mlp(block.ln_2(features))
        normal: Tensor = model.ln_f(features)
        return normal


def _is_tracing() -> bool:
    jit: Any = torch.jit
    return bool(jit.is_tracing())


def _sizes(tensor: Tensor) -> list[Tensor]:
    """The sizes of a traced tensor, each sliced from its shape."""
    shape = torch._shape_as_tensor(tensor)  # noqa: SLF001 - what torch's own exporter traces
    return [shape[place : place + 1].squeeze(0) for place in range(tensor.ndim)]


def _attend(attention: Any, features: Tensor) -> Tensor:
    """Causal self-attention; q, k and v are [batch, heads, length, features of a head], weights [batch, heads, length, length]."""
    shape = (features.shape[0], features.shape[1], attention.num_heads, attention.head_dim)
    q, k, v = (part.view(shape).transpose(1, 2) for part in attention.c_attn(features).split(attention.split_size, dim=2))
    weights = torch.matmul(q, k.transpose(-1, -2)) / torch.tensor(attention.head_dim**0.5)
    _, _, queries, keys = _sizes(weights)
    past = torch.tril(torch.ones(1, 1, *[attention.config.n_positions] * 2, dtype=torch.bool))[:, :, keys - queries : keys, :keys]
    weights = torch.softmax(torch.where(past, weights, torch.tensor(-10000.0)), dim=-1)
    merged = torch.matmul(weights, v).transpose(1, 2).contiguous().view(shape[0], shape[1], -1)
    projected: Tensor = attention.c_proj(merged)
    return projected
