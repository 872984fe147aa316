"""A request that was read, and what goes back: JSON, a stream, or a refusal in the one shape that all errors have."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from tasks.core.api_keys import ApiKey

if TYPE_CHECKING:
    from deploy.serving.contest import Contest
    from deploy.serving.routes import Operation
    from deploy.serving.trace import Trace

# A refusal may quote what the client sent, which may be as large as a body.
_LONGEST_TEXT: Final = 500
_JSON: Final = "application/json"
_AGAIN: Final = {"retry-after": "1"}
"""For what may have passed in a second, where nothing says more."""


class Call:
    """A request. Names of headers are in lower case; `body` is empty until all of it was read."""

    __slots__ = (
        "body",
        "chunked",
        "client",
        "contest",
        "headers",
        "keep_alive",
        "key",
        "method",
        "operation",
        "params",
        "path",
        "refusal",
        "request_id",
        "spend",
        "trace",
    )

    def __init__(self, method: str, path: str, headers: dict[bytes, bytes], client: str) -> None:
        self.method = method
        self.path = path
        """As it was sent, without the query."""
        self.headers = headers
        self.client = client
        self.request_id = ""
        """What it is called in its answer and in the log."""
        self.body = b""
        self.params: Mapping[str, str] = {}
        """What its path says where the operation's has a name in braces."""
        self.operation: Operation | None = None
        self.key: ApiKey | None = None
        """Whose call it is; None where nobody has to say."""
        self.spend: Callable[[int], Awaitable[None]] | None = None
        """Counts the compute units that it takes, where its key has only so many. Raises Refusal (429)."""
        self.contest: Contest | None = None
        """That in which the challenger was to answer it."""
        self.refusal: Refusal | None = None
        """Known before the body was read."""
        self.trace: Trace | None = None
        """Where traces are sent somewhere, its own."""
        self.keep_alive = True
        """Whether the connection may go on after it."""
        self.chunked = True
        """Whether the client understands an answer in chunks, as HTTP/1.0 does not."""

    def header(self, name: bytes) -> str:
        """Its value, or an empty text."""
        return self.headers.get(name, b"").decode("latin-1")

    def may_ask(self, model: str) -> bool:
        """Whether its key may; without keys everyone may."""
        return self.key is None or self.key.may_ask(model)


class Answer:
    """A whole body. JSON, where arrays of numpy are written as (nested) lists, NaN and infinity as null; bytes are sent as they are."""

    __slots__ = ("body", "headers", "media_type", "status")

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = _JSON) -> None:
        self.body: bytes = content if type(content) is bytes else orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
        self.status = status
        self.headers = headers or {}
        self.media_type = media_type


class Stream:
    """A body that is sent piece by piece, each as it comes; the pieces are closed at its end, whichever it is."""

    __slots__ = ("headers", "media_type", "pieces", "status")

    def __init__(self, pieces: AsyncGenerator[bytes], media_type: str, headers: Mapping[str, str]) -> None:
        self.pieces = pieces
        self.media_type = media_type
        self.headers = headers
        self.status = 200


class Refusal(Exception):  # noqa: N818 - it is the client's error, not the server's
    """A request that is not fulfilled. Its text is sent to the client, so it tells nothing of the server's inside."""

    def __init__(self, status: int, what: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(what)
        self.status = status
        self.what = what if len(what) <= _LONGEST_TEXT else f"{what[:_LONGEST_TEXT]}…"
        self.headers = _AGAIN if status == 503 and headers is None else headers

    def answer(self) -> Answer:
        """`{"error": …}`, as the Open Inference Protocol v2 has it for every error."""
        return Answer({"error": self.what}, self.status, self.headers)
