"""int8 weights and activations, with scales calibrated on training rows."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import HistogramCollector, TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import add_infer_metadata
from pydantic import Field

from tasks.compression import Compressor, Subject, calibration_batches, weights_beside
from tasks.core.encoded import EncodedSplit
from tasks.core.errors import MaasflowError
from tasks.core.transforms import Tensors
from tasks.graphs import Array, Graph
from tasks.unfusing import plain_gemm, plain_norms, quantize_tables, split_attention, split_embedding

_FEWEST: Final = 8
_PROBED: Final = 32
"""Training rows whose logits are compared, to tell how sensitive a node is."""
_PRODUCTS: Final = ("MatMul", "Gemm")
_IMAGES: Final = ("Conv", *_PRODUCTS, "Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Reshape")
"""What is quantised in a convolutional net, where int8 goes from one node to the next."""


class Int8Static(Compressor):
    """ONNX Runtime's static quantisation in QDQ form: a row's answer does not depend on its neighbours in the batch."""

    rows: Annotated[int, Field(ge=_FEWEST)] = 512
    """Training rows to calibrate on; unless it is given, as many of them as there are."""
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    """The range of an activation: all that was seen, the one that loses the least information, or 99.999 % of what was seen."""
    per_channel: bool = True
    """A scale for each column of a matrix and each channel of a convolution, rather than one for all of it."""
    sensitive: Annotated[int, Field(ge=0)] = 0
    """How many nodes stay in fp32: those which alone in int8 change the logits most. It takes a session for each node."""
    embeddings: bool = True
    """Keep embedding tables in int8, with a scale for each row."""
    smallest: Annotated[int, Field(ge=1)] = 256
    """Elements of a matrix from which it is quantised."""

    def unfit(self, subject: Subject) -> str | None:
        if subject.on_cuda:
            return "CUDA has no int8 kernels for its nodes, and would compute them in fp32"
        return "it cannot be calibrated on a language model's state" if subject.task == "language_modelling" else None

    def compress(self, source: Path, target: Path, subject: Subject) -> None:
        train = subject.train
        needed = self.rows if "rows" in self.model_fields_set else _FEWEST
        if len(train) < needed:
            raise MaasflowError(
                f"int8_static cannot be calibrated on {needed} training rows, there are {len(train)}",
                f"lower int8_static.rows, to {_FEWEST} at the least" if len(train) >= _FEWEST else "leave it out, or add training rows",
            )
        graph = Graph.read(source)
        split_attention(graph)
        if not _convolutional(graph):
            plain_gemm(graph)
        if self.embeddings:
            split_embedding(graph)
        tables = quantize_tables(graph, 8, self.smallest) if self.embeddings else 0
        for number, node in enumerate(graph.model.graph.node):
            node.name = f"node{number}"
        chosen = _quantizable(graph, self.smallest)
        if not chosen and not tables:
            raise MaasflowError(f"the model has no matrix of {self.smallest} elements", "lower int8_static.smallest, or leave it as it is")
        ranges = self._ranges(graph, chosen, train)
        exact = self._most_sensitive(graph, chosen, ranges, train) if self.sensitive else set()
        graph = Graph(self._quantized(graph.model, [name for name in chosen if name not in exact], ranges))
        plain_norms(graph)
        graph.write(target, beside=weights_beside(source).is_file())

    def _ranges(self, graph: Graph, chosen: Iterable[str], train: EncodedSplit) -> dict[str, TensorData]:
        """The lowest and highest value of each activation that the nodes take or make."""
        calls = _activations(graph, set(chosen), calibration_batches(train, self.rows))
        if self.method == "minmax":
            return _extremes(calls)
        # ONNX Runtime's own calibration gathers all batches in one array, which those of different lengths do not fit in.
        collector = HistogramCollector(self.method, symmetric=False, num_bins=128 if self.method == "entropy" else 2048, **_HISTOGRAM)
        # It tells what it does with print.
        with contextlib.redirect_stdout(io.StringIO()):
            for found in calls:
                collector.collect({name: [values.ravel()] for name, values in found.items()})
            result = collector.compute_collection_result()
        return {name: _range(low, high) for name, (low, high, *_) in result.items()}

    def _quantized(self, model: onnx.ModelProto, nodes: list[str], ranges: Mapping[str, TensorData]) -> onnx.ModelProto:
        if not nodes:
            return model
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        # What comes of fused nodes has no type by inference, and without one is left in fp32 with no more than a warning.
        copy.graph.ClearField("value_info")
        outputs = {value.name for value in copy.graph.output}
        copy.graph.value_info.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ranges if name not in outputs)
        add_infer_metadata(copy)
        quantizer = QDQQuantizer(
            copy,
            self.per_channel,
            reduce_range=False,
            # U8S8 is the pair that has a fast kernel on x86 with and without VNNI.
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=dict(ranges),
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=list({node.op_type for node in model.graph.node if node.name in nodes}),
            extra_options={
                "DefaultTensorType": TensorProto.FLOAT,
                # A product is summed in fp32 to what follows, which is quantised itself where it is worth it.
                "OpTypesToExcludeOutputQuantization": list(_PRODUCTS),
                # A session does it when it starts, and in fp32 a bias takes a third of the bytes.
                "QuantizeBias": False,
            },
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        made: onnx.ModelProto = quantizer.model.model
        return made

    def _most_sensitive(self, graph: Graph, chosen: list[str], ranges: Mapping[str, TensorData], train: EncodedSplit) -> set[str]:
        """The nodes which change the logits of some training rows most when each alone is quantised."""
        inputs = next(calibration_batches(train, min(_PROBED, len(train)), _PROBED))
        exact = _logits(graph.model, inputs)
        changed = {name: float(np.square(_logits(self._quantized(graph.model, [name], ranges), inputs) - exact).mean()) for name in chosen}
        return set(sorted(chosen, key=lambda name: -changed[name])[: self.sensitive])


_HISTOGRAM: Final[dict[str, Any]] = {"num_quantized_bins": 128, "percentile": 99.999, "scenario": "same"}


def _quantizable(graph: Graph, smallest: int) -> list[str]:
    """Names of the nodes to quantise: large products, and in a convolutional net all that lies between convolutions."""
    nodes = graph.model.graph.node
    products = [node.name for node in nodes if node.op_type in _PRODUCTS and graph.matrix(node.input[1], smallest) is not None]
    if not _convolutional(graph):
        return products
    return [node.name for node in nodes if node.op_type in _IMAGES and (node.op_type not in _PRODUCTS or node.name in products)]


def _convolutional(graph: Graph) -> bool:
    return any(node.op_type == "Conv" for node in graph.model.graph.node)


def _activations(graph: Graph, chosen: set[str], batches: Iterator[Tensors]) -> Iterator[dict[str, Array]]:
    """What the nodes take and make for each batch, by name."""
    nodes = [node for node in graph.model.graph.node if node.name in chosen]
    names = {name for node in nodes for name in (*node.input, *node.output) if name and graph.constant(name) is None}
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    inputs = {value.name for value in model.graph.input}
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in sorted(names - inputs))
    if not model.graph.output:
        return
    session = _session(model)
    outputs = [value.name for value in model.graph.output]
    for batch in batches:
        yield {**dict(zip(outputs, session.run(outputs, batch), strict=True)), **{name: batch[name] for name in names & inputs}}


def _extremes(calls: Iterable[Mapping[str, Array]]) -> dict[str, TensorData]:
    found: dict[str, tuple[float, float]] = {}
    for call in calls:
        for name, values in call.items():
            low, high = found.get(name, (0.0, 0.0))
            found[name] = min(low, float(values.min())), max(high, float(values.max()))
    return {name: _range(*both) for name, both in found.items()}


def _range(low: Any, high: Any) -> TensorData:
    return TensorData(lowest=np.array(low, np.float32).reshape(()), highest=np.array(high, np.float32).reshape(()))


def _logits(model: onnx.ModelProto, inputs: Tensors) -> Array:
    (logits,) = _session(model).run(["logits"], inputs)
    return np.asarray(logits)


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # What is compared is small, and the layout for this processor takes longer to make than it saves.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
