"""A request's body: its type, its bytes, and what it says as JSON."""

import json
import re
import zlib
from typing import Any, Final

import orjson

from deploy.serving.calls import Call, Refusal
from deploy.serving.origin import refuse_other_sites

JSON: Final = "application/json"
_JSON: Final = JSON.encode()
_CHARSET: Final = re.compile(rb"charset\s*=\s*\"?([^\";\s]*)", re.IGNORECASE)


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
    headers = call.headers
    kind = headers.get(b"content-type")
    if kind is None:
        refuse_other_sites(call)
    # A browser sends a form or plain text to any site without asking first, so that a page elsewhere could reach this server.
    elif kind != _JSON and kind.partition(b";")[0].strip().lower() != _JSON:
        raise Refusal(415, f"the body is {kind.decode('latin-1')}, expected JSON: send the header 'Content-Type: application/json'")
    if b"inference-header-content-length" in headers:
        raise Refusal(415, "the binary tensor extension is not supported: send tensors as JSON ('binary_data': false in the client)")
    body = unpacked(call, limit)
    try:
        values = _loads_with_nan(body) if nan and b"NaN" in body else orjson.loads(body)
    except (ValueError, TypeError, RecursionError) as error:
        outside = "Infinity is" if nan else "NaN and Infinity are"
        raise Refusal(400, f"the body is not JSON: {error} ({outside} not in JSON either)") from None
    if type(values) is not dict:
        raise Refusal(400, f"expected a JSON object, found {_noun(values)}")
    return values


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
