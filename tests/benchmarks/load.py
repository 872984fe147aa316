"""Clients of a server: as many as are wanted at once, or requests at a rate that does not wait for answers."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
    """One keep-alive connection; one request at a time. Answers have a length."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._buffer = b""
        self._waiting: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._buffer = body[length:]
            if self._waiting and not self._waiting.done():
                self._waiting.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(0)

    async def ask(self, request: bytes) -> int:
        """The status; 0 where the connection ended."""
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._waiting


def request(path: str, body: bytes, **headers: str) -> bytes:
    """The bytes of a POST of JSON."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def connect(port: int, count: int) -> list[_Client]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(_Client, "127.0.0.1", port))[1] for _ in range(count)]


def closed_loop(port: int, requests: Sequence[bytes], clients: int, seconds: float, until: Callable[[], bool] | None = None) -> Answers:
    """So many clients that each ask again as soon as they are answered, for so long, or until something is so."""
    return uvloop.run(_closed_loop(port, requests, clients, seconds, until))


def open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float, clients: int = 512) -> Answers:
    """Requests at a rate, whatever the answers; each is timed from when it was to be sent. At most so many connections."""
    return uvloop.run(_open_loop(port, requests, rate, seconds, clients))


async def _closed_loop(port: int, requests: Sequence[bytes], clients: int, seconds: float, until: Callable[[], bool] | None) -> Answers:
    answers, start = Answers(), time.perf_counter()

    async def ask(client: _Client, number: int) -> None:
        while time.perf_counter() - start < seconds and not (until and until()):
            sent = time.perf_counter()
            answers.add(await client.ask(requests[number % len(requests)]), time.perf_counter() - sent)
            number += clients

    await asyncio.gather(*(ask(client, number) for number, client in enumerate(await connect(port, clients))))
    answers.lasted = time.perf_counter() - start
    return answers


async def _open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float, clients: int) -> Answers:
    answers, free, asked = Answers(), await connect(port, clients), set[asyncio.Task[None]]()
    start, number = time.perf_counter(), 0

    async def ask(client: _Client, request: bytes, due: float) -> None:
        answers.add(await client.ask(request), time.perf_counter() - due)
        free.append(client)

    while (now := time.perf_counter() - start) < seconds:
        while number < now * rate and free:
            task = asyncio.ensure_future(ask(free.pop(), requests[number % len(requests)], start + number / rate))
            asked.add(task)
            task.add_done_callback(asked.discard)
            number += 1
        # The loop's clock has steps of a millisecond; where requests are nearer to each other than that, some are sent at once.
        await asyncio.sleep(max(number / rate - now, 0.0005))
    await asyncio.gather(*asked)
    answers.lasted = time.perf_counter() - start
    return answers
