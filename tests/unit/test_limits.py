"""Limits of callers: a bucket for each, on a clock of the test's own."""

import pytest

from tsg_api.http import limits
from tsg_api.http.errors import TooMany
from tsg_api.http.limits import Buckets


def test_each_caller_has_some_seconds_worth_at_once_and_is_told_when_to_come_again() -> None:
    time = [1000.0]
    buckets = Buckets(2, now=lambda: time[0])
    for _ in range(2 * limits.BURST_SECONDS):
        buckets.take("a")
    with pytest.raises(TooMany, match=r"your request rate of 2 r/s") as refused:
        buckets.take("a")
    assert refused.value.after == pytest.approx(0.5)
    buckets.take("b")
    time[0] += 0.5
    buckets.take("a")
    assert buckets.excess("a") is not None


def test_looking_costs_nothing_and_a_rate_of_0_is_no_limit() -> None:
    buckets = Buckets(0.1, now=lambda: 1.0)
    assert [buckets.excess("a") for _ in range(3)] == [None] * 3
    buckets.charge("a")
    assert buckets.excess("a") is not None
    unlimited = Buckets(0)
    for _ in range(100):
        unlimited.take("a")


def test_the_caller_that_asked_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST", 2)
    buckets = Buckets(0.1, now=lambda: 1.0)
    for caller in ("a", "b"):
        buckets.take(caller)
    assert buckets.excess("a") is not None
    buckets.take("c")
    assert [buckets.excess(caller) is None for caller in ("a", "b")] == [False, True]
