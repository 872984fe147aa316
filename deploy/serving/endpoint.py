"""The table of routes, and what stands around each handler."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deploy.serving.answers import Refusal

Handler = Callable[[Request], Awaitable[Response]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One route: the server routes by it, and `/openapi.json` is made from it, so that the two cannot differ.

    `request`, `reply` and `events` name schemas of `deploy.serving.schemas`; `reply` may be a media type instead, and
    `events` are what it becomes where a request asks for a stream.
    `refusals` are the statuses that the route answers beside 200.
    """

    method: Literal["GET", "POST"]
    path: str
    summary: str
    handler: Handler
    reply: str
    request: str | None = None
    events: str | None = None
    refusals: tuple[int, ...] = ()


class Endpoint:
    """The ASGI application of an operation: it refuses other methods, and turns whatever is raised into an answer.

    Starlette's own exception middleware does the same at two more calls for each request, which costs a tenth of the
    throughput of a small model.
    """

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.methods = ("GET", "HEAD") if operation.method == "GET" else (operation.method,)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._respond(Request(scope, receive))
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        try:
            if request.method not in self.methods:
                allowed = ", ".join(self.methods)
                raise Refusal(405, f"{request.method} is not allowed here, only {allowed}", {"Allow": allowed})
            return await self.operation.handler(request)
        except Refusal as refusal:
            return refusal.answer()
        except ClientDisconnect:
            raise
        except Exception:
            logger.exception("%s %r failed", request.method, request.url.path)
            return Refusal(500, "the server failed on this request; its log says why").answer()


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application for every path that no operation has."""
    await Refusal(404, f"there is no {scope['path']}; /docs lists what there is").answer()(scope, receive, send)
