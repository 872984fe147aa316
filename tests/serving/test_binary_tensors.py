"""Tensors as bytes behind the JSON, both ways: the protocol's extension, by its words and against bad input."""

import gzip
import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest

from tests.texts import HIDDEN

ROW = struct.pack("<6f", 0, 0, 0, 1, 0, 0)
INFER = "/v2/models/people/infer"
HEADER = "Inference-Header-Content-Length"


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 6], "datatype": "FP32", "parameters": {"binary_data_size": 24}} | changes


def post(client: httpx.Client, call: Any, binary: bytes, path: str = INFER, **headers: str) -> httpx.Response:
    text = json.dumps(call).encode()
    return client.post(path, content=text + binary, headers={HEADER: str(len(text)), "Content-Type": "application/octet-stream", **headers})


def read(reply: httpx.Response) -> tuple[dict[str, Any], bytes]:
    """The JSON, and the bytes behind it."""
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/octet-stream"
    size = int(reply.headers[HEADER])
    return json.loads(reply.content[:size]), reply.content[size:]


def test_bytes_in_are_the_numbers(client: httpx.Client) -> None:
    reply = post(client, {"id": "a7", "inputs": [tensor()]}, ROW)
    assert reply.json() == {
        "model_name": "people",
        "model_version": "3",
        "id": "a7",
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [0.5, -0.5]}],
    }


@pytest.mark.parametrize(
    "wish",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "logits", "parameters": {"binary_data": True}}]},
        {"parameters": {"binary_data_output": True}, "outputs": [{"name": "logits"}]},
    ],
)
def test_outputs_come_as_bytes_where_they_are_wanted_so(client: httpx.Client, wish: dict[str, Any]) -> None:
    values, binary = read(post(client, {"inputs": [tensor()], **wish}, ROW))
    assert values["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}]
    assert struct.unpack("<2f", binary) == (0.5, -0.5)


def test_an_output_says_for_itself_what_it_is(client: httpx.Client) -> None:
    wish = {"parameters": {"binary_data_output": True}, "outputs": [{"name": "logits", "parameters": {"binary_data": False}}]}
    assert post(client, {"inputs": [tensor()], **wish}, ROW).json()["outputs"][0]["data"] == [0.5, -0.5]


def test_numbers_in_and_bytes_out(client: httpx.Client) -> None:
    call = {"inputs": [tensor(data=[0, 0, 0, 1, 0, 0], parameters={})], "parameters": {"binary_data_output": True}}
    assert read(client.post(INFER, json=call))[1] == struct.pack("<2f", 0.5, -0.5)


def test_several_tensors_follow_in_their_order_beside_one_of_numbers(client: httpx.Client) -> None:
    ids, hidden = np.array([[4, 5, 6]], "<i8"), np.full((1, 1, HIDDEN), 0.25, "<f4")
    inputs: list[dict[str, Any]] = [
        {"name": "hidden", "shape": [1, 1, HIDDEN], "datatype": "FP32", "parameters": {"binary_data_size": hidden.nbytes}},
        {"name": "cell", "shape": [1, 1, HIDDEN], "datatype": "FP32", "data": [0.5] * HIDDEN},
        {"name": "input_ids", "shape": [1, 3], "datatype": "INT64", "parameters": {"binary_data_size": ids.nbytes}},
    ]
    outputs = [
        {"name": name, "parameters": {"binary_data": binary}}
        for name, binary in (("next_cell", True), ("next_hidden", False), ("logits", True))
    ]
    values, binary = read(post(client, {"inputs": inputs, "outputs": outputs}, hidden.tobytes() + ids.tobytes(), "/v2/models/writer/infer"))
    assert [output["name"] for output in values["outputs"]] == ["next_cell", "next_hidden", "logits"]
    cell = np.frombuffer(binary[: 4 * HIDDEN], "<f4")
    logits = np.frombuffer(binary[4 * HIDDEN :], "<f4")

    numbers = [{**inputs[0], "data": [0.25] * HIDDEN, "parameters": {}}, inputs[1], {**inputs[2], "data": [4, 5, 6], "parameters": {}}]
    expected = {each["name"]: each["data"] for each in client.post("/v2/models/writer/infer", json={"inputs": numbers}).json()["outputs"]}
    np.testing.assert_allclose(cell, expected["next_cell"], atol=1e-6)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-6)
    np.testing.assert_allclose(values["outputs"][1]["data"], expected["next_hidden"], atol=1e-6)


@pytest.mark.parametrize("spaces", range(4))
def test_bytes_may_begin_anywhere(client: httpx.Client, spaces: int) -> None:
    text = json.dumps({"inputs": [tensor()]}).encode() + b" " * spaces
    reply = client.post(INFER, content=text + ROW, headers={HEADER: str(len(text))})
    assert reply.json()["outputs"][0]["data"] == [0.5, -0.5]


def test_the_header_may_say_that_all_is_json(client: httpx.Client) -> None:
    assert post(client, {"inputs": [tensor(data=[0] * 6, parameters={})]}, b"").status_code == 200


def test_a_body_is_unpacked_before_it_is_split(client: httpx.Client) -> None:
    text = json.dumps({"inputs": [tensor()]}).encode()
    reply = client.post(INFER, content=gzip.compress(text + ROW), headers={HEADER: str(len(text)), "Content-Encoding": "gzip"})
    assert reply.json()["outputs"][0]["data"] == [0.5, -0.5]


def test_a_deadline_in_microseconds(client: httpx.Client) -> None:
    assert post(client, {"inputs": [tensor()], "parameters": {"timeout": 10**7}}, ROW).status_code == 200
    assert post(client, {"inputs": [tensor()], "parameters": {"timeout": 0}}, ROW).status_code == 200


@pytest.mark.parametrize(
    ("inputs", "binary", "says"),
    [
        ([tensor()], ROW[:-1], "binary_data_size 24, and 23 bytes are left"),
        ([tensor()], ROW + b"\0", "1 bytes follow those of the inputs"),
        ([tensor(parameters={"binary_data_size": 20})], ROW[:20], "has 20 bytes, its shape [1, 6] needs 24"),
        ([tensor(shape=[2, 6])], ROW, "has 24 bytes, its shape [2, 6] needs 48"),
        ([tensor(shape=[10**18, 6])], ROW, "has 24 bytes"),
        ([tensor(datatype="FP64", parameters={"binary_data_size": 48})], ROW * 2, "datatype 'FP64', expected 'FP32'"),
        ([tensor(datatype="BYTES")], ROW, "datatype 'BYTES', expected 'FP32'"),
        ([tensor(parameters={"binary_data_size": -24})], ROW, "binary_data_size -24"),
        ([tensor(parameters={"binary_data_size": "24"})], ROW, "binary_data_size '24'"),
        ([tensor(parameters={"binary_data_size": True})], ROW, "binary_data_size True"),
        ([tensor(data=[1] * 6)], ROW, "both 'data' and a binary_data_size"),
        ([tensor(), tensor()], ROW * 2, "'x' twice"),
        ([tensor()], struct.pack("<6f", float("nan"), 0, 0, 0, 0, 0), "holds NaN, an infinity"),
        ([tensor()], struct.pack("<6f", float("inf"), 0, 0, 0, 0, 0), "holds NaN, an infinity"),
        (["x"], ROW, "an object with a 'name'"),
    ],
)
def test_wrong_bytes_are_told(client: httpx.Client, inputs: list[Any], binary: bytes, says: str) -> None:
    reply = post(client, {"inputs": inputs}, binary)
    assert (reply.status_code, says in reply.json()["error"]) == (400, True), reply.text


def test_ids_in_bytes_are_held_against_the_vocabulary(client: httpx.Client) -> None:
    inputs = [
        {"name": name, "shape": [1, 1], "datatype": "INT64", "parameters": {"binary_data_size": 8}}
        for name in ("input_ids", "attention_mask")
    ]
    reply = post(client, {"inputs": inputs}, struct.pack("<2q", 10**6, 1), "/v2/models/moods/infer")
    assert (reply.status_code, "'input_ids' holds 1000000, expected" in reply.json()["error"]) == (400, True)


@pytest.mark.parametrize("length", ["1000", "-1", "1e3", "ten", "9" * 5000, ""])
def test_a_length_that_cannot_be_is_told(client: httpx.Client, length: str) -> None:
    reply = post(client, {"inputs": [tensor()]}, ROW, **{HEADER: length})
    assert reply.status_code == 400
    assert HEADER in reply.json()["error"]


def test_a_length_in_the_middle_of_the_json_is_told(client: httpx.Client) -> None:
    assert "not JSON" in post(client, {"inputs": [tensor()]}, ROW, **{HEADER: "5"}).json()["error"]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (INFER, {"Content-Type": "application/octet-stream"}),
        (INFER, {"Content-Type": "text/plain", HEADER: "2"}),
        ("/v1/models/people/predict", {"Content-Type": "application/octet-stream", HEADER: "2"}),
    ],
)
def test_bytes_without_their_headers_or_elsewhere_are_refused(client: httpx.Client, path: str, headers: dict[str, str]) -> None:
    assert client.post(path, content=b"{}", headers=headers).status_code == 415


@pytest.mark.parametrize(
    "wish", [{"parameters": {"binary_data_output": 1}}, {"outputs": [{"name": "logits", "parameters": {"binary_data": "no"}}]}]
)
def test_a_wish_is_true_or_false(client: httpx.Client, wish: dict[str, Any]) -> None:
    reply = post(client, {"inputs": [tensor()], **wish}, ROW)
    assert (reply.status_code, "is true or false" in reply.json()["error"]) == (400, True)


def test_the_documentation_says_that_bytes_may_follow(client: httpx.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v2/models/{name}/infer"]["post"]
    assert list(operation["requestBody"]["content"]) == list(operation["responses"]["200"]["content"])
    assert "application/octet-stream" in operation["requestBody"]["content"]
    assert HEADER in [parameter.get("name") for parameter in operation["parameters"]]
