"""Reading a request's body: within the limit, and JSON."""

from typing import Any, Final

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from deploy.serving.answers import Refusal

_JSON: Final = b"application/json"


async def read_object(request: Request, limit: int) -> dict[str, Any]:
    """The JSON object in the body, of at most `limit` bytes. Raises Refusal: 400, 413 or 415."""
    # Starlette's Headers searches the list at each look-up; this is the hottest path there is.
    _check_headers(dict(request.scope["headers"]), limit)
    body = await _read(request.receive, limit)
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"the body is not JSON: {error} (NaN and Infinity are not in JSON either)") from None
    if type(values) is not dict:
        raise Refusal(400, f"expected a JSON object, found {_noun(values)}")
    return values


def _check_headers(headers: dict[bytes, bytes], limit: int) -> None:
    kind = headers.get(b"content-type", _JSON)
    # A browser sends a form or plain text to any site without asking first, so that a page elsewhere could reach this server.
    if kind != _JSON and kind.partition(b";")[0].strip().lower() != _JSON:
        raise Refusal(415, f"the body is {kind.decode('latin-1')}, expected JSON: send the header 'Content-Type: application/json'")
    if b"content-encoding" in headers:
        raise Refusal(415, f"the body is encoded as {headers[b'content-encoding'].decode('latin-1')}: send it as it is")
    if b"inference-header-content-length" in headers:
        raise Refusal(415, "the binary tensor extension is not supported: send tensors as JSON ('binary_data': false in the client)")
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)


async def _read(receive: Receive, limit: int) -> bytes:
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"the body is larger than {limit:,} bytes: send less at once")


def _noun(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a single value")
