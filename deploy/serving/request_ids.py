"""What each request is called: in its answer's header, in the access log, and by whoever labels its predictions later."""

import re
import secrets
from itertools import count
from typing import Final

from deploy.serving.calls import Call

HEADER: Final = b"x-request-id"
LONGEST: Final = 128
PATTERN: Final = f"^[!-~]{{1,{LONGEST}}}$"
"""What is taken of a client: visible ASCII, which needs no escaping in a header, a log or a file's name that is quoted."""
_SANE: Final = re.compile(PATTERN[1:-1].encode())


class RequestIds:
    """New ones are something random of the process and a count, as asking for randomness at each request would cost ten times as much."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(8)
        self._count = count(1)

    def of(self, call: Call) -> str:
        """The client's own where it sent a sane one, else a new one."""
        given = call.headers.get(HEADER)
        if given is not None and _SANE.fullmatch(given):
            return given.decode("ascii")
        return f"{self._process}-{next(self._count):x}"
