"""int8 in the file, fp32 in memory."""

from math import prod
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from onnx import NodeProto, TensorProto
from onnx.helper import make_node
from pydantic import Field

from tasks.compression import Compressor, Subject, weights_beside
from tasks.core.errors import MaasflowError
from tasks.graphs import Array, Graph

_KEPT: Final = {"MatMul": (-1,), "Gemm": (0,), "LSTM": (0, 1), "GRU": (0, 1), "RNN": (0, 1)}
"""The axes along which each place has a scale of its own, by the node that reads the weights; of others, the first."""


class Int8Weights(Compressor):
    """Weights of a quarter of the bytes, which ONNX Runtime makes fp32 again when a session starts.

    It runs as fast as fp32 and answers a row in any batch alike, whatever the processor knows: for where the file's
    size is what matters, and for layers that have no int8 kernel.
    """

    smallest: Annotated[int, Field(ge=1)] = 128
    """Elements of a tensor from which it is quantised: below, the nodes for it take more bytes than are saved."""

    def compress(self, source: Path, target: Path, subject: Subject) -> None:  # noqa: ARG002 - the same for all
        graph = Graph.read(source)
        reader = {name: node.op_type for node in graph.model.graph.node for name in node.input}
        made: list[NodeProto] = []
        for tensor in list(graph.model.graph.initializer):
            if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or prod(tensor.dims) < self.smallest:
                continue
            values = graph.constant(tensor.name)
            assert values is not None
            codes, scales = quantized(values, _KEPT.get(reader.get(tensor.name, ""), (0,)))
            whole = graph.name(f"{tensor.name}_codes")
            made += [
                make_node("Cast", [graph.add(codes, tensor.name)], [whole], to=TensorProto.FLOAT),
                make_node("Mul", [whole, graph.add(scales, tensor.name)], [tensor.name]),
            ]
            graph.model.graph.initializer.remove(tensor)
        if not made:
            raise MaasflowError(
                f"the model has no weights of {self.smallest} elements", "lower int8_weights.smallest, or leave it as it is"
            )
        nodes = [*made, *graph.model.graph.node]
        del graph.model.graph.node[:]
        graph.model.graph.node.extend(nodes)
        graph.write(target, beside=weights_beside(source).is_file())


def quantized(values: Array, kept: tuple[int, ...]) -> tuple[Array, Array]:
    """int8 codes, and float32 scales for each place along the axes `kept`."""
    places = {axis % values.ndim for axis in kept}
    rest = tuple(axis for axis in range(values.ndim) if axis not in places)
    scales = np.maximum(np.abs(values).max(axis=rest, keepdims=True) / 127, np.finfo(np.float32).tiny).astype(np.float32)
    return np.rint(values / scales).astype(np.int8), scales
