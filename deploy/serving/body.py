"""A request's body: its type, its bytes, and what it says as JSON, which bytes of tensors may follow."""

import json
import re
import zlib
from typing import Any, Final

import orjson

from deploy.serving.calls import Call, Refusal
from deploy.serving.origin import refuse_other_sites

JSON: Final = "application/json"
_JSON: Final = JSON.encode()
_BINARY: Final = b"application/octet-stream"
_CHARSET: Final = re.compile(rb"charset\s*=\s*\"?([^\";\s]*)", re.IGNORECASE)
_MOST_DIGITS: Final = 18

HEADER_LENGTH: Final = b"inference-header-content-length"
"""Bytes of JSON at a body's beginning; what follows are tensors. Of requests and of replies."""


def media_type(call: Call) -> str:
    """The body's type in lower case, JSON where none is said. Raises Refusal (415) for one in another encoding than UTF-8."""
    kind, _, options = call.headers.get(b"content-type", _JSON).partition(b";")
    charset = _CHARSET.search(options) if options else None
    if charset and charset[1].lower() not in (b"utf-8", b"utf8", b"us-ascii"):
        raise Refusal(415, f"the body is in {charset[1].decode('latin-1')}: send UTF-8")
    return kind.strip().lower().decode("latin-1")


def read_object(call: Call, limit: int, *, nan: bool = False) -> dict[str, Any]:
    """The JSON object in the body, of at most `limit` bytes once it is unpacked. With `nan`, NaN is read too, as null.

    Raises Refusal: 400, 403, 413 or 415.
    """
    kind = call.headers.get(b"content-type")
    if kind is None:
        refuse_other_sites(call)
    # A browser sends a form or plain text to any site without asking first, so that a page elsewhere could reach this server.
    elif kind != _JSON and kind.partition(b";")[0].strip().lower() != _JSON:
        raise Refusal(415, f"the body is {kind.decode('latin-1')}, expected JSON: send the header 'Content-Type: application/json'")
    return _parsed(unpacked(call, limit), nan=nan)


def read_object_and_bytes(call: Call, limit: int) -> tuple[dict[str, Any], memoryview]:
    """The JSON object at the body's beginning, and the bytes that follow it, by the protocol's "Binary Tensor Data" extension.

    The header says how long the JSON is; without it, the body is JSON alone. Raises Refusal as `read_object` does.
    """
    length = call.headers.get(HEADER_LENGTH)
    if length is None:
        return read_object(call, limit), memoryview(b"")
    # Nor can a page elsewhere send that header without asking first.
    kind = call.headers.get(b"content-type", _BINARY)
    if kind.partition(b";")[0].strip().lower() not in (_BINARY, _JSON):
        raise Refusal(415, f"the body is {kind.decode('latin-1')}: send the header 'Content-Type: application/octet-stream'")
    body = memoryview(unpacked(call, limit))
    if not length.isdigit() or len(length) > _MOST_DIGITS or int(length) > len(body):
        raise Refusal(
            400,
            f"the header Inference-Header-Content-Length is {length.decode('latin-1')!r}, expected at most the body's {len(body):,} bytes",
        )
    size = int(length)
    return _parsed(body[:size]), body[size:]


def unpacked(call: Call, limit: int) -> bytes:
    """The body, out of gzip or deflate where it came so. Raises Refusal: 400, 413 or 415."""
    encoding = call.headers.get(b"content-encoding")
    if encoding is None or encoding.lower() == b"identity":
        return call.body
    if encoding.lower() not in (b"gzip", b"x-gzip", b"deflate"):
        raise Refusal(
            415, f"the body is encoded as {encoding.decode('latin-1')}: send it as it is, or in gzip", {"Accept-Encoding": "gzip"}
        )
    # 32 lets zlib tell the two formats apart.
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        body = unpacker.decompress(call.body, limit + 1)
    except zlib.error:
        raise Refusal(400, f"the body is not {encoding.decode('latin-1')}") from None
    if len(body) > limit:
        raise Refusal(413, f"the body is larger than {limit:,} bytes when it is unpacked: send less at once")
    if not unpacker.eof:
        raise Refusal(400, f"the body ends in the middle of its {encoding.decode('latin-1')}")
    return body


def _parsed(text: bytes | memoryview, *, nan: bool = False) -> dict[str, Any]:
    try:
        values = _loads_with_nan(bytes(text)) if nan and b"NaN" in text else orjson.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        outside = "Infinity is" if nan else "NaN and Infinity are"
        raise Refusal(400, f"the body is not JSON: {error} ({outside} not in JSON either)") from None
    if type(values) is not dict:
        raise Refusal(400, f"expected a JSON object, found {_noun(values)}")
    return values


def _loads_with_nan(body: bytes) -> Any:
    """JSON as Python's own writer has it. Raises ValueError, TypeError and RecursionError."""
    values = json.loads(body.decode(), parse_constant=_missing)
    # What orjson would not have read: half of a surrogate pair, which no error could quote, or a whole number of more than 64 bits.
    orjson.dumps(values)
    return values


def _missing(constant: str) -> None:
    if constant != "NaN":
        raise ValueError(f"{constant} is no value of a cell")


def _noun(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a single value")
