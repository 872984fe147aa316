"""Retries: each failure doubles the rest, what heals is forgotten, and a reason is news once."""

import pytest

from tasks.core.retries import Retries


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def retries(clock: Clock) -> Retries[str]:
    return Retries(first=2.0, most=60.0, clock=clock)


def test_rests_double_up_to_a_limit(retries: Retries[str], clock: Clock) -> None:
    rests = []
    for tries in range(1, 8):
        failure, _ = retries.failed("a", "broken")
        assert failure.tries == tries
        rests.append(failure.until - clock.now)
        clock.now = failure.until
    assert rests == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_it_rests_until_then_and_nothing_else_does(retries: Retries[str], clock: Clock) -> None:
    retries.failed("a", "broken")
    clock.now += 1.9
    assert (retries.rests("a"), retries.rests("b")) == (True, False)
    clock.now += 0.1
    assert not retries.rests("a")


def test_it_goes_on_for_weeks(retries: Retries[str], clock: Clock) -> None:
    for _ in range(5000):
        failure, _ = retries.failed("a", "broken")
    assert failure.until - clock.now == 60.0


def test_a_reason_is_news_once(retries: Retries[str]) -> None:
    assert [retries.failed("a", why)[1] for why in ("broken", "broken", "gone", "gone", "broken")] == [True, False, True, False, True]


def test_what_is_not_kept_begins_anew(retries: Retries[str]) -> None:
    for key in "aab":
        retries.failed(key, "broken")
    retries.keep({"b": 1}.keys())
    assert not retries.rests("a")
    assert (retries.failed("a", "broken")[0].tries, retries.failed("b", "broken")[0].tries) == (1, 2)
