"""int8 weights, with activations scaled anew at each call."""

from pathlib import Path
from typing import Annotated, Literal

from onnx import TensorProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from pydantic import Field

from tasks.compression import Compressor, Subject, weights_beside
from tasks.graphs import Graph
from tasks.unfusing import plain_norms, quantize_tables, split_embedding


class Int8Dynamic(Compressor):
    """ONNX Runtime's dynamic quantisation. It needs no calibration, but scales activations over the whole batch.

    So a row's answer depends on its neighbours and on padding; `int8_rows` is as exact for each as for all.
    """

    per_channel: bool = True
    """A scale for each column of a matrix, rather than one for all of it."""
    ops: tuple[Literal["MatMul", "Attention", "LSTM", "Conv"], ...] = ("MatMul", "Attention", "LSTM", "Conv")
    """Kinds of nodes to quantise; Gemm counts as MatMul."""
    embeddings: bool = True
    """Keep embedding tables in int8, with a scale for each row."""
    smallest: Annotated[int, Field(ge=1)] = 1024
    """Elements of a table from which it is quantised."""

    def unfit(self, subject: Subject) -> str | None:
        return "CUDA has no kernel for its integer products" if subject.on_cuda else None

    def compress(self, source: Path, target: Path, subject: Subject) -> None:  # noqa: ARG002 - dynamic
        beside = weights_beside(source).is_file()
        if self.ops:
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=list(self.ops),
                per_channel=self.per_channel,
                weight_type=QuantType.QInt8,
                use_external_data_format=beside,
                # Fused nodes are of no standard operator set, so that types beyond them are not inferred.
                extra_options={"DefaultTensorType": TensorProto.FLOAT},
            )
        graph = Graph.read(target if self.ops else source)
        if self.embeddings:
            split_embedding(graph)
            quantize_tables(graph, 8, self.smallest)
        plain_norms(graph)
        graph.write(target, beside=beside)
