"""Tiny bundles for texts, whose models are written by hand: one that classifies, one that continues."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tasks.core.bundle import Bundle, DatasetVersion, Lineage, Manifest, describe_variant
from tasks.core.dataset import Column
from tasks.core.tokenizing import Kind
from tasks.core.transforms import TensorSpec, TextOptions, TextTransform

TEXTS = [
    "First Citizen:\nBefore we proceed any further, hear me speak.\n",
    "All:\nSpeak, speak. What a good day!\n",
    "Second Citizen:\nWould you proceed? The day was bad, not good at all.\n",
]
LABELS = ("good", "bad")
HIDDEN = 32


def fit(folder: Path, *, running: bool, kind: Kind | None = None, texts: list[str] = TEXTS, length: int = 12) -> TextTransform:
    folder.mkdir(parents=True, exist_ok=True)
    options = TextOptions(tokenizer=kind, vocabulary=400, length=length)
    return TextTransform.fit("text", lambda: iter([{"text": texts}]), options, folder, running=running)


def write_classifier(folder: Path, name: str = "moods") -> Bundle:
    """It adds 2 to the logit `good` for each word "good", and to `bad` for each "bad"; texts of at most 12 tokens."""
    transform = fit(folder, running=False)
    table = np.zeros((transform.vocabulary, 2), np.float32)
    for label, word in enumerate(LABELS):
        table[transform.encode({"text": [word]})["ids"].values, label] = 2.0  # type: ignore[union-attr]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["scores"]),
        helper.make_node("Cast", ["attention_mask"], ["read"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["read", "last"], ["weights"]),
        helper.make_node("Mul", ["scores", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "length"], ["logits"], keepdims=0),
    ]
    constants = {"table": table, "last": np.array([2]), "length": np.array([1])}
    outputs = (TensorSpec(name="logits", dtype="FP32", shape=(2,)),)
    return _bundle(folder, name, transform, nodes, constants, transform.inputs, outputs)


def write_language_model(folder: Path, name: str = "writer", kind: Kind = "characters", texts: list[str] = TEXTS, seed: int = 0) -> Bundle:
    """An LSTM with random weights: what it writes is nonsense, and depends on all that it has read."""
    transform = fit(folder, running=True, kind=kind, texts=texts)
    size, random = transform.vocabulary, np.random.default_rng(seed)
    sizes = {"table": (size, HIDDEN), "w": (1, 4 * HIDDEN, HIDDEN), "r": (1, 4 * HIDDEN, HIDDEN), "head": (HIDDEN, size)}
    constants: dict[str, Any] = {each: random.normal(scale=0.5, size=shape).astype(np.float32) for each, shape in sizes.items()}
    constants |= {"directions": np.array([1])}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Transpose", ["embedded"], ["x"], perm=[1, 0, 2]),
        helper.make_node("Transpose", ["hidden"], ["first_h"], perm=[1, 0, 2]),
        helper.make_node("Transpose", ["cell"], ["first_c"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["x", "w", "r", "", "", "first_h", "first_c"], ["y", "last_h", "last_c"], hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["y", "directions"], ["features"]),
        helper.make_node("Transpose", ["features"], ["rows"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["rows", "head"], ["logits"]),
        helper.make_node("Transpose", ["last_h"], ["next_hidden"], perm=[1, 0, 2]),
        helper.make_node("Transpose", ["last_c"], ["next_cell"], perm=[1, 0, 2]),
    ]
    state = tuple(TensorSpec(name=each, dtype="FP32", shape=(1, HIDDEN)) for each in ("hidden", "cell"))
    following = tuple(spec.model_copy(update={"name": f"next_{spec.name}"}) for spec in state)
    outputs = (TensorSpec(name="logits", dtype="FP32", shape=(-1, size)), *following)
    return _bundle(folder, name, transform, nodes, constants, (*transform.inputs, *state), outputs)


def _bundle(
    folder: Path,
    name: str,
    transform: TextTransform,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray[Any, Any]],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> Bundle:
    initial = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, list(map(_value, inputs)), list(map(_value, outputs)), initial)
    path = folder / "variants" / "fp32.onnx"
    path.parent.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    running = transform.length is None
    manifest = Manifest(
        name=name,
        task="language_modelling" if running else "classification",
        description="A tiny model for tests.",
        columns={"text": Column(type="text")},
        inputs=inputs,
        outputs=outputs,
        state={spec.name: f"next_{spec.name}" for spec in inputs if spec.dtype == "FP32"},
        labels=() if running else LABELS,
        transform=transform,
        variants=(describe_variant(folder, "fp32"),),
        chosen="fp32",
        threads=1,
        parity=0.0,
        recipe={},
        lineage=Lineage(dataset=DatasetVersion(name="tiny", raw="0", digest="0", rows={})),
    )
    return Bundle(folder, manifest).write()


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    kind = TensorProto.FLOAT if spec.dtype == "FP32" else TensorProto.INT64
    return helper.make_tensor_value_info(spec.name, kind, ["batch", *("length" if size < 0 else size for size in spec.shape)])
