"""Weights in four bits, with a scale for each block of them."""

import logging
from pathlib import Path
from typing import Annotated, Literal

from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from pydantic import Field

from tasks.compression import Compressor, Subject, weights_beside
from tasks.core.errors import MaasflowError
from tasks.core.transforms import TextTransform
from tasks.graphs import Graph
from tasks.unfusing import plain_gemm, plain_norms, quantize_tables, split_attention, split_embedding


class Int4Weights(Compressor):
    """Matrices and embedding tables in an eighth of the bytes, where size is what matters.

    Activations are scaled in blocks of a row, or not at all, so that a row's answer does not depend on its neighbours; but
    with a block of 128 ONNX Runtime takes another way for one row than for many, which differ by a code's step.
    """

    block: Literal[16, 32, 64, 128, 256] = 32
    """Weights that share a scale."""
    symmetric: bool = True
    """Without zero points, which take four more bits for each block."""
    accuracy_level: Literal[1, 4] = 4
    """How products are computed: 4 with activations in int8, faster where the processor has instructions for it; 1 in fp32."""
    products: bool = True
    """Keep the matrices of products in four bits. Without them it is embedding tables alone, for `int8_rows` to go on from in a list."""
    embeddings: bool = True
    """Keep embedding tables in four bits too."""
    smallest: Annotated[int, Field(ge=1)] = 1024
    """Elements of a matrix from which it is quantised."""

    def unfit(self, subject: Subject) -> str | None:
        if subject.family == "resnet":
            return "convolutions have no kernel for it"
        tables = self.products or isinstance(subject.encoded.transform, TextTransform)
        return None if tables else "only texts have embedding tables"

    def compress(self, source: Path, target: Path, subject: Subject) -> None:  # noqa: ARG002 - the same for all
        graph = Graph.read(source)
        split_attention(graph)
        plain_gemm(graph)
        tables = 0
        if self.embeddings:
            split_embedding(graph)
            tables = quantize_tables(graph, 4, self.smallest, self.block)
        nodes = graph.model.graph.node
        large = [self.products and node.op_type == "MatMul" and graph.matrix(node.input[1], self.smallest) is not None for node in nodes]
        for number, node in enumerate(nodes):
            node.name = f"node{number}"
        if not any(large) and not tables:
            raise MaasflowError(f"the model has no matrix of {self.smallest} elements", "lower int4_weights.smallest, or leave it as it is")
        # It tells of each node, at a level that is shown.
        logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
        quantizer = MatMulNBitsQuantizer(
            graph.model,
            nodes_to_exclude=[node.name for node, chosen in zip(nodes, large, strict=True) if not chosen],
            algo_config=DefaultWeightOnlyQuantConfig(
                block_size=self.block, is_symmetric=self.symmetric, accuracy_level=self.accuracy_level, bits=4
            ),
        )
        quantizer.process()
        graph = Graph(quantizer.model.model)
        plain_norms(graph)
        graph.write(target, beside=weights_beside(source).is_file())
