"""`/openapi.json`, and the page at `/docs` that a browser renders from it, without anything from elsewhere."""

from importlib import metadata, resources
from typing import Final

from deploy.serving.calls import Answer, Call
from deploy.serving.models import Models
from deploy.serving.openapi import openapi_document
from deploy.serving.routes import Operation
from deploy.serving.settings import Settings

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Documentation:
    """What tells people and programs how to call the other operations, which are handed in, and itself."""

    def __init__(self, models: Models, settings: Settings, others: list[Operation]) -> None:
        self.models = models
        self.settings = settings
        self.others = others
        self.version = metadata.version("maasflow")
        self.html = (resources.files("deploy.serving") / "docs.html").read_bytes()

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET", path="/docs", summary="This documentation, for people", handler=self.page, reply="text/html", scope=None
            ),
            Operation(
                method="GET", path="/openapi.json", summary="This documentation, for programs", handler=self.document, reply="Document"
            ),
        ]

    async def document(self, _: Call) -> Answer:
        return Answer(openapi_document([*self.others, *self.operations()], self.models.running(), self.version, self.settings))

    async def page(self, _: Call) -> Answer:
        return Answer(self.html, headers=_HEADERS, media_type="text/html; charset=utf-8")


async def to_docs(_: Call) -> Answer:
    return Answer(b"", 307, {"location": "/docs"}, "text/plain")
