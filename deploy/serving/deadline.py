"""Until when a request is to be answered."""

import time
from math import inf, isfinite
from typing import Any

from deploy.serving.calls import Call, Refusal
from deploy.serving.settings import Settings

HEADER = b"request-timeout"
"""Seconds, as a decimal number."""


def deadline_of(call: Call, settings: Settings, asked: float = inf) -> float:
    """Of time.monotonic: the server's, or the soonest that the request asks for, in its header or as `asked`, in seconds.

    Raises Refusal.
    """
    if header := call.headers.get(HEADER):
        try:
            wanted = float(header)
        except ValueError:
            wanted = 0.0
        if not (wanted > 0 and isfinite(wanted)):
            raise Refusal(400, f"the header Request-Timeout is {header.decode('latin-1')!r}, expected seconds, more than 0")
        asked = min(asked, wanted)
    return time.monotonic() + min(settings.deadline, asked)


def read_timeout(microseconds: Any) -> float:
    """Seconds, from Triton's parameter `timeout`, in which 0 and nothing are no limit. Raises Refusal."""
    if microseconds in (None, 0):
        return inf
    if type(microseconds) is not int or microseconds < 0:
        raise Refusal(400, f"the parameter 'timeout' is {microseconds!r}, expected microseconds as a whole number")
    return microseconds / 1e6
