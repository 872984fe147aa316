"""int8 weights and activations, with a scale for each row of the activations, taken anew at each call."""

from pathlib import Path
from typing import Annotated, Final

import numpy as np
from onnx import NodeProto, TensorProto
from onnx.helper import make_node, make_tensor
from pydantic import Field

from tasks.compression import Compressor, Subject, weights_beside
from tasks.core.errors import MaasflowError
from tasks.graphs import MICROSOFT, Graph
from tasks.unfusing import plain_gemm, plain_norms, quantize_tables, split_attention, split_embedding

_ZERO: Final = {
    "Relu": (0, 0.0),
    "Sigmoid": (0, 0.0),
    "Softmax": (0, 0.0),
    "Gelu": (16, 0.17),
    "FastGelu": (16, 0.17),
    "BiasGelu": (16, 0.17),
}
"""The code of zero for what these nodes make, and the most that it is below zero: codes for what cannot be are wasted."""
_TINY: Final = 1e-10
"""The largest value of a row of zeros, so that none is divided by zero."""


class Int8Rows(Compressor):
    """Matrix products in int8, where each row of activations, as a token's, has a scale of its own.

    Calibration is not needed, and a row's answer depends neither on its neighbours in the batch nor on padding, which
    `int8_dynamic` cannot say. Activations are closer to fp32's, too: one outlier spoils one row.
    """

    embeddings: bool = True
    """Keep embedding tables in int8."""
    smallest: Annotated[int, Field(ge=1)] = 1024
    """Elements of a matrix from which it is quantised: below, the nodes for it are larger and slower than it is."""

    def unfit(self, subject: Subject) -> str | None:
        if subject.on_cuda:
            return "CUDA has no kernel for its integer products"
        return "convolutions have no kernel for it" if subject.family == "resnet" else None

    def compress(self, source: Path, target: Path, subject: Subject) -> None:  # noqa: ARG002 - dynamic
        graph = Graph.read(source)
        split_attention(graph)
        plain_gemm(graph)
        products = _Products(graph, self.smallest).quantize()
        tables = 0
        if self.embeddings:
            split_embedding(graph)
            tables = quantize_tables(graph, 8, self.smallest)
        if not products + tables:
            raise MaasflowError(f"the model has no matrix of {self.smallest} elements", "lower int8_rows.smallest, or leave it as it is")
        plain_norms(graph)
        graph.write(target, beside=weights_beside(source).is_file())


class _Products:
    """The matrix products of one graph. Each activation is quantised once, for all products that read it."""

    def __init__(self, graph: Graph, smallest: int) -> None:
        self._graph = graph
        self._smallest = smallest
        self._quantized: dict[str, tuple[str, str, int]] = {}

    def quantize(self) -> int:
        return self._graph.rewrite(self._product)

    def _product(self, node: NodeProto) -> list[NodeProto] | None:
        graph = self._graph
        weights = graph.matrix(node.input[1], self._smallest) if node.op_type == "MatMul" else None
        if weights is None:
            return None
        (value, right), out = node.input, node.output[0]
        scales = np.maximum(np.abs(weights).max(axis=0) / 127, _TINY).astype(np.float32)
        codes = np.rint(weights / scales).astype(np.int8)
        made = [] if value in self._quantized else self._rows(value, len(weights))
        rows, row_scale, zero = self._quantized[value]
        unit = graph.shared(np.array(1, np.float32), "unit")
        given = [rows, graph.add(codes, right), unit, graph.add(scales, f"{right}_scale"), self._code(zero)]
        product, scaled, shape, leading = (graph.name(f"{out}_{each}") for each in ("product", "scaled", "shape", "leading"))
        width = graph.shared(np.array(scales.shape, np.int64), f"width_{scales.size}")
        return [
            *made,
            make_node("MatMulIntegerToFloat", given, [product], domain=MICROSOFT),
            make_node("Mul", [product, row_scale], [scaled]),
            make_node("Shape", [value], [leading], start=0, end=-1),
            make_node("Concat", [leading, width], [shape], axis=0),
            make_node("Reshape", [scaled, shape], [out]),
        ]

    def _rows(self, value: str, depth: int) -> list[NodeProto]:
        """Quantise a tensor as a matrix of so many columns."""
        graph = self._graph
        names = ("rows", "size", "most", "safe", "scale", "flat", "count", "zero", "codes")
        rows, size, most, safe, scale, flat, count, zeros, codes = (graph.name(f"{value}_{each}") for each in names)
        zero, below = _ZERO.get(graph.producer(value), (128, None))
        steps = 255 - zero
        # Where the range below zero is known, it is also a floor for the scale.
        floor = _TINY if not below else below * steps / zero
        last = graph.shared(np.array([-1], np.int64), "last_axis")
        self._quantized[value] = codes, scale, zero
        return [
            make_node("Reshape", [value, graph.shared(np.array([-1, depth], np.int64), f"rows_of_{depth}")], [rows]),
            *([make_node("Abs", [rows], [size])] if below is None else []),
            make_node("ReduceMax", [size if below is None else rows, last], [most]),
            make_node("Max", [most, graph.shared(np.array(floor, np.float32), f"floor_{zero}")], [safe]),
            make_node("Mul", [safe, graph.shared(np.array(1 / steps, np.float32), f"step_{zero}")], [scale]),
            make_node("Squeeze", [scale, last], [flat]),
            make_node("Shape", [flat], [count]),
            make_node("ConstantOfShape", [count], [zeros], value=make_tensor("zero", TensorProto.UINT8, [1], [zero])),
            make_node("QuantizeLinear", [rows, flat, zeros], [codes], axis=0),
        ]

    def _code(self, zero: int) -> str:
        return self._graph.shared(np.array(zero, np.uint8), f"code_{zero}")
