"""A proxy before a real MLflow server, which does to the deployer what networks and servers do."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Literal
from urllib.parse import urlsplit

Mode = Literal["well", "silent", "silent about files", "cut"]
"""It passes everything on; takes what is asked and says nothing; does so where a model's file is asked for; ends in the middle of one."""
_CUT = 2000
"""Bytes of an answer with a file that come through: its head, and some of the file."""


class RegistryProxy(ThreadingTCPServer):
    """Listens on a port of its own."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.target = (parts.hostname or "", parts.port or 0)
        self.mode: Mode = "well"
        self.silenced = threading.Event()
        """Whether a request was left without an answer."""
        super().__init__(("127.0.0.1", 0), _Between)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def registry_proxy(address: str) -> Iterator[RegistryProxy]:
    with RegistryProxy(address) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()


class _Between(BaseRequestHandler):
    server: RegistryProxy

    def handle(self) -> None:
        self.left: int | None = None
        with suppress(OSError), socket.create_connection(self.server.target) as upstream:
            threading.Thread(target=self._answer, args=(upstream,), daemon=True).start()
            while asked := self.request.recv(65536):
                of_a_file = b".onnx" in asked.partition(b"\r\n")[0]
                if self.server.mode == "silent" or (self.server.mode == "silent about files" and of_a_file):
                    self.server.silenced.set()
                    continue
                self.left = _CUT if self.server.mode == "cut" and of_a_file else None
                upstream.sendall(asked)

    def _answer(self, upstream: socket.socket) -> None:
        with suppress(OSError):
            while answered := upstream.recv(65536):
                self.request.sendall(answered[: self.left])
                if self.left is not None:
                    self.left -= len(answered)
                    if self.left <= 0:
                        break
        with suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)
