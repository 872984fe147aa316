"""A bundle with a real, tiny model."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tasks.core.bundle import Bundle, DatasetVersion, Lineage, Manifest, describe_variant
from tasks.core.dataset import Column
from tasks.core.transforms import TableTransform, TensorSpec

WEIGHTS = np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]], np.float32)
BIAS = np.array([0.1, 0.2, 0.3], np.float32)
LABELS = ("low", "middle", "high")


def write_linear(path: Path) -> None:
    """`logits = x @ WEIGHTS + BIAS` as an ONNX file."""
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "weights", "bias"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(WEIGHTS, "weights"), numpy_helper.from_array(BIAS, "bias")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle of two numbers to three labels, as it lies on disk."""
    folder = tmp_path / "bundle"
    write_linear(folder / "variants" / "fp32.onnx")
    columns = {name: Column(type="number") for name in ("a", "b")}
    transform = TableTransform.fit(columns, lambda: iter([{"a": [0.0, 2.0], "b": [10.0, 30.0]}]))
    manifest = Manifest(
        name="tiny",
        columns=columns,
        inputs=transform.inputs,
        outputs=(TensorSpec(name="logits", dtype="FP32", shape=(len(LABELS),)),),
        labels=LABELS,
        transform=transform,
        variants=(describe_variant(folder, "fp32"),),
        chosen="fp32",
        threads=1,
        parity=0.0,
        recipe={"dataset": "tiny"},
        lineage=Lineage(dataset=DatasetVersion(name="tiny", raw="a", digest="b", rows={"train": 2})),
    )
    return Bundle(folder, manifest).write()
