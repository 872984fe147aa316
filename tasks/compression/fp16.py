"""Half precision: in the computation on a CUDA device, or in the file alone.

There is no bf16 beside it: ONNX Runtime has no tool that converts a model to it, and on CUDA no such kernels for an LSTM or for fused
embeddings (1.31).
"""

from math import prod
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from onnx import NodeProto, TensorProto, helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from pydantic import Field

from tasks.compression import Compressor, Subject, weights_beside
from tasks.core.machine import cuda_device
from tasks.graphs import Graph

_EXACT: Final = (
    "EmbedLayerNormalization",
    "LayerNormalization",
    "SkipLayerNormalization",
    "Softmax",
    "LogSoftmax",
    "ReduceMean",
    "ReduceSum",
    "ReduceSumSquare",
    "Pow",
    "Exp",
    "Reciprocal",
)
"""Sums over many numbers and powers, which half precision loses or overflows in."""
_LARGEST: Final = float(np.finfo(np.float16).max)


class Fp16(Compressor):
    """fp16 for CUDA; or, with `storage`, for the file alone."""

    storage: bool = False
    """Only keep weights in fp16, and make them fp32 again when a session starts: half the bytes, on any processor, and
    as fast as fp32."""
    exact: tuple[str, ...] = _EXACT
    """Kinds of nodes that stay in fp32."""
    smallest: Annotated[int, Field(ge=1)] = 32
    """Elements of a tensor from which `storage` keeps it in fp16: below, the node for it takes more bytes than are saved."""

    def unfit(self, subject: Subject) -> str | None:
        if self.storage or subject.on_cuda:
            return None
        return "serving.device is 'cpu', which computes in fp32" if cuda_device() else "there is no CUDA device"

    def compress(self, source: Path, target: Path, subject: Subject) -> None:  # noqa: ARG002 - the same for all
        graph = Graph.read(source)
        if self.storage:
            _store(graph, self.smallest)
        else:
            blocked = [*DEFAULT_OP_BLOCK_LIST, *self.exact]
            # Types are inferred on the way, which fused nodes know nothing of.
            graph = Graph(convert_float_to_float16(graph.model, keep_io_types=True, disable_shape_infer=True, op_block_list=blocked))
        graph.write(target, beside=weights_beside(source).is_file())


def _store(graph: Graph, smallest: int) -> None:
    made: list[NodeProto] = []
    for tensor in list(graph.model.graph.initializer):
        values = graph.constant(tensor.name)
        assert values is not None
        small = tensor.data_type != TensorProto.FLOAT or prod(tensor.dims) < smallest
        if small or not np.abs(values).max() <= _LARGEST:
            continue
        made.append(helper.make_node("Cast", [graph.add(values.astype(np.float16), tensor.name)], [tensor.name], to=TensorProto.FLOAT))
        graph.model.graph.initializer.remove(tensor)
    nodes = [*made, *graph.model.graph.node]
    del graph.model.graph.node[:]
    graph.model.graph.node.extend(nodes)
