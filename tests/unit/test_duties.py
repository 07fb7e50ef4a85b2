"""The scheduler's duties: how often each is run."""

from itertools import pairwise
from types import SimpleNamespace

import pytest

from tsg_workers import scheduler
from tsg_workers.scheduler import SHARE, Duty


def test_a_duty_that_takes_long_is_run_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """To count the groups of a large cloud takes the database seconds."""
    now = [1000.0]
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: now[0]))
    runs = []

    def count() -> bool:
        runs.append(now[0])
        now[0] += 2.0
        return True

    duty = Duty("statistics", count, every=15.0)
    for _ in range(1000):
        duty.run_if_due()
        now[0] += 1.0
    pauses = [after - before for before, after in pairwise(runs)]
    assert pauses
    assert all(2.0 / SHARE <= pause <= 2.0 / SHARE + 5 for pause in pauses)
