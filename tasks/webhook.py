"""MLflow's webhooks: an event of the registry makes the deployer look at once rather than at its next turn.

An event that is lost, late or told twice does no harm, since nothing but the look depends on it: what the event says is not read.
MLflow signs as Standard Webhooks do (https://www.standardwebhooks.com), under header names of its own.
"""

import base64
import hashlib
import hmac
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Final, Self

from tasks.core.errors import ConfigError

SECRET: Final = "MAASFLOW_WEBHOOK_SECRET"  # noqa: S105 - a name
"""The variable with the secret that MLflow was given for the webhook."""
_OLDEST: Final = 300.0
"""Seconds that an event may be off this machine's clock, as MLflow's documentation has it."""
_MOST_BYTES: Final = 1 << 20
_PATIENCE: Final = 10.0
"""Seconds after which a sender is given up."""

_log = logging.getLogger("maasflow.deploy")


class RefusedError(Exception):
    """An event that is not MLflow's. Its text goes to the sender."""


def check_signature(secret: str, delivery: str, moment: str, signature: str, body: bytes, now: float) -> None:
    """Raises RefusedError unless the event was signed with the secret, just now: `v1,` and the base64 of an HMAC-SHA256."""
    try:
        age = abs(now - int(moment))
    except ValueError:
        raise RefusedError("X-MLflow-Timestamp is not a Unix time") from None
    if age > _OLDEST:
        raise RefusedError(f"X-MLflow-Timestamp is more than {_OLDEST:.0f} s away from this machine's clock")
    digest = hmac.new(secret.encode(), f"{delivery}.{moment}.".encode() + body, hashlib.sha256).digest()
    if not hmac.compare_digest(f"v1,{base64.b64encode(digest).decode()}".encode(), signature.encode()):
        raise RefusedError(f"X-MLflow-Signature does not fit: is the webhook's secret the one in {SECRET}?")


class Webhook(TCPServer):
    """Takes events, one sender at a time: one that keeps the others waiting costs them no more than the deployer's usual turn."""

    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], secret: str, on_event: Callable[[], None]) -> None:
        self.secret = secret
        self.on_event = on_event
        self.refusing = False
        """Whether the last event was refused, which is logged once."""
        super().__init__(address, _Handler)

    @classmethod
    @contextmanager
    def at(cls, place: str, calls: threading.Event) -> Iterator[Self]:
        """Listen on `HOST:PORT` in a thread, and set `calls` at each event. Raises ConfigError."""
        secret = os.environ.get(SECRET)
        if not secret:
            raise ConfigError(f"webhooks need a secret, and {SECRET} is not set", "give it the secret that MLflow has for the webhook")
        host, _, port = place.rpartition(":")
        try:
            if not host:
                # The system would take that for all of its addresses.
                raise ValueError("it names no address")
            server = cls((host, int(port)), secret, calls.set)
        except (OSError, ValueError, OverflowError) as error:
            raise ConfigError(f"webhooks cannot be taken on '{place}': {error}", "for example --webhook 127.0.0.1:8080") from None
        with server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def setup(self) -> None:
        super().setup()
        # A time limit on each read would let a sender go on for ever, byte by byte.
        self._end = threading.Timer(_PATIENCE, self._give_up)
        self._end.start()

    def finish(self) -> None:
        self._end.cancel()
        super().finish()

    def _give_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self._answer(HTTPStatus.LENGTH_REQUIRED, "an event has a Content-Length")
        elif len(length) > 9 or int(length) > _MOST_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"an event has at most {_MOST_BYTES:,} bytes")
        else:
            self._take(self.rfile.read(int(length)))

    def _take(self, body: bytes) -> None:
        delivery, moment, signature = (self.headers.get(f"X-MLflow-{name}", "") for name in ("Delivery-Id", "Timestamp", "Signature"))
        try:
            check_signature(self.server.secret, delivery, moment, signature, body, time.time())
        except RefusedError as error:
            if not self.server.refusing:
                _log.warning("a webhook's event was refused: %s", error)
            self.server.refusing = True
            self._answer(HTTPStatus.UNAUTHORIZED, str(error))
        else:
            self.server.refusing = False
            self.server.on_event()
            self._answer(HTTPStatus.OK, "the deployer looks")

    def _answer(self, status: HTTPStatus, text: str) -> None:
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing for each request: what is refused is told above."""
