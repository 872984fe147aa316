"""Files as inputs: forms as clients really send them, and files as whole bodies."""

import io
import struct
import zlib
from typing import Any

import httpx
import pytest
from PIL import Image

ROWS = b"age,height,color\n40,1.7,blue\n10,,blue\n"
Files = list[tuple[str, Any]]


def image(value: int = 255, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), value).save(file, kind)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG that says its size, and ends where its pixels would begin."""
    header = b"IHDR" + struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">2I", zlib.crc32(header), 100) + b"IDAT"


def upload(client: httpx.Client, model: str, files: Files) -> httpx.Response:
    return client.post(f"/v1/models/{model}/predict", files=files)


def send(client: httpx.Client, model: str, content: bytes, kind: str, **headers: str) -> httpx.Response:
    return client.post(f"/v1/models/{model}/predict", content=content, headers={"Content-Type": kind, **headers})


def labels(reply: httpx.Response) -> list[str]:
    assert reply.status_code == 200, reply.text
    return [prediction["label"] for prediction in reply.json()["predictions"]]


def test_images_in_a_form(client: httpx.Client) -> None:
    files: Files = [("file", ("a.png", image(), "image/png")), ("image", ("", image(0))), ("file", ("c.jpg", image(kind="JPEG")))]
    assert labels(upload(client, "marks", files)) == ["high", "low", "high"]


def test_texts_in_a_form(client: httpx.Client) -> None:
    files: Files = [("file", ("a.txt", b"\xef\xbb\xbfgood day")), ("text", (None, b"bad")), ("file", ("c.txt", "你好 good".encode()))]
    assert labels(upload(client, "moods", files)) == ["good", "bad", "good"]


def test_a_table_in_a_form(client: httpx.Client) -> None:
    assert labels(upload(client, "people", [("file", ("rows.csv", ROWS, "text/csv"))])) == ["high", "low"]
    assert labels(upload(client, "people", [("age", (None, "40")), ("height", (None, "")), ("color", (None, "blue"))])) == ["high"]


@pytest.mark.parametrize(
    ("model", "content", "kind", "expected"),
    [
        ("marks", image(), "image/png", ["high"]),
        ("marks", image(0, "JPEG"), "IMAGE/JPEG", ["low"]),
        ("moods", b"a good day", "text/plain", ["good"]),
        ("moods", b"a bad day", "text/plain; charset=UTF-8", ["bad"]),
        ("people", ROWS, "text/csv", ["high", "low"]),
    ],
)
def test_a_file_as_the_body(client: httpx.Client, model: str, content: bytes, kind: str, expected: list[str]) -> None:
    assert labels(send(client, model, content, kind)) == expected


@pytest.mark.parametrize(
    ("model", "files", "status", "says"),
    [
        ("marks", [("file", ("a.png", image())), ("file", ("b.png", b""))], 422, "item 1: the image cannot be decoded (no bytes"),
        ("marks", [("file", ("a.png", image())), ("file", ("b.png", b"no image"))], 422, "item 1: the image cannot be decoded (8 bytes"),
        ("marks", [("file", ("a.png", image())), ("file", ("b.png", image()[:50]))], 422, "item 1: the image cannot be decoded"),
        ("marks", [("file", ("a.ico", image(kind="ICO")))], 422, "item 0: the image cannot be decoded"),
        ("marks", [("picture", ("a.png", image()))], 400, "the form has 'picture', expected 'file' for each image"),
        ("marks", [("file", ("a.png", image()))] * 9, 413, "more than 8 parts"),
        ("moods", [("file", ("a.txt", b"good")), ("file", ("b.txt", "grün".encode("latin-1")))], 422, "item 1: the text is not UTF-8"),
        ("moods", [("file", ("a.txt", b""))], 422, "item 0: the text is empty"),
        ("people", [("file", ("a.csv", ROWS)), ("file", ("b.csv", ROWS))], 400, "one file of CSV is expected, the form has 2 parts"),
        ("people", [("age", (None, "40")), ("age", (None, "41"))], 400, "the form has 'age' twice"),
        ("people", [("age", (None, "40")), ("weight", (None, "41"))], 422, "item 0: unknown key 'weight'"),
        ("people", [("file", ("a.csv", b"age\n40\n"))], 422, "item 0: 'color' is missing"),
        ("people", [("file", ("a.csv", "age,color\n40,grün\n".encode("latin-1")))], 400, "not UTF-8"),
        ("people", [("file", ("a.csv", b""))], 400, "the CSV is empty"),
    ],
)
def test_a_wrong_form_is_refused(client: httpx.Client, model: str, files: Files, status: int, says: str) -> None:
    reply = upload(client, model, files)
    assert (reply.status_code, says in reply.json()["error"]) == (status, True), reply.text


@pytest.mark.parametrize(
    ("content", "boundary", "says"),
    [
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ngood\r\n--x--\r\n', "; boundary=y", "not a form with the boundary"),
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ngood\r\n--x--\r\n', "", "has no boundary"),
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ngood\r\n--x', "; boundary=x", "ends before its last boundary"),
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ngo', "; boundary=x", "ends before its last boundary"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\ngood\r\n--x--\r\n", "; boundary=x", "part 0 of the form has no name"),
        (b"--x\r\n\r\ngood\r\n--x--\r\n", "; boundary=x", "part 0 of the form has no name"),
        (b"--x--\r\n", "; boundary=x", "at least one"),
        (b"", "; boundary=x", "ends before its last boundary"),
        (b"--x\r\n" + b"A: b\r\n" * 9 + b"\r\ngood\r\n--x--\r\n", "; boundary=x", "header count"),
        (b"--x\r\nA: " + b"b" * 5000 + b"\r\n\r\ngood\r\n--x--\r\n", "; boundary=x", "header size"),
        (b"--x\r\n", f"; boundary={'x' * 300}", "not a form with the boundary"),
    ],
)
def test_a_broken_form_is_refused(client: httpx.Client, content: bytes, boundary: str, says: str) -> None:
    reply = send(client, "moods", content, "multipart/form-data" + boundary)
    assert (reply.status_code, says.lower() in reply.json()["error"].lower()) == (400, True), reply.text


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("moods", "image/png"),
        ("marks", "text/plain"),
        ("people", "text/plain"),
        ("moods", "text/csv"),
        ("moods", "text/plain; charset=latin-1"),
    ],
)
def test_a_type_that_the_model_does_not_take_is_refused(client: httpx.Client, model: str, kind: str) -> None:
    assert send(client, model, b"good", kind).status_code == 415


@pytest.mark.parametrize("size", [(10_000, 10_000), (100_000, 100_000), (7_100, 7_100)])
def test_a_bomb_of_pixels_is_refused_before_it_is_decoded(client: httpx.Client, size: tuple[int, int]) -> None:
    """It has no pixels at all: who began to decode it would say that it is broken."""
    reply = upload(client, "marks", [("file", ("a.png", image())), ("file", ("b.png", bomb(*size)))])
    assert reply.status_code == 422
    assert reply.json()["error"].startswith("item 1: the image has ")
    assert "the limit of 50,000,000" in reply.json()["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://HOST"}, 200),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "http://HOST.elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_a_page_of_another_site_may_send_no_file(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    headers = {name: value.replace("HOST", client.base_url.netloc.decode()) for name, value in headers.items()}
    assert send(client, "moods", b"good", "text/plain", **headers).status_code == status
    form = client.post("/v1/models/moods/predict", files={"file": b"good"}, headers=headers)
    assert form.status_code == status
    # What a page sends as a Blob of no type.
    untyped = client.post("/v1/models/moods/predict", content=b'{"instances": ["good"]}', headers=headers)
    assert untyped.status_code == status
