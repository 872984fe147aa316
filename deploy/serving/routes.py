"""The table of routes."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import unquote

from deploy.serving.calls import Answer, Call, Stream
from tasks.core.api_keys import Scope

Handler = Callable[[Call], Awaitable[Answer | Stream]]
Found = tuple[Mapping[str, "Operation"], Mapping[str, str]]
"""The operations of a path by method, and what it says where their paths have names in braces."""

OCTETS: Final = "application/octet-stream"

_REMEMBERED: Final = 4096
_LONGEST_REMEMBERED: Final = 256


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One route: the server routes by it, and `/openapi.json` is made from it, so that the two cannot differ.

    `request`, `reply` and `events` name schemas of `deploy.serving.schemas`; `reply` may be a media type instead, and
    `events` are what it becomes where a request asks for a stream.
    `uploads` are the media types that it takes beside JSON.
    `binary` says that both are also understood with tensors as bytes behind the JSON.
    `refusals` are the statuses that the route answers beside 200.
    """

    method: Literal["GET", "POST"]
    path: str
    summary: str
    handler: Handler
    reply: str
    request: str | None = None
    events: str | None = None
    uploads: tuple[str, ...] = ()
    binary: bool = False
    refusals: tuple[int, ...] = ()
    scope: Scope | None = "infer"
    """What an API key must be for, where keys are demanded; None where none is needed."""


class Routes:
    """Operations by path. Paths that were asked for lately are remembered, as most requests have one of few."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._by_path: dict[str, dict[str, Operation]] = {}
        for operation in operations:
            self._by_path.setdefault(operation.path, {})[operation.method] = operation
        self._patterns = [(_pattern(path), found) for path, found in self._by_path.items()]
        self._recent = lru_cache(_REMEMBERED)(self._search)

    @property
    def paths(self) -> Iterable[str]:
        return self._by_path

    def find(self, path: str) -> Found | None:
        """What is at a path as it was sent; None where nothing is."""
        return self._recent(path) if len(path) <= _LONGEST_REMEMBERED else self._search(path)

    def _search(self, path: str) -> Found | None:
        for pattern, operations in self._patterns:
            if match := pattern.fullmatch(path):
                return operations, {name: unquote(value) for name, value in match.groupdict().items()}
        return None


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"{(\w+)}", path)
    return re.compile("".join(f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)))
