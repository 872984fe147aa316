"""A request's body as JSON."""

import zlib
from typing import Any, Final

import orjson

from deploy.serving.calls import Call, Refusal

_JSON: Final = b"application/json"


def read_object(call: Call, limit: int) -> dict[str, Any]:
    """The JSON object in the body, of at most `limit` bytes once it is unpacked. Raises Refusal: 400, 413 or 415."""
    headers = call.headers
    kind = headers.get(b"content-type", _JSON)
    # A browser sends a form or plain text to any site without asking first, so that a page elsewhere could reach this server.
    if kind != _JSON and kind.partition(b";")[0].strip().lower() != _JSON:
        raise Refusal(415, f"the body is {kind.decode('latin-1')}, expected JSON: send the header 'Content-Type: application/json'")
    if b"inference-header-content-length" in headers:
        raise Refusal(415, "the binary tensor extension is not supported: send tensors as JSON ('binary_data': false in the client)")
    try:
        values = orjson.loads(unpacked(call, limit))
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"the body is not JSON: {error} (NaN and Infinity are not in JSON either)") from None
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


def _noun(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a single value")
