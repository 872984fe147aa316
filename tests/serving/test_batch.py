"""Variants that take one row at a time: real ones, quantised dynamically, whose answers depend on what is beside them."""

import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import numpy as np
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from tasks.core.bundle import Batch, Bundle, describe_variant
from tasks.core.predictor import Predictor
from tests.serving.conftest import Served, end, start_server
from tests.texts import HIDDEN, write_language_model

GOOD = [{"a": a, "b": 0.1, "color": "red"} for a in (-1.4, -0.7, 0.1, 0.6, 1.5)]
SLIPPED = {"a": 0.3, "b": 1500.0, "color": "blue"}
ROWS = [*GOOD, SLIPPED]
TEXTS = ["the old man stands", "sunset", "a very old house under the tree and a tree walks slowly", "port and starboard", "west"]
IDS = [[4], [9], [17], [5], [30]]


def marked(bundle: Bundle, batch: Batch) -> Bundle:
    """The bundle with its int8 variant chosen, and run in that way."""
    variants = tuple(variant.model_copy(update={"batch": batch}) for variant in bundle.manifest.variants)
    return Bundle(bundle.folder, bundle.manifest.replace(variants=variants, chosen="int8_dynamic"))


def compressed_points(folder: Path) -> Bundle:
    """As the compress stage marks it."""
    from tests.outliers import run_with_outliers  # noqa: PLC0415 - trains, as no other test of the server does

    found = Bundle.open(run_with_outliers(folder / "stages").folder("compressed") / "bundle")
    assert found.manifest.variant("int8_dynamic").batch == "one"
    copytree(found.folder, folder / "points")
    return Bundle(folder / "points", found.manifest.replace(chosen="int8_dynamic")).write()


def compressed_texts(folder: Path) -> Bundle:
    from tests.outliers import INT8  # noqa: PLC0415 - as above
    from tests.tiny import Stages  # noqa: PLC0415

    model = {"family": "bert", "hidden": 32, "layers": 1, "heads": 2}
    found = Stages.run(folder / "stages", "text", model=model, training={"epochs": 2}, **INT8).folder("compressed") / "bundle"
    copytree(found, folder / "texts")
    return marked(Bundle.open(folder / "texts"), "one").write()


def compressed_writer(folder: Path) -> Bundle:
    bundle = write_language_model(folder / "writer")
    variants = bundle.folder / "variants"
    quantize_dynamic(variants / "fp32.onnx", variants / "int8_dynamic.onnx", per_channel=True, weight_type=QuantType.QInt8)
    described = tuple(describe_variant(bundle.folder, name) for name in ("fp32", "int8_dynamic"))
    return marked(Bundle(bundle.folder, bundle.manifest.replace(variants=described)), "one").write()


MAKERS = {"points": compressed_points, "texts": compressed_texts, "writer": compressed_writer}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def client(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server over all of them."""
    root = tmp_path_factory.mktemp("serving")
    served = Served(root / "served")
    for name, bundle in bundles.items():
        copytree(bundle.folder, served.folder / name / "1")
        served.point(name, "1")
    running = start_server(served.folder, root / "server.log")
    yield running.client
    end(running)


def predictions(client: httpx.Client, name: str, instances: list[Any]) -> list[dict[str, Any]]:
    reply = client.post(f"/v1/models/{name}/predict", json={"instances": instances})
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["predictions"]
    return found


def tensors(bundle: Bundle, name: str) -> dict[str, np.ndarray[Any, Any]]:
    """The inputs of all rows together; of texts, padded."""
    if name == "writer":
        random = np.random.default_rng(0)
        state = {each: random.normal(size=(len(IDS), 1, HIDDEN)).astype(np.float32) for each in ("hidden", "cell")}
        return {"input_ids": np.array(IDS), **state}
    transform = bundle.manifest.transform
    return transform.tensors(transform.encode(transform.columns(ROWS if name == "points" else TEXTS)))


def infer(client: httpx.Client, name: str, inputs: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[float]]:
    sent = [
        {"name": key, "shape": values.shape, "datatype": "INT64" if values.dtype == np.int64 else "FP32", "data": values.ravel().tolist()}
        for key, values in inputs.items()
    ]
    reply = client.post(f"/v2/models/{name}/infer", content=json.dumps({"inputs": sent}), headers={"Content-Type": "application/json"})
    assert reply.status_code == 200, reply.text
    return {output["name"]: output["data"] for output in reply.json()["outputs"]}


@pytest.mark.parametrize(("name", "instances"), [("points", ROWS), ("texts", TEXTS)])
def test_rows_sent_together_are_answered_as_each_alone_to_the_bit(name: str, instances: list[Any], client: httpx.Client) -> None:
    together = predictions(client, name, instances)
    assert together == [predictions(client, name, [each])[0] for each in instances]


@pytest.mark.parametrize("name", MAKERS)
def test_tensors_sent_together_are_answered_as_each_alone_to_the_bit(name: str, client: httpx.Client, bundles: dict[str, Bundle]) -> None:
    inputs = tensors(bundles[name], name)
    rows = len(next(iter(inputs.values())))
    together = infer(client, name, inputs)
    # A text's row alone keeps the padding that it was sent with.
    alone = [infer(client, name, {key: values[row : row + 1] for key, values in inputs.items()}) for row in range(rows)]
    for output, values in together.items():
        assert values == [value for each in alone for value in each[output]]


@pytest.mark.parametrize("name", MAKERS)
def test_run_together_the_same_files_would_answer_otherwise(name: str, bundles: dict[str, Bundle]) -> None:
    """Else the tests above would show nothing."""
    inputs, bundle = tensors(bundles[name], name), bundles[name]
    alone, together = Predictor(marked(bundle, "one")).logits(inputs), Predictor(marked(bundle, "any")).logits(inputs)
    assert np.abs(alone - together).max() > 1e-5
    if name == "points":
        assert (alone.argmax(axis=1) != together.argmax(axis=1)).any()


def test_several_prompts_are_continued_as_each_alone(client: httpx.Client) -> None:
    def completed(*prompts: str) -> list[str]:
        reply = client.post("/v1/completions", json={"model": "writer", "prompt": prompts, "max_tokens": 20, "temperature": 0})
        assert reply.status_code == 200, reply.text
        return [choice["text"] for choice in reply.json()["choices"]]

    prompts = ["First", "All:\nSpeak", "S"]
    assert completed(*prompts) == [completed(prompt)[0] for prompt in prompts]
    generated = client.post("/v1/models/writer/generate", json={"prompt": "First", "max_tokens": 20, "temperature": 0})
    assert generated.json()["text"] == completed("First")[0]


def test_the_mark_is_told(client: httpx.Client) -> None:
    assert {model["name"]: model["batch"] for model in client.get("/v1/models").json()["models"]} == dict.fromkeys(MAKERS, "one")
    assert client.get("/v2/models/points").json()["properties"] == {"variant": "int8_dynamic", "batch": "one"}
