"""What waits together is run together, and answered as if it had been alone."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.serving.batcher import Batcher
from deploy.serving.calls import Refusal
from deploy.serving.cost import Cost
from deploy.serving.metrics import ModelMetrics
from deploy.serving.waiting import MOST_ROWS
from deploy.serving.work import Work
from tasks.core.bundle import Bundle
from tasks.core.predictor import Predictor
from tasks.core.transforms import Tensors
from tests.serving.conftest import Served
from tests.texts import write_classifier

QUICK, SLOW = 1e-9, 1.0
"""Seconds that a row is said to take: one is run by the event loop itself, the other in a thread."""


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def people(served: Served) -> Predictor:
    return Predictor(Bundle.open(served.add("people", "1")))


@pytest.fixture
def moods(tmp_path: Path) -> Predictor:
    return Predictor(write_classifier(tmp_path / "moods"))


def batcher(predictor: Predictor, threads: ThreadPoolExecutor, seconds: float = QUICK, most: int = 1024, size: int = 2**20) -> Batcher:
    return Batcher(predictor, Cost([(1, seconds), (2, seconds)]), 1, threads, ModelMetrics(), most, size)


def rows(count: int, seed: int = 0) -> Tensors:
    return {"x": np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)}


def together(batcher: Batcher, asked: Sequence[Tensors]) -> list[Work | BaseException]:
    return in_turns(batcher, [asked])[0]


def in_turns(batcher: Batcher, turns: Sequence[Sequence[Tensors]]) -> list[list[Work | BaseException]]:
    async def ask() -> list[Any]:
        return [await asyncio.gather(*(batcher.run(tensors) for tensors in asked), return_exceptions=True) for asked in turns]

    return asyncio.run(ask())


def sizes(batcher: Batcher) -> list[int]:
    """How many batches had at most 1, 2, 4 … rows."""
    return batcher.metrics.batches.counts


@pytest.mark.parametrize("seconds", [QUICK, SLOW])
def test_rows_of_several_requests_go_together_and_come_apart(people: Predictor, threads: ThreadPoolExecutor, seconds: float) -> None:
    asked = [rows(1 + each % 3, each) for each in range(20)]
    running = batcher(people, threads, seconds)
    found = together(running, asked)
    for tensors, work in zip(asked, found, strict=True):
        assert isinstance(work, Work)
        np.testing.assert_allclose(work.outputs["logits"], people.logits(tensors), rtol=1e-5, atol=1e-6)
    assert sum(sizes(running)) == 1


def test_no_batch_is_larger_than_the_most_unless_one_request_is(people: Predictor, threads: ThreadPoolExecutor) -> None:
    running = batcher(people, threads)
    found = together(running, [rows(MOST_ROWS + 10), *(rows(MOST_ROWS // 2) for _ in range(3))])
    assert [len(work.outputs["logits"]) for work in found if isinstance(work, Work)] == [MOST_ROWS + 10, *[MOST_ROWS // 2] * 3]
    assert sum(sizes(running)) == 3


def test_texts_of_like_length_go_together_and_padding_changes_nothing(moods: Predictor, threads: ThreadPoolExecutor) -> None:
    asked = [moods.tensors(["good bad " * length]) for length in (5, 4, 5, 5, 4)]
    running = batcher(moods, threads)
    for tensors, work in zip(asked, together(running, asked), strict=True):
        assert isinstance(work, Work)
        np.testing.assert_allclose(work.outputs["logits"], moods.logits(tensors), rtol=1e-4, atol=1e-5)
    assert sum(sizes(running)) == 1
    assert running.metrics.padding > 0


def test_a_variant_that_takes_one_row_at_a_time_is_given_one(served: Served, threads: ThreadPoolExecutor) -> None:
    bundle = Bundle.open(served.add("people", "1"))
    alone = bundle.manifest.variant().model_copy(update={"batch": "one"})
    running = batcher(Predictor(Bundle(bundle.folder, bundle.manifest.replace(variants=(alone,)))), threads)
    together(running, [rows(1, each) for each in range(5)])
    assert sizes(running)[0] == 5


def test_what_nobody_waits_for_any_more_is_not_computed(people: Predictor, threads: ThreadPoolExecutor) -> None:
    running = batcher(people, threads)

    async def leave() -> None:
        left, kept = (asyncio.ensure_future(running.run(rows(1))) for _ in range(2))
        await asyncio.sleep(0)
        left.cancel()
        await kept

    asyncio.run(leave())
    assert running.metrics.batches.counts[0] == 1
    assert running.waiting.rows == running.waiting.tokens == running.waiting.bytes == 0


class Held(Predictor):
    """A model whose runs wait to be let go on."""

    gate: Any = None

    def run(self, names: list[str], tensors: Tensors, *, spread: bool = True) -> list[Any]:
        self.gate.wait(5)
        return super().run(names, tensors, spread=spread)


def test_what_does_not_fit_into_the_queue_is_refused_at_once(served: Served, threads: ThreadPoolExecutor) -> None:
    import threading  # noqa: PLC0415

    slow = Held(Bundle.open(served.add("people", "1")))
    slow.gate = threading.Event()
    running = batcher(slow, threads, SLOW, most=3)

    async def ask() -> list[Any]:
        first = asyncio.ensure_future(running.run(rows(1)))
        await asyncio.sleep(0.01)
        rest = [asyncio.ensure_future(running.run(rows(1))) for _ in range(6)]
        await asyncio.sleep(0.01)
        refused = [task.exception() for task in rest if task.done()]
        slow.gate.set()
        await asyncio.gather(first, *rest, return_exceptions=True)
        return refused

    refused = asyncio.run(ask())
    assert [refusal.status for refusal in refused] == [503] * 3
    assert int(refused[0].headers["retry-after"]) >= 1


def test_a_deadline_that_passes_is_told_while_the_model_still_works(served: Served, threads: ThreadPoolExecutor) -> None:
    import threading  # noqa: PLC0415

    slow = Held(Bundle.open(served.add("people", "1")))
    slow.gate = threading.Event()
    running = batcher(slow, threads, SLOW)

    async def ask() -> Any:
        try:
            await running.run(rows(1), time.monotonic() + 0.05)
        except Refusal as refusal:
            return refusal.status, slow.gate.is_set()
        finally:
            slow.gate.set()

    assert asyncio.run(ask()) == (504, False)


@pytest.mark.parametrize("seconds", [QUICK, SLOW])
def test_a_failure_is_told_to_all_of_its_batch_and_the_next_goes_on(people: Predictor, threads: ThreadPoolExecutor, seconds: float) -> None:
    running = batcher(people, threads, seconds)
    wrong: Tensors = {"x": np.zeros((1, 7), np.float32)}
    found, (good,) = in_turns(running, [[wrong, wrong], [rows(1)]])
    assert all(isinstance(each, Exception) for each in found)
    assert isinstance(good, Work)
