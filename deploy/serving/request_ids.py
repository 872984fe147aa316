"""What each request is called: in its answer's header, in the access log, and by whoever labels its predictions later."""

import os
import re
from typing import Final

from deploy.serving.calls import Call

HEADER: Final = b"x-request-id"
LONGEST: Final = 128
PATTERN: Final = f"^[!-~]{{1,{LONGEST}}}$"
"""What is taken of a client: visible ASCII, which needs no escaping in a header, a log or a file's name that is quoted."""
_SANE: Final = re.compile(PATTERN[1:-1].encode())


_SIZE: Final = 32
"""Hexadecimal digits of a new one: 128 random bits, because whoever can guess one could label another's predictions."""
_READ_AHEAD: Final = 256
"""New ones for which randomness is read at once: for each alone it would cost three times as much as the rest of making it."""


class RequestIds:
    """One for each request. They are handed out on the event loop alone."""

    def __init__(self) -> None:
        self._digits = ""
        self._used = 0

    def of(self, call: Call) -> str:
        """The client's own where it sent a sane one, else a new one."""
        given = call.headers.get(HEADER)
        if given is not None and _SANE.fullmatch(given):
            return given.decode("ascii")
        if self._used == len(self._digits):
            self._digits, self._used = os.urandom(_READ_AHEAD * _SIZE // 2).hex(), 0
        start = self._used
        self._used = start + _SIZE
        return self._digits[start : start + _SIZE]
