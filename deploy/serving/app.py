"""The ASGI application: the table of routes over the served models."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from deploy.serving.access import AccessLog
from deploy.serving.completions import Completions
from deploy.serving.documentation import Documentation, to_docs
from deploy.serving.endpoint import Endpoint, Operation, not_found
from deploy.serving.generations import Generations
from deploy.serving.life import Life
from deploy.serving.models import Models
from deploy.serving.open_inference import OpenInference
from deploy.serving.predictions import Predictions
from deploy.serving.settings import Settings
from deploy.serving.writers import Writers

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


class Counted:
    """The ASGI application inside, with its requests counted while they are in flight."""

    def __init__(self, app: ASGIApp, life: Life) -> None:
        self.app = app
        self.life = life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.life.in_flight += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.life.in_flight -= 1


def make_app(models: Models, life: Life, settings: Settings, lifespan: Lifespan | None = None) -> ASGIApp:
    """The application. `lifespan` runs while it does."""
    writers = Writers(settings.max_generations)
    operations = [*OpenInference(models, life, settings).operations(), *Predictions(models, settings).operations()]
    operations += [*Generations(models, writers, settings).operations(), *Completions(models, writers, settings).operations()]
    operations += Documentation(models, settings, operations.copy()).operations()
    root = Operation(method="GET", path="/", summary="To the documentation", handler=to_docs, reply="text/html")
    routes = [Route(operation.path, Endpoint(operation)) for operation in (*operations, root)]
    router = Router(routes, redirect_slashes=False, default=not_found, lifespan=lifespan)
    app = Counted(router, life)
    return AccessLog(app) if settings.access_log else app
