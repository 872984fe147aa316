"""The documentation is true: every path in it answers, every answer is as its schema says, every example works."""

import json
from typing import Any

import httpx
import jsonschema
import pytest

from deploy.serving.application import Application
from deploy.serving.guard import Guard
from deploy.serving.inference import Inference
from deploy.serving.life import Life
from deploy.serving.models import Models
from deploy.serving.settings import Settings
from deploy.serving.workers import Workers

VERSIONS = {"marks": "1", "moods": "1", "people": "3", "writer": "2"}


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    values: dict[str, Any] = client.get("/openapi.json").json()
    return values


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, operation) for path, methods in document["paths"].items() for method, operation in methods.items()]


def test_each_path_answers_as_its_schema_says(client: httpx.Client, document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        examples = {name: example["value"] for name, example in body["examples"].items()} if body else dict.fromkeys(VERSIONS)
        assert examples
        for model, example in examples.items():
            if body:
                check(document, body["schema"], example)
            reply = client.request(method.upper(), path.format(name=model, version=VERSIONS[model]), json=example)
            if path == "/invocations":
                # It wants a server of one model: test_invocations.py has one.
                assert reply.status_code == 400
                continue
            assert reply.status_code == 200, (path, reply.text)
            kind, content = next(iter(operation["responses"]["200"]["content"].items()))
            assert reply.headers["content-type"].partition(";")[0] == kind
            if kind == "application/json":
                check(document, content["schema"], reply.json())


def test_each_stream_is_of_events_as_their_schema_says(client: httpx.Client, document: dict[str, Any]) -> None:
    streams = [found for found in operations(document) if "text/event-stream" in found[2]["responses"]["200"]["content"]]
    assert [path for path, _, _ in streams] == ["/v1/completions", "/v1/models/{name}/generate"]
    for path, _, operation in streams:
        body = operation["requestBody"]["content"]["application/json"]
        call = {**body["examples"]["writer"]["value"], "stream": True}
        check(document, body["schema"], call)
        reply = client.post(path.format(name="writer"), json=call)
        assert reply.headers["content-type"].partition(";")[0] == "text/event-stream"
        schema = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]
        for line in filter(None, reply.text.splitlines()):
            event = {"data": line.removeprefix("data: ")}
            check(document, schema, event)
            if event["data"] != "[DONE]":
                _, value = schema["properties"]["data"]["anyOf"]
                check(document, value["contentSchema"], json.loads(event["data"]))


def test_each_model_has_examples_for_what_it_does(document: dict[str, Any]) -> None:
    found = {
        path: set(operation["requestBody"]["content"]["application/json"]["examples"])
        for path, _, operation in operations(document)
        if "requestBody" in operation
    }
    assert found["/v1/models/{name}/predict"] == {"marks", "moods", "people"}
    assert found["/v1/models/{name}/generate"] == found["/v1/completions"] == {"writer"}
    assert found["/v2/models/{name}/infer"] == found["/invocations/{name}"] == set(VERSIONS)


TENSORS = b'{"inputs": [{"name": "x", "shape": [1, 6], "datatype": "FP32", "parameters": {"binary_data_size": 24}}]}'
UPLOADED: dict[str, tuple[str, bytes]] = {
    "multipart/form-data": ("moods", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ngood\r\n--x--\r\n'),
    "image/*": ("marks", b"BM"),
    "text/plain": ("moods", b"good"),
    "text/csv": ("people", b"age,color\n40,blue\n"),
    "application/octet-stream": ("people", TENSORS + bytes(24)),
}
"""A model that takes a body of each media type beside JSON."""


def test_each_media_type_in_it_is_taken(client: httpx.Client, document: dict[str, Any]) -> None:
    found = set()
    for path, method, operation in operations(document):
        for kind in set(operation.get("requestBody", {}).get("content", {})) - {"application/json"}:
            found.add(kind)
            model, body = UPLOADED[kind]
            headers = {"Content-Type": kind.replace("*", "bmp") + ("; boundary=x" if "form" in kind else "")}
            if kind == "application/octet-stream":
                headers["Inference-Header-Content-Length"] = str(len(TENSORS))
            reply = client.request(method.upper(), path.format(name=model, version=VERSIONS[model]), content=body, headers=headers)
            # Not 415. A bitmap of two letters is no image.
            assert reply.status_code == (400 if path == "/invocations" else 422 if kind == "image/*" else 200), (path, reply.text)
    assert found == set(UPLOADED)


def test_each_answer_has_the_headers_that_it_says(client: httpx.Client, document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        reply = client.request(method.upper(), path.format(name="nobody", version="1"))
        for said in operation["responses"].values():
            assert all(name in reply.headers for name, header in said["headers"].items() if header.get("required", True))
            assert "X-Request-Id" in said["headers"]


def test_each_refusal_is_documented(client: httpx.Client, document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        unknown = client.request(method.upper(), path.format(name="nobody", version="1"), json={} if method == "post" else None)
        assert str(unknown.status_code) in operation["responses"]
        if unknown.status_code != 200:
            check(document, operation["responses"][str(unknown.status_code)]["content"]["application/json"]["schema"], unknown.json())


def test_each_route_is_in_it(document: dict[str, Any], tmp_path: Any) -> None:
    settings = Settings()
    inference = Inference(Models(tmp_path, Workers(settings)), Life(settings), settings)
    application = Application(inference, Guard())
    assert set(application.routes.paths) == set(document["paths"])


def test_it_names_models_with_labels_and_what_they_take(document: dict[str, Any]) -> None:
    models = {model["name"]: model for model in document["x-models"]}
    assert list(models) == ["marks", "moods", "people", "writer"]
    assert (models["moods"]["input"], models["moods"]["path"]) == ("text", "/v1/models/moods/predict")
    assert (models["writer"]["task"], models["writer"]["path"]) == ("language_modelling", "/v1/models/writer/generate")
    assert models["people"]["labels"] == ["high", "low"]
    row = document["components"]["schemas"]["people.Instance"]
    assert row["required"] == ["age", "color"]
    assert row["properties"]["height"]["type"] == ["number", "null"]
    with pytest.raises(jsonschema.ValidationError):
        check(document, row, {"age": 1, "color": "blue", "weight": 1})


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_pages_take_nothing_from_elsewhere(client: httpx.Client, path: str) -> None:
    page = client.get(path)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "https://" not in page.text
    assert page.text.count("http://") == page.text.count("http://www.w3.org/2000/svg")
