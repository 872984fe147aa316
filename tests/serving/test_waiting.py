"""Which requests are run together."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import pytest

from deploy.serving.cost import Cost
from deploy.serving.waiting import MOST_ROWS, Waiting
from deploy.serving.work import Work
from tasks.core.predictor import Predictor
from tests.texts import write_classifier

DEAR_CALLS, DEAR_TOKENS = Cost([(1, 1.0), (2, 1.0 + 1e-6)]), Cost([(1, 1.0), (2, 2.0)])


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(write_classifier(tmp_path_factory.mktemp("moods") / "moods"))


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def work(loop: asyncio.AbstractEventLoop, length: int, rows: int = 1) -> Work:
    return Work({"input_ids": np.ones((rows, length), np.int64)}, length, 0.0, loop.create_future())


def picked(waiting: Waiting) -> list[int]:
    return [each.length for each in waiting.pick()]


def filled(moods: Predictor, cost: Cost, loop: asyncio.AbstractEventLoop, lengths: Sequence[int]) -> Waiting:
    waiting = Waiting(moods, cost)
    for length in lengths:
        waiting.add(work(loop, length))
    return waiting


def test_nothing_is_padded_where_a_call_costs_nothing(moods: Predictor, loop: asyncio.AbstractEventLoop) -> None:
    waiting = filled(moods, DEAR_TOKENS, loop, [9, 3, 9, 3, 5])
    batches = [picked(waiting) for _ in range(3)]
    assert all(len(set(batch)) == 1 for batch in batches)
    assert sorted(chain(*batches)) == [3, 3, 5, 9, 9]
    assert not waiting


def test_all_go_together_where_a_call_is_all_that_costs(moods: Predictor, loop: asyncio.AbstractEventLoop) -> None:
    assert sorted(picked(filled(moods, DEAR_CALLS, loop, [9, 3, 40, 5]))) == [3, 5, 9, 40]


def test_what_waits_longest_is_passed_over_a_few_times_at_most(moods: Predictor, loop: asyncio.AbstractEventLoop) -> None:
    # A call costs as much as ten tokens: two texts of one length are always the better batch.
    waiting = filled(moods, Cost([(1, 11.0), (2, 12.0)]), loop, [100])
    runs = 0
    while True:
        for _ in range(20):
            waiting.add(work(loop, 5))
        runs += 1
        if 100 in picked(waiting):
            break
    assert 1 < runs <= 5


def test_a_batch_has_its_limit_unless_one_request_has_more(moods: Predictor, loop: asyncio.AbstractEventLoop) -> None:
    waiting = Waiting(moods, DEAR_CALLS)
    for rows in (MOST_ROWS + 10, 40, 24, 1):
        waiting.add(work(loop, 4, rows))
    sizes: list[int] = []
    while waiting:
        sizes.append(sum(each.rows for each in waiting.pick()))
    assert sorted(sizes) in ([1, 64, 74], [24, 41, 74], [25, 40, 74])
    assert waiting.rows == waiting.tokens == waiting.bytes == 0


def test_what_nobody_waits_for_is_left_out(moods: Predictor, loop: asyncio.AbstractEventLoop) -> None:
    waiting = Waiting(moods, DEAR_CALLS)
    left, kept = work(loop, 3), work(loop, 4)
    waiting.add(left)
    waiting.add(kept)
    left.done.cancel()
    assert waiting.pick() == [kept]


def test_a_cost_is_learnt_from_what_batches_take() -> None:
    cost = Cost([(1, 0.01), (32, 0.05)])
    for number in range(400):
        tokens = 20 + number % 50
        cost.note(tokens, 0.001 + 0.0002 * tokens)
    assert cost.seconds(100) == pytest.approx(0.021, rel=0.2)


def test_batches_of_one_size_leave_a_cost_usable() -> None:
    cost = Cost([(1, 0.001), (32, 0.004)])
    for _ in range(2000):
        cost.note(24, 0.003)
    assert 0 < cost.seconds(1) <= cost.seconds(24) <= cost.seconds(1000)
    assert cost.seconds(24) == pytest.approx(0.003, rel=0.05)


def test_a_pause_of_the_machine_is_hardly_a_cost() -> None:
    cost = Cost([(1, 0.001), (32, 0.004)])
    cost.note(32, 10.0)
    assert cost.seconds(32) < 0.02
