"""From a connection's bytes to calls: HTTP/1.1 messages (RFC 9112), within limits."""

from collections.abc import Callable
from typing import Final

import httptools

from deploy.serving.calls import Call, Refusal

_LONGEST_TARGET: Final = 8 * 2**10
_LARGEST_HEAD: Final = 32 * 2**10
_HOP_BY_HOP: Final = (b"connection", b"upgrade", b"http2-settings")


class Reader:
    """Reads one call after the other.

    `admit` is asked once a call's headers are complete, and may raise Refusal; `ready` is given every call that was read, one that
    was refused too, without its body. `wanted` is called where the client waits to be told that its body is wanted.
    """

    def __init__(
        self, limit: int, admit: Callable[[Call], None], ready: Callable[[Call], None], wanted: Callable[[], None], client: str
    ) -> None:
        self.limit = limit
        self.admit = admit
        self.ready = ready
        self.wanted = wanted
        self.client = client
        self.begun = False
        """Whether a call is being read."""
        self.size = 0
        """Bytes of its body so far."""
        self._parser = httptools.HttpRequestParser(self)
        self._in_head = False
        self._head = 0
        self._read = 0
        """Calls that were read."""
        self._fatal: Refusal | None = None

    def feed(self, data: bytes) -> None:
        """Raises Refusal for what makes it pointless to read on."""
        read = self._read
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            raise self._fatal or Refusal(400, "this is not a request of HTTP/1.1") from None
        # Where another call came before it in the same bytes, the head is as short as the rest of them.
        if self._in_head and self._read == read:
            self._head += len(data)
            if self._head > _LARGEST_HEAD:
                raise Refusal(431, f"the headers are larger than {_LARGEST_HEAD:,} bytes")
        if self._fatal:
            raise self._fatal

    @property
    def headers(self) -> dict[bytes, bytes]:
        """Of the call that is being read, as many as came."""
        return self._headers if self.begun else {}

    # What the parser calls.

    def on_message_begin(self) -> None:
        self.begun = self._in_head = True
        self.size = self._head = 0
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        # The same name twice is a list (RFC 9110, section 5.3).
        self._headers[name] = self._headers[name] + b", " + value if name in self._headers else value

    def on_headers_complete(self) -> None:
        self._in_head = False
        parser, headers = self._parser, self._headers
        path = self._target.partition(b"?")[0].decode("latin-1")
        self._call = call = Call(parser.get_method().decode(), path, headers, self.client)
        call.keep_alive = parser.should_keep_alive()
        call.chunked = parser.get_http_version() != "1.0"
        if self._upgrades:
            return
        try:
            if len(self._target) > _LONGEST_TARGET:
                raise Refusal(414, f"the address is longer than {_LONGEST_TARGET:,} bytes")
            self.admit(call)
        except Refusal as refusal:
            call.refusal = refusal
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self.limit:
            self._fatal = call.refusal or self._too_large()
        elif headers.get(b"expect", b"").lower() == b"100-continue":
            self._fatal = call.refusal
            if not call.refusal:
                self.wanted()

    def on_body(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self.limit:
            self._fatal = self._call.refusal or self._too_large()
            self._chunks.clear()
        elif not self._call.refusal:
            self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        if self._fatal or self._upgrades:
            return
        call = self._call
        call.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self.begun = False
        self.size = 0
        self._read += 1
        self.ready(call)

    @property
    def _upgrades(self) -> bool:
        return bool(self._parser.should_upgrade())

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read the request as if it had not asked for another protocol, as RFC 9110, section 7.8, allows: Java's client always asks."""
        if self._call.method == "CONNECT":
            raise Refusal(405, "this server is no proxy")
        kept = [name + b": " + value + b"\r\n" for name, value in self._headers.items() if name not in _HOP_BY_HOP]
        head = b"".join([self._call.method.encode(), b" ", self._target, b" HTTP/1.1\r\n", *kept, b"\r\n"])
        self._parser = httptools.HttpRequestParser(self)
        self.feed(head + rest)

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the body is larger than {self.limit:,} bytes: send less at once")
