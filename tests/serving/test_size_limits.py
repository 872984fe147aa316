"""How much one request may ask to be read, whatever way it comes."""

import base64
import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.serving.conftest import IMAGE, Served, end, start_server
from tests.texts import write_classifier, write_language_model


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server that takes 100 characters, 1,000 pixels, 8 rows and 20,000 bytes."""
    root = tmp_path_factory.mktemp("sizes")
    served = Served(root / "served")
    served.serve("marks", "1", IMAGE)
    served.serve("people", "1")
    write_classifier(served.folder / "moods" / "1")
    served.point("moods", "1")
    write_language_model(served.folder / "writer" / "1")
    served.point("writer", "1")
    limits = ("--max-characters", "100", "--max-pixels", "1000", "--max-rows", "8", "--max-body-bytes", "20000")
    running = start_server(served.folder, root / "server.log", *limits)
    yield running.client
    end(running)


def texts(*sizes: int) -> list[str]:
    return [("good " * size)[:size] for size in sizes]


def images(*sides: int) -> list[bytes]:
    files = []
    for side in sides:
        file = io.BytesIO()
        Image.new("L", (side, side)).save(file, "PNG")
        files.append(file.getvalue())
    return files


def in_base64(files: list[bytes]) -> list[str]:
    return [base64.b64encode(file).decode() for file in files]


def form(files: list[bytes]) -> dict[str, Any]:
    return {"files": [("file", ("a", file)) for file in files]}


def refused(reply: httpx.Response, says: str) -> bool:
    return reply.status_code == 413 and says in reply.json()["error"]


MANY_TEXTS = [
    ("/v1/models/moods/predict", lambda found: {"json": {"instances": found}}),
    ("/v1/models/moods/predict", lambda found: form([text.encode() for text in found])),
    ("/invocations/moods", lambda found: {"json": {"inputs": found}}),
]


@pytest.mark.parametrize(("path", "send"), MANY_TEXTS)
def test_characters_of_all_texts(client: httpx.Client, path: str, send: Any) -> None:
    assert client.post(path, **send(texts(50, 50))).status_code == 200
    assert refused(client.post(path, **send(texts(50, 51))), "101 characters at once, the limit is 100")
    assert refused(client.post(path, **send(texts(5000))), "5,000 characters at once")


def test_characters_of_a_text_that_is_the_body(client: httpx.Client) -> None:
    headers = {"Content-Type": "text/plain"}
    path = "/v1/models/moods/predict"
    assert client.post(path, content="é" * 100, headers=headers).status_code == 200, "characters, not bytes"
    assert refused(client.post(path, content="é" * 101, headers=headers), "101 characters")


@pytest.mark.parametrize(
    ("path", "send"),
    [
        ("/v1/models/writer/generate", lambda prompt: {"prompt": prompt, "max_tokens": 1}),
        ("/v1/models/writer/generate", lambda prompt: {"prompt": prompt, "max_tokens": 1, "stream": True}),
        ("/v1/completions", lambda prompt: {"model": "writer", "prompt": prompt, "max_tokens": 1}),
        ("/v1/completions", lambda prompt: {"model": "writer", "prompt": ["a", prompt], "max_tokens": 1}),
        ("/invocations/writer", lambda prompt: {"inputs": [prompt], "params": {"max_tokens": 1}}),
    ],
)
def test_characters_of_a_prompt(client: httpx.Client, path: str, send: Any) -> None:
    assert client.post(path, json=send("a" * 100)).status_code == 200
    assert refused(client.post(path, json=send("a" * 101)), "101 characters at once, the limit is 100")


@pytest.mark.parametrize(
    ("path", "send"),
    [
        ("/v1/models/marks/predict", lambda found: {"json": {"instances": in_base64(found)}}),
        ("/v1/models/marks/predict", form),
        ("/invocations/marks", lambda found: {"json": {"inputs": in_base64(found)}}),
    ],
)
def test_pixels_of_all_images(client: httpx.Client, path: str, send: Any) -> None:
    assert client.post(path, **send(images(22, 22))).status_code == 200
    assert refused(client.post(path, **send(images(22, 22, 22))), "the images up to item 2 have more than 1,000 pixels in all")
    assert refused(client.post(path, **send(images(40))), "up to item 0")


def test_pixels_of_an_image_that_is_the_body(client: httpx.Client) -> None:
    (large,) = images(40)
    assert refused(client.post("/v1/models/marks/predict", content=large, headers={"Content-Type": "image/png"}), "1,000 pixels")


ROW = {"age": 40, "color": "blue"}
CSV = b"age,height,color\n" + b"40,1.7,blue\n" * 9
TENSOR = {"name": "x", "shape": [9, 6], "datatype": "FP32"}
BINARY = json.dumps({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 9 * 24}}]}).encode()


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/models/people/predict", {"json": {"instances": [ROW] * 9}}),
        ("/v1/models/people/predict", {"content": CSV, "headers": {"Content-Type": "text/csv"}}),
        ("/v1/models/people/predict", {"files": {"file": CSV}}),
        ("/v1/models/moods/predict", form([b"good"] * 9)),
        ("/invocations/people", {"json": {"dataframe_records": [ROW] * 9}}),
        ("/invocations/people", {"content": CSV, "headers": {"Content-Type": "text/csv"}}),
        ("/v2/models/people/infer", {"json": {"inputs": [{**TENSOR, "data": [0] * 54}]}}),
        (
            "/v2/models/people/infer",
            {"content": BINARY + bytes(9 * 24), "headers": {"Inference-Header-Content-Length": str(len(BINARY))}},
        ),
        ("/v1/completions", {"json": {"model": "writer", "prompt": ["a"] * 9}}),
    ],
)
def test_rows(client: httpx.Client, path: str, sent: dict[str, Any]) -> None:
    reply = client.post(path, **sent)
    assert reply.status_code == 413, reply.text


@pytest.mark.parametrize("kind", ["application/json", "text/csv", "multipart/form-data; boundary=b"])
@pytest.mark.parametrize("path", ["/v1/models/people/predict", "/invocations/people", "/v2/models/people/infer"])
def test_bytes_as_they_come_and_unpacked(client: httpx.Client, path: str, kind: str) -> None:
    headers = {"Content-Type": kind}
    assert refused(client.post(path, content=b" " * 20_001, headers=headers), "larger than 20,000 bytes")
    bomb = client.post(path, content=gzip.compress(b" " * 5_000_000), headers={**headers, "Content-Encoding": "gzip"})
    assert bomb.status_code == 415 or refused(bomb, "larger than 20,000 bytes when it is unpacked"), bomb.text
    tensors = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "9", "Content-Encoding": "gzip"}
    assert refused(client.post("/v2/models/people/infer", content=gzip.compress(bytes(5_000_000)), headers=tensors), "when it is unpacked")
