"""How many wake-ups the scheduler sends while others wait."""

import pytest

from shared.state import work
from tsg_workers.room import ENOUGH, LEAST, MOST, Room


def looks(capacity: int, *, every: float = 1.0) -> list[int]:
    """How many wait after each of 60 looks, so many seconds apart, where all is due and workers take so many a second."""
    room, waiting, left = Room(), 0, []
    for number in range(60):
        at = number * every
        waiting += room.count(waiting, at)
        room.sent(waiting, at)
        left.append(waiting)
        waiting = max(0, waiting - round(capacity * every))
    return left


def test_a_queue_that_nobody_reads_does_not_grow() -> None:
    assert looks(0) == [LEAST] * 60


@pytest.mark.parametrize("every", [0.2, 1.0])
def test_as_many_wait_as_workers_take_in_two_seconds(every: float) -> None:
    assert looks(150, every=every)[-1] == pytest.approx(300, rel=0.05)
    assert work.WAKE_AGAIN > ENOUGH, "the last one does not wait until it is sent again"


def test_fast_workers_soon_have_enough_until_the_next_look() -> None:
    left = looks(900)
    assert left[4] >= 900
    assert max(left) == MOST


def test_other_wake_ups_take_its_room() -> None:
    """Those of the API, and of another scheduler."""
    assert Room().count(LEAST + 10, 1.0) == 0
