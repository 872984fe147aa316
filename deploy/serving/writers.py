"""Threads that continue texts, in turns so short that one can be stopped, and beside the event loop, which answers on."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from deploy.serving.calls import Refusal
from deploy.serving.model import Model
from tasks.core.errors import InputError, TooLargeError
from tasks.core.generator import Generation, Generator, Options

_TURN_SECONDS: Final = 0.02
"""What one piece of a stream may take, beyond a token: handing work to a thread and back costs about 0.1 ms."""


class Writers:
    """As many threads as there may be generations at once. They are their own, so that predictions never wait for them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.busy = 0
        self._threads = ThreadPoolExecutor(max(most, 1), thread_name_prefix="writer")

    @contextmanager
    def one(self) -> Iterator[None]:
        """One of them, for a request. Raises Refusal (503) where all are taken."""
        if self.busy >= self.most:
            raise Refusal(503, f"{self.busy} texts are being generated, this server's limit: try again")
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    async def begin(self, generator: Generator, prompts: Sequence[str], options: Options) -> list[Generation]:
        """A generation for each prompt, of which none has read anything yet. Raises Refusal: 413 for one that is too long, or 422."""
        run = asyncio.get_running_loop().run_in_executor
        try:
            return [await run(self._threads, generator.generate, prompt, options) for prompt in prompts]
        except TooLargeError as error:
            raise Refusal(413, error.what) from None
        except InputError as error:
            raise Refusal(422, error.what) from None

    async def pieces(self, generation: Generation) -> AsyncIterator[str]:
        """The pieces of a generation as they come, none of them empty. Raises InputError."""
        run = asyncio.get_running_loop().run_in_executor
        while generation.finish_reason is None:
            if piece := await run(self._threads, _turn, generation):
                yield piece


def generator_of(model: Model) -> Generator:
    """Raises Refusal for a model that does not continue texts."""
    if model.generator is None:
        raise Refusal(400, f"model '{model.name}' predicts labels, it does not continue texts: ask /v1/models/{model.name}/predict")
    return model.generator


def _turn(generation: Generation) -> str:
    end = time.perf_counter() + _TURN_SECONDS
    pieces = []
    for piece in generation:
        pieces.append(piece)
        if time.perf_counter() > end:
            break
    return "".join(pieces)
