"""The pages for people, and `/openapi.json`, from which a browser draws them without anything from elsewhere."""

import base64
import hashlib
import re
from importlib import metadata, resources
from typing import Final

from deploy.serving.calls import Answer, Call
from deploy.serving.models import Models
from deploy.serving.openapi import openapi_document
from deploy.serving.routes import Operation
from deploy.serving.settings import Settings

_HTML: Final = "text/html"
_INLINE: Final = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


class Documentation:
    """What tells people and programs how to call the other operations, which are handed in, and itself."""

    def __init__(self, models: Models, settings: Settings, others: list[Operation]) -> None:
        self.models = models
        self.settings = settings
        self.others = others
        self.version = metadata.version("maasflow")
        self._models_page = _page("page.html")
        self._routes_page = _page("docs.html")

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET", path="/", summary="The models, and a form to try each", handler=self.models_page, reply=_HTML, scope=None
            ),
            Operation(
                method="GET", path="/docs", summary="This documentation, for people", handler=self.routes_page, reply=_HTML, scope=None
            ),
            Operation(
                method="GET", path="/openapi.json", summary="This documentation, for programs", handler=self.document, reply="Document"
            ),
        ]

    async def document(self, call: Call) -> Answer:
        """With the models that the caller may ask."""
        entries = [self.models[name] for name in sorted(self.models) if call.may_ask(name)]
        models = [entry.model for entry in entries if entry.model]
        versions = [version for entry in entries for version in entry.models]
        return Answer(openapi_document([*self.others, *self.operations()], models, versions, self.version, self.settings))

    async def models_page(self, _: Call) -> Answer:
        return self._models_page

    async def routes_page(self, _: Call) -> Answer:
        return self._routes_page


def _page(name: str) -> Answer:
    """A file beside this one, whose own style and script alone may run: no markup that found its way into it could do anything."""
    html = (resources.files("deploy.serving") / name).read_text("utf-8")
    allowed = {tag: f"'sha256-{_digest(content)}'" for tag, content in _INLINE.findall(html)}
    policy = (
        f"default-src 'none'; style-src {allowed['style']}; script-src {allowed['script']}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
    # A browser asks again each time, so that after an update of the server none has the old page.
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return Answer(html.encode(), headers=headers, media_type="text/html; charset=utf-8")


def _digest(content: str) -> str:
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
