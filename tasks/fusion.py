"""Fusing attention: ONNX Runtime's transformer optimizer on an exported model."""

from collections import Counter
from pathlib import Path
from typing import Any, Final

from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

from tasks.core.errors import MaasflowError
from tasks.models import Attention

_FUSED: Final = ("Attention", "MultiHeadAttention", "SkipLayerNormalization", "EmbedLayerNormalization", "BiasGelu", "FastGelu", "Gelu")


def fuse_attention(path: Path, attention: Attention) -> dict[str, int]:
    """Replace the model in the file by one with fused nodes; how many there are of each kind.

    Raises MaasflowError unless every layer's attention was fused: the pattern is the library's, and a new version of torch
    or transformers may write another, which would only show as a slower model.
    """
    options = FusionOptions(attention.kind)
    model = optimize_model(
        str(path), attention.kind, num_heads=attention.heads, hidden_size=attention.hidden, optimization_options=options, opt_level=0
    )
    counts: Counter[str] = Counter(node.op_type for node in model.model.graph.node)
    if counts["Attention"] + counts["MultiHeadAttention"] != attention.layers:
        raise MaasflowError(
            f"ONNX Runtime fused the attention of {counts['Attention']} of {attention.layers} layers",
            "this is a defect of maasflow with these versions of torch, transformers and onnxruntime: please report it",
        )
    _count_heads(model, attention.hidden // attention.heads)
    model.save_model_to_file(str(path))
    return {name: counts[name] for name in _FUSED if counts[name]}


def _count_heads(model: Any, size: int) -> None:
    """Tell each attention node how many heads of a size it has: the optimizer gives all what it was told, and a pruned layer has fewer."""
    for node in model.get_nodes_by_op_type("Attention"):
        weight = model.get_initializer(node.input[1])
        for attribute in node.attribute:
            if attribute.name == "num_heads":
                attribute.i = weight.dims[1] // (3 * size)
