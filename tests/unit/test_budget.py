"""The request budget: a token bucket, on a clock of the test's own."""

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clients.budget import Budget

RATE, BURST = 10.0, 30


class Time:
    """Goes by only when somebody sleeps, or the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


def budget(time: Time, rate: float = RATE, burst: int = BURST, *, left: float | None = None, age: float | None = None) -> Budget:
    return Budget(rate, burst, left=left, age=age, now=lambda: time.now, sleep=time.sleep)


def at_once(taken: Budget) -> int:
    """How many requests may go out this very moment."""
    count = 0
    while taken.take(within=0):
        count += 1
    return count


def test_a_burst_goes_out_at_once_and_the_next_waits_its_share_of_a_second(time: Time) -> None:
    taken = budget(time)
    assert all(taken.take() for _ in range(BURST))
    assert not time.slept
    assert taken.take()
    assert time.slept == [pytest.approx(1 / RATE)]


def test_a_hundred_requests_take_as_long_as_cloudapi_would_let_them(time: Time) -> None:
    taken = budget(time)
    began = time.now
    for _ in range(100):
        taken.take()
    assert time.now - began == pytest.approx((100 - BURST) / RATE)


def test_time_fills_it_again_but_not_beyond_the_burst(time: Time) -> None:
    taken = budget(time)
    assert at_once(taken) == BURST
    time.now += 1.0
    assert at_once(taken) == RATE
    time.now += 3600.0
    assert at_once(taken) == BURST


def test_nothing_is_taken_by_who_would_have_to_wait_too_long(time: Time) -> None:
    taken = budget(time, left=0)
    assert not taken.take(within=0.09)
    assert taken.left == 0
    assert taken.take(within=0.11)
    assert taken.left == pytest.approx(0)


def test_a_deadline_that_has_passed_lets_nobody_through_however_much_is_left(time: Time) -> None:
    taken = budget(time)
    assert not taken.take(within=-0.001)
    assert taken.left == BURST


def test_what_the_last_holder_left_is_where_the_next_one_begins(time: Time) -> None:
    assert at_once(budget(time, left=4.0)) == 4
    assert at_once(budget(time, left=4.0, age=0.5)) == 9
    assert at_once(budget(time, left=4.0, age=3600)) == BURST
    assert at_once(budget(time, left=100.0)) == BURST
    assert at_once(budget(time, left=-5.0, age=1)) == 5


def test_a_database_whose_clock_went_back_gives_nothing_extra(time: Time) -> None:
    assert at_once(budget(time, left=4.0, age=-100)) == 4


def test_after_a_429_it_begins_again_from_nothing(time: Time) -> None:
    taken = budget(time)
    taken.drain()
    assert taken.left == 0
    assert not taken.take(within=0)
    time.now += 0.1
    assert at_once(taken) == 1


def test_a_429_does_not_forgive_those_who_are_waiting_already(time: Time) -> None:
    taken = budget(time, left=-3)
    taken.drain()
    assert taken.left == -3


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 5), max_size=60),
)
def test_never_more_goes_out_than_rate_and_burst_allow_over_any_stretch_of_time(rate: float, burst: int, pauses: list[float]) -> None:
    time = Time()
    taken = budget(time, rate, burst)
    out: list[float] = []
    for pause in pauses:
        time.now += pause
        if taken.take(within=pause):
            out.append(time.now)
    for first, began in enumerate(out):
        for last, ended in enumerate(out[first:], start=first):
            assert last - first + 1 <= burst + (ended - began) * rate + 1e-6


@given(st.lists(st.floats(0, 2), min_size=1, max_size=40))
def test_whoever_waits_long_enough_is_never_turned_away(pauses: list[float]) -> None:
    time = Time()
    taken = budget(time)
    for pause in pauses:
        time.now += pause
        assert taken.take(within=1 / RATE + 1e-6)


def test_threads_that_come_at_once_each_get_a_place_of_their_own_in_the_queue() -> None:
    waits: list[float] = []
    taken = Budget(RATE, 5, now=lambda: 0.0, sleep=waits.append)
    together(20, taken.take)
    assert sorted(waits) == pytest.approx([number / RATE for number in range(1, 16)])
    assert taken.left == -15


def together(count: int, work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
