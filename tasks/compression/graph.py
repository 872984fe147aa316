"""fp32 as it is, in a graph that is smaller and faster."""

import tempfile
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from tasks.compression import Compressor, Subject, weights_beside
from tasks.graphs import Graph
from tasks.unfusing import plain_norms

_LEVELS = {"basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED}


class GraphOptimized(Compressor):
    """ONNX Runtime's optimisations that hold on any machine, done once; and no byte that no answer needs.

    Optimisations of layout are for the processor that they were done on, and are left to the session's start.
    """

    level: Literal["basic", "extended"] = "extended"
    """`extended` writes nodes of ONNX Runtime's own, which no other runtime knows."""
    plain_norms: bool = True
    """Write layer normalisation as sums and products, which the CPU runs faster than ONNX Runtime's node for it."""

    def unfit(self, subject: Subject) -> str | None:
        return "its nodes are those that suit a CPU; on CUDA a session optimises the graph when it starts" if subject.on_cuda else None

    def compress(self, source: Path, target: Path, subject: Subject) -> None:  # noqa: ARG002 - the same for all
        beside = weights_beside(source).is_file()
        if beside:
            # ONNX Runtime would write the weights of the optimised graph into one file of at most 2 GiB.
            graph = Graph.read(source)
        else:
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                graph = Graph.read(_optimized(source, Path(folder) / "optimized.onnx", self.level))
        if self.plain_norms:
            plain_norms(graph)
        graph.write(target, beside=beside)


def _optimized(source: Path, target: Path, level: str) -> Path:
    options = ort.SessionOptions()
    options.graph_optimization_level = _LEVELS[level]
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return target
