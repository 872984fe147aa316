"""Static int8: what it is calibrated on, which nodes it leaves in fp32, and that it quantises what ONNX Runtime fused."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tasks.compression import COMPRESSORS, Subject
from tasks.core.bundle import Bundle
from tasks.core.errors import MaasflowError
from tasks.core.predictor import open_session
from tasks.export import BUNDLE
from tests.tiny import Stages


def made(stages: Stages, path: Path, **options: Any) -> onnx.ModelProto:
    source = Bundle.open(stages.folder("exported") / BUNDLE).file()
    COMPRESSORS.build({"kind": "int8_static", "smallest": 64, **options}).compress(source, path, Subject(stages.recipe, stages.encoded))
    return onnx.load(path)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    sections: dict[str, Any] = {"model": {"family": "bert", "hidden": 16, "layers": 2, "heads": 2}, "compression": {"compressors": []}}
    return Stages.run(tmp_path_factory.mktemp("text") / "stages", "text", training={"epochs": 1}, **sections)


def test_more_rows_than_there_are_is_refused_only_where_they_were_asked_for(stages: Stages, tmp_path: Path) -> None:
    made(stages, tmp_path / "default.onnx")
    with pytest.raises(MaasflowError, match=r"cannot be calibrated on 301 training rows, there are 300\n.*lower int8_static.rows"):
        made(stages, tmp_path / "made.onnx", rows=301)


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_every_product_of_a_transformer_is_quantised(method: str, text: Stages, tmp_path: Path) -> None:
    counts = Counter(node.op_type for node in made(text, tmp_path / "made.onnx", method=method, rows=32).graph.node)
    # In each layer queries, keys and values together, what attention gives, and the two of the feed-forward part.
    assert counts["MatMul"] - counts["Gemm"] >= 2 * 4
    assert counts["DequantizeLinear"] >= 2 * 2 * 4
    assert counts["GatherBlockQuantized"] >= 1


def test_the_most_sensitive_nodes_stay_in_fp32_and_bring_it_closer(text: Stages, tmp_path: Path) -> None:
    inputs = text.encoded.split("test").tensors(slice(64))
    (exact,) = open_session(Bundle.open(text.folder("exported") / BUNDLE).file(), 1).run(["logits"], inputs)
    codes, distance = [], []
    for sensitive in (0, 3, 99):
        path = tmp_path / f"{sensitive}.onnx"
        model = made(text, path, sensitive=sensitive, rows=64, embeddings=False)
        codes.append(sum(tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2 for tensor in model.graph.initializer))
        distance.append(float(np.abs(open_session(path, 1).run(["logits"], inputs)[0] - exact).max()))
    assert codes[0] - codes[1] == 3
    assert codes[2] == 0
    assert distance[0] > distance[2] < 1e-4
    assert distance[1] <= distance[0]
