"""The Open Inference Protocol v2, by its words and against bad input."""

from typing import Any

import httpx
import pytest

from tests.serving.conftest import Served, Start
from tests.texts import HIDDEN, write_language_model

ROW = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
INFER = "/v2/models/people/infer"


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 6], "datatype": "FP32", "data": ROW} | changes


def test_server_metadata_and_health(client: httpx.Client) -> None:
    metadata = client.get("/v2").json()
    assert (metadata["name"], metadata["extensions"]) == ("maasflow", ["binary_tensor_data"])
    assert client.get("/v2/health/live").json() == {"live": True}
    ready = client.get("/v2/health/ready")
    assert ready.status_code == 200
    assert list(ready.json()["problems"]) == ["broken"]


@pytest.mark.parametrize("path", ["/v2/models/people", "/v2/models/people/versions/3"])
def test_model_metadata_and_ready(client: httpx.Client, path: str) -> None:
    metadata = client.get(path).json()
    assert metadata == {
        "name": "people",
        "versions": ["3"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 6]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 2]}],
        "properties": {"variant": "fp32", "batch": "any"},
    }
    assert client.get(f"{path}/ready").status_code == 200


def test_a_broken_model_says_why_and_tells_no_path(client: httpx.Client) -> None:
    for path in ("/v2/models/broken", "/v2/models/broken/ready"):
        reply = client.get(path)
        assert reply.status_code == 503
        assert "variants/fp32.onnx is missing" in reply.json()["error"]
        assert "served/" not in reply.text


@pytest.mark.parametrize("path", [INFER, "/v2/models/people/versions/3/infer"])
def test_infer(client: httpx.Client, path: str) -> None:
    call = {"id": "a7", "parameters": {"any": 1}, "inputs": [tensor(parameters={})], "outputs": [{"name": "logits"}]}
    reply = client.post(path, json=call)
    assert reply.status_code == 200
    assert reply.json() == {
        "model_name": "people",
        "model_version": "3",
        "id": "a7",
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [0.5, -0.5]}],
    }


def test_data_may_be_nested_and_numbers_whole(client: httpx.Client) -> None:
    reply = client.post(INFER, json={"inputs": [tensor(shape=[2, 6], data=[[0, 0, 0, 1, 0, 0], [0, 0, 0, 2, 0, 0]])]})
    assert reply.json()["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [2, 2], "data": [0.5, -0.5, 1.5, -1.5]}]
    assert "id" not in reply.json()


def test_data_of_an_image_may_be_nested_as_deep_as_its_shape(client: httpx.Client) -> None:
    pixels = [[[[0.1] * 4] * 4]]
    reply = client.post("/v2/models/marks/infer", json={"inputs": [tensor(shape=[1, 1, 4, 4], data=pixels)]})
    assert reply.json()["outputs"][0]["data"] == pytest.approx([1.1, -1.1])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({}, "'inputs' is a list"),
        ({"inputs": []}, "'inputs' is a list"),
        ({"inputs": ["x"]}, "an object with a 'name'"),
        ({"inputs": [tensor(), tensor()]}, "'x' twice"),
        ({"inputs": [tensor(name="y")]}, "no input 'y', it has x"),
        ({"inputs": [tensor(datatype="FP64")]}, "datatype 'FP64', expected 'FP32'"),
        ({"inputs": [tensor(datatype=["FP32"])]}, "expected 'FP32'"),
        ({"inputs": [tensor(shape=[1, 5])]}, "shape [1, 5], expected [batch, 6]"),
        ({"inputs": [tensor(shape=[6])]}, "shape [6], expected [batch, 6]"),
        ({"inputs": [tensor(shape=[True, 6])]}, "no shape of whole numbers"),
        ({"inputs": [tensor(shape=None)]}, "no shape of whole numbers"),
        ({"inputs": [tensor(shape=[0, 6], data=[])]}, "every size is at least 1"),
        ({"inputs": [tensor(shape=[-1, 6])]}, "every size is at least 1"),
        ({"inputs": [tensor(shape=[10**18, 6])]}, "holds 6 values"),
        ({"inputs": [tensor(data=ROW[1:])]}, "holds 5 values, its shape [1, 6] needs 6"),
        ({"inputs": [tensor(data=[])]}, "holds 0 values"),
        ({"inputs": [tensor(data=None)]}, "no 'data'"),
        ({"inputs": [tensor(data=[[*ROW], [1]])]}, "nested in another way"),
        ({"inputs": [tensor(data=[ROW[:3], ROW[3:]])]}, "nested in another way"),
        ({"inputs": [tensor(data=[[[value] for value in ROW]])]}, "holds list where numbers belong"),
        ({"inputs": [tensor(data=[None, *ROW[1:]])]}, "holds null where numbers belong"),
        ({"inputs": [tensor(data=["1", *ROW[1:]])]}, "holds str where numbers belong"),
        ({"inputs": [tensor(data=[True, *ROW[1:]])]}, "holds bool where numbers belong"),
        ({"inputs": [tensor(data=[1e39, *ROW[1:]])]}, "too large for FP32"),
        ({"inputs": [tensor(data=[10**60, *ROW[1:]])]}, "too large for FP32"),
        ({"inputs": [tensor()], "outputs": [{"name": "labels"}]}, "no output 'labels', it has logits"),
        ({"inputs": [tensor()], "outputs": []}, "'outputs' is a list"),
        ({"inputs": [tensor()], "id": 7}, "'id' is a text"),
        ({"inputs": [tensor()], "parameters": 7}, "'parameters' is an object, found 7"),
        ({"inputs": [tensor()], "parameters": {"timeout": "1 s"}}, "'timeout' is '1 s', expected microseconds"),
        ({"inputs": [tensor()], "parameters": {"timeout": -1}}, "'timeout' is -1, expected microseconds"),
        ({"inputs": [tensor()], "outputs": [{"name": "logits"}] * 2}, "'outputs' has 'logits' twice"),
        ({"inputs": [tensor()], "outputs": [{"name": "logits", "parameters": {"classification": 2}}]}, "parameter 'classification'"),
        ({"inputs": [tensor(parameters={"shared_memory_region": "r"})]}, "parameter 'shared_memory_region'"),
    ],
)
def test_a_wrong_call_is_told_what_was_expected(client: httpx.Client, call: dict[str, Any], says: str) -> None:
    reply = client.post(INFER, json=call)
    assert reply.status_code == 400
    assert says in reply.json()["error"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b'{"inputs": [', "not JSON"),
        (b'{"inputs": [{"data": [NaN]}]}', "NaN and Infinity are not in JSON"),
        (b"[" * 10_000, "not JSON"),
        (b'{"inputs": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "expected a JSON object, found a list"),
        (b"null", "expected a JSON object, found null"),
    ],
)
def test_a_body_that_is_no_object_is_refused(client: httpx.Client, body: bytes, says: str) -> None:
    reply = client.post(INFER, content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    assert says in reply.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Encoding": "br"},
    ],
)
def test_other_kinds_of_bodies_are_refused(client: httpx.Client, headers: dict[str, str]) -> None:
    assert client.post(INFER, content=b"{}", headers=headers).status_code == 415


def test_a_body_or_batch_over_the_limit_is_refused(client: httpx.Client) -> None:
    rows = client.post(INFER, json={"inputs": [tensor(shape=[9, 6], data=ROW * 9)]})
    assert (rows.status_code, "limit is 8" in rows.json()["error"]) == (413, True)
    announced = client.post(INFER, content=b"x" * 20_001)
    assert (announced.status_code, "20,000 bytes" in announced.json()["error"]) == (413, True)
    chunked = client.post(INFER, content=iter([b"x" * 15_000] * 2))
    assert chunked.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/peopel/infer", 404),
        ("POST", "/v2/models/people/versions/2/infer", 404),
        ("GET", "/v2/models/people/versions/2", 404),
        ("GET", "/v2/models/people/ready/", 404),
        ("GET", "/v2/models/..%2Fpeople", 404),
        ("GET", "/nothing", 404),
        ("GET", INFER, 405),
        ("DELETE", "/v2/models/people", 405),
        ("POST", "/v2/models/broken/infer", 503),
        ("HEAD", "/v2/health/live", 200),
    ],
)
def test_paths_and_methods(client: httpx.Client, method: str, path: str, status: int) -> None:
    reply = client.request(method, path, json={} if method == "POST" else None)
    assert reply.status_code == status
    if method != "HEAD":
        assert list(reply.json()) == ["error"]


def test_an_unknown_model_is_told_the_closest(client: httpx.Client) -> None:
    assert "did you mean 'people'?" in client.get("/v2/models/peopel").json()["error"]


# Models of texts, whose lengths differ.

MOODS, WRITER = "/v2/models/moods/infer", "/v2/models/writer/infer"


def ids(name: str = "input_ids", *rows: list[int]) -> dict[str, Any]:
    rows = rows or ([4, 5, 6],)
    return {"name": name, "shape": [len(rows), len(rows[0])], "datatype": "INT64", "data": list(rows)}


def state(name: str, rows: int = 1, value: float = 0.0) -> dict[str, Any]:
    return {"name": name, "shape": [rows, 1, HIDDEN], "datatype": "FP32", "data": [value] * HIDDEN * rows}


def outputs(reply: httpx.Response) -> dict[str, Any]:
    assert reply.status_code == 200, reply.text
    return {output["name"]: output for output in reply.json()["outputs"]}


def test_a_text_as_tokens(client: httpx.Client) -> None:
    metadata = client.get("/v2/models/moods").json()
    assert [(each["name"], each["shape"]) for each in metadata["inputs"]] == [("input_ids", [-1, -1]), ("attention_mask", [-1, -1])]
    two = client.post(MOODS, json={"inputs": [ids("input_ids", [4, 5, 6], [7, 0, 0]), ids("attention_mask", [1, 1, 1], [1, 0, 0])]})
    one = client.post(MOODS, json={"inputs": [ids("attention_mask", [1]), ids("input_ids", [7])]})
    assert outputs(two)["logits"]["shape"] == [2, 2]
    assert outputs(two)["logits"]["data"][2:] == outputs(one)["logits"]["data"]


def test_a_language_model_carries_its_state_from_call_to_call(client: httpx.Client) -> None:
    text = [4, 5, 6, 7, 8, 9]
    whole = outputs(client.post(WRITER, json={"inputs": [ids("input_ids", text), state("hidden"), state("cell")]}))
    assert list(whole) == ["logits", "next_hidden", "next_cell"]
    vocabulary = whole["logits"]["shape"][2]
    assert whole["logits"]["shape"] == [1, 6, vocabulary]
    assert whole["next_hidden"]["shape"] == whole["next_cell"]["shape"] == [1, 1, HIDDEN]
    first = outputs(client.post(WRITER, json={"inputs": [ids("input_ids", text[:4]), state("hidden"), state("cell")]}))
    carried = [{**first[f"next_{name}"], "name": name} for name in ("hidden", "cell")]
    second = outputs(client.post(WRITER, json={"inputs": [ids("input_ids", text[4:]), *carried]}))
    assert second["logits"]["data"] == pytest.approx(whole["logits"]["data"][4 * vocabulary :], abs=1e-5)
    assert second["next_cell"]["data"] == pytest.approx(whole["next_cell"]["data"], abs=1e-5)


def test_only_the_outputs_asked_for_come_in_their_order(client: httpx.Client) -> None:
    call = {"inputs": [ids(), state("hidden"), state("cell")], "outputs": [{"name": "next_cell"}, {"name": "next_hidden"}]}
    assert list(outputs(client.post(WRITER, json=call))) == ["next_cell", "next_hidden"]


@pytest.mark.parametrize(
    ("path", "inputs", "says"),
    [
        (MOODS, [ids()], "the input 'attention_mask' is missing"),
        (MOODS, [ids("input_ids", [4, -1]), ids("attention_mask", [1, 1])], "'input_ids' holds -1, expected whole numbers from 0 to"),
        (MOODS, [ids("input_ids", [4, 10**6]), ids("attention_mask", [1, 1])], "'input_ids' holds 1000000, expected"),
        (MOODS, [ids(), ids("attention_mask", [1, 1, 2])], "'attention_mask' holds 2, expected whole numbers from 0 to 1"),
        (
            MOODS,
            [ids("input_ids", [4] * 13), ids("attention_mask", [1] * 13)],
            "'input_ids' is 13 long, the model 'moods' takes at most 12",
        ),
        (MOODS, [ids(), ids("attention_mask", [1, 1])], "differ in length: 'input_ids' is 3 long, 'attention_mask' is 2 long"),
        (MOODS, [ids(), ids("attention_mask", [1] * 3, [1] * 3)], "differ in their numbers of rows"),
        (MOODS, [{**ids(), "shape": [1, 0], "data": []}, ids("attention_mask")], "every size is at least 1"),
        (MOODS, [{**ids(), "shape": [3]}, ids("attention_mask")], "has the shape [3], expected [batch, any]"),
        (MOODS, [{**ids(), "data": [4.0, 5, 6]}, ids("attention_mask")], "holds float where whole numbers belong"),
        (WRITER, [ids(), state("hidden")], "the input 'cell' is missing"),
        (WRITER, [ids("input_ids", [999]), state("hidden"), state("cell")], "'input_ids' holds 999"),
        (WRITER, [ids(), state("hidden", 2), state("cell", 2)], "differ in their numbers of rows"),
        (WRITER, [ids(), {**state("hidden"), "shape": [1, HIDDEN, 1]}, state("cell")], f"expected [batch, 1, {HIDDEN}]"),
    ],
)
def test_wrong_texts_and_states_are_told(client: httpx.Client, path: str, inputs: list[dict[str, Any]], says: str) -> None:
    reply = client.post(path, json={"inputs": inputs})
    assert (reply.status_code, says in reply.json()["error"]) == (400, True), reply.text


def test_an_answer_that_would_be_too_large_is_refused(served: Served, start: Start) -> None:
    write_language_model(served.folder / "writer" / "1")
    served.point("writer", "1")
    reply = start().client.post(WRITER, json={"inputs": [ids("input_ids", [4] * 10**6), state("hidden"), state("cell")]})
    assert (reply.status_code, "numbers, the limit is 16,777,216" in reply.json()["error"]) == (413, True)
