"""Until when a request is to be answered."""

import asyncio
from math import isfinite

from deploy.serving.calls import Call, Refusal
from deploy.serving.settings import Settings

HEADER = b"request-timeout"
"""Seconds, as a decimal number."""


def deadline_of(call: Call, settings: Settings) -> float:
    """On the event loop's clock: the server's, or the sooner one that the request asks for. Raises Refusal."""
    seconds = settings.deadline
    if asked := call.headers.get(HEADER):
        try:
            wanted = float(asked)
        except ValueError:
            wanted = 0.0
        if not (wanted > 0 and isfinite(wanted)):
            raise Refusal(400, f"the header Request-Timeout is {asked.decode('latin-1')!r}, expected seconds, more than 0")
        seconds = min(seconds, wanted)
    return asyncio.get_running_loop().time() + seconds
