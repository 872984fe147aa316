"""What stands around a handler."""

import asyncio

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from deploy.serving.endpoint import Endpoint, Operation


async def fail(_: Request) -> Response:
    raise RuntimeError("the secret is in /etc/secret")


def test_a_failure_of_the_server_tells_the_log_and_not_the_client(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint(Operation(method="GET", path="/", summary="Fails", handler=fail, reply="Error"))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(endpoint), base_url="http://test") as client:
            return await client.get("/")

    reply = asyncio.run(ask())
    assert reply.status_code == 500
    assert reply.json() == {"error": "the server failed on this request; its log says why"}
    assert "the secret" in caplog.text
