"""What goes back to a client: JSON, or a refusal in the one shape that all errors have."""

from typing import Any

import orjson
from starlette.responses import Response

# A refusal may quote what the client sent, which may be as large as a body.
_LONGEST_TEXT = 500


class Answer(Response):
    """A JSON body. Arrays of numpy are written as (nested) lists, NaN and infinity as null."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


class Refusal(Exception):  # noqa: N818 - it is the client's error, not the server's
    """A request that is not fulfilled. Its text is sent to the client, so it tells nothing of the server's inside."""

    def __init__(self, status: int, what: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(what)
        self.status = status
        self.what = what if len(what) <= _LONGEST_TEXT else f"{what[:_LONGEST_TEXT]}…"
        self.headers = headers

    def answer(self) -> Answer:
        """`{"error": …}`, as the Open Inference Protocol v2 has it for every error."""
        return Answer({"error": self.what}, self.status, self.headers)
