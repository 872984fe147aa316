"""Clients of a server: as many as are wanted at once, or requests at a rate that does not wait for answers."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast

import numpy as np
import numpy.typing as npt
import uvloop


@dataclass
class Answers:
    """What came back: seconds by status, in the order in which they came."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    lasted: float = 0.0

    def add(self, status: int, seconds: float) -> None:
        self.seconds.setdefault(status, []).append(seconds)

    @property
    def counts(self) -> Counter[int]:
        return Counter({status: len(found) for status, found in self.seconds.items()})

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return len(self.seconds.get(200, [])) / self.lasted

    def percentile(self, share: float, status: int = 200) -> float:
        """Seconds."""
        found: npt.NDArray[np.float64] = np.asarray(self.seconds.get(status, [np.nan]))
        return float(np.percentile(found, share))


class _Client(asyncio.Protocol):
    """One keep-alive connection; one request at a time. Answers have a length. Without tasks, as it takes its time from the server."""

    transport: asyncio.Transport

    def __init__(self, answered: Callable[["_Client", int, float], None]) -> None:
        self.answered = answered
        """Told of the status, 0 where the connection ended, and of the seconds since the request was sent."""
        self._buffer = b""
        self._sent: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> None:
        self._sent = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._buffer = body[length:]
            self._end(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(0)

    def _end(self, status: int) -> None:
        if self._sent is not None:
            seconds, self._sent = time.perf_counter() - self._sent, None
            self.answered(self, status, seconds)


def request(path: str, body: bytes, **headers: str) -> bytes:
    """The bytes of a POST of JSON."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def closed_loop(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Answers:
    """So many clients that each ask again as soon as they are answered."""
    return uvloop.run(_closed_loop(port, requests, clients, seconds))


def open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float, clients: int = 512) -> Answers:
    """Requests at a rate, whatever the answers, while one of so many connections is free."""
    return uvloop.run(_open_loop(port, requests, rate, seconds, clients))


async def _connect(port: int, count: int, answered: Callable[[_Client, int, float], None]) -> list[_Client]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(lambda: _Client(answered), "127.0.0.1", port))[1] for _ in range(count)]


async def _closed_loop(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Answers:
    answers, asked, left, over = Answers(), cycle(requests), clients, asyncio.Event()

    def answered(client: _Client, status: int, taken: float) -> None:
        nonlocal left
        answers.add(status, taken)
        if status and time.perf_counter() - start < seconds:
            client.ask(next(asked))
        else:
            left -= 1
            if not left:
                over.set()

    connected = await _connect(port, clients, answered)
    start = time.perf_counter()
    for client in connected:
        client.ask(next(asked))
    await over.wait()
    answers.lasted = time.perf_counter() - start
    return answers


async def _open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float, clients: int) -> Answers:
    answers, asked, number = Answers(), cycle(requests), 0

    def answered(client: _Client, status: int, taken: float) -> None:
        answers.add(status, taken)
        if status:
            free.append(client)

    free = await _connect(port, clients, answered)
    start = time.perf_counter()
    while (now := time.perf_counter() - start) < seconds:
        while number < now * rate and free:
            free.pop().ask(next(asked))
            number += 1
        # The loop's clock has steps of a millisecond; where requests are nearer to each other than that, some are sent at once.
        await asyncio.sleep(max(number / rate - now, 0.0005))
    while sum(answers.counts.values()) < number:  # noqa: ASYNC110 - an event would be looked after at each answer
        await asyncio.sleep(0.01)
    answers.lasted = time.perf_counter() - start
    return answers
