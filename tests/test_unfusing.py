"""Nodes taken apart compute what they did together."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.bundle import Bundle
from tasks.core.predictor import open_session
from tasks.export import BUNDLE
from tasks.graphs import Graph
from tasks.unfusing import plain_gemm, plain_norms, quantize_tables, split_attention, split_embedding
from tests.tiny import Stages


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def text(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    sections: dict[str, Any] = {"model": {"family": request.param, "hidden": 16, "layers": 2, "heads": 2}}
    return Stages.run(
        tmp_path_factory.mktemp(request.param) / "stages", "text", training={"epochs": 1}, compression={"compressors": []}, **sections
    )


def logits(stages: Stages, path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Of texts of several lengths, which are padded."""
    (found,) = open_session(path, 1).run(["logits"], stages.encoded.split("test").tensors(slice(40)))
    return np.asarray(found)


def changed(stages: Stages, path: Path, change: Callable[[Graph], int]) -> tuple[int, Counter[str]]:
    graph = Graph.read(Bundle.open(stages.folder("exported") / BUNDLE).file())
    count = change(graph)
    graph.write(path, beside=False)
    return count, Counter(node.op_type for node in graph.model.graph.node)


@pytest.mark.parametrize(
    ("change", "gone", "least"),
    [
        (split_attention, "Attention", 2),
        (split_embedding, "EmbedLayerNormalization", 1),
        (plain_norms, "SkipLayerNormalization", 4),
        (plain_gemm, "Gemm", 1),
    ],
)
def test_the_parts_answer_as_the_whole(change: Callable[[Graph], int], gone: str, least: int, text: Stages, tmp_path: Path) -> None:
    exact = logits(text, Bundle.open(text.folder("exported") / BUNDLE).file())
    count, left = changed(text, tmp_path / "made.onnx", change)
    assert count >= least
    assert not left[gone]
    np.testing.assert_allclose(logits(text, tmp_path / "made.onnx"), exact, atol=2e-5)


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.02), (4, 0.4)])
def test_a_table_in_few_bits_is_about_what_it_was(bits: int, tolerance: float, text: Stages, tmp_path: Path) -> None:
    def change(graph: Graph) -> int:
        split_embedding(graph)
        return quantize_tables(graph, bits, smallest=64, block=16)

    exact = logits(text, Bundle.open(text.folder("exported") / BUNDLE).file())
    count, left = changed(text, tmp_path / "made.onnx", change)
    assert left["GatherBlockQuantized"] == count >= 2
    found = logits(text, tmp_path / "made.onnx")
    assert 0 < np.abs(found - exact).max() < tolerance * np.abs(exact).max()
