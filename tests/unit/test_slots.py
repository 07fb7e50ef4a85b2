"""Slots: so many at once, shared by their owners, and a queue for as long as it is of use."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dev.processes import wait_for
from tsg_api.http.errors import Unavailable
from tsg_api.http.slots import Slots


def test_there_are_so_many_and_no_more() -> None:
    slots = Slots(2)
    assert [slots.acquire() for _ in range(3)] == [True, True, False]
    slots.release()
    assert slots.acquire()
    assert not Slots(0).acquire()


def test_one_owner_has_its_part_and_the_rest_is_for_others() -> None:
    slots = Slots(3, of_one=2)
    assert [slots.acquire("a") for _ in range(3)] == [True, True, False]
    assert slots.acquire("b")
    slots.release("a")
    assert [slots.acquire("b"), slots.acquire("a")] == [True, False]
    assert slots.held == 3


def test_a_free_slot_goes_to_the_owner_that_holds_fewest_however_many_came_before() -> None:
    slots, order = Slots(2, patience=30), []
    assert slots.acquire("a")
    assert slots.acquire("a")
    with ThreadPoolExecutor(3) as pool:

        def queue(owner: str) -> None:
            assert slots.acquire(owner)
            order.append(owner)

        for number, owner in enumerate(("a", "a", "b"), start=1):
            pool.submit(queue, owner)
            assert wait_for(lambda number=number: slots.queued == number, seconds=10)
        slots.release("a")
        assert wait_for(lambda: order == ["b"], seconds=10)
        slots.release("a")
        assert wait_for(lambda: order == ["b", "a"], seconds=10)
        slots.release("b")
    assert order == ["b", "a", "a"]


def test_one_owner_that_holds_its_slots_for_long_leaves_one_to_others() -> None:
    slots = Slots(3, spare=1)
    assert [slots.acquire("a") for _ in range(4)] == [True, True, False, False]
    assert [slots.acquire("b"), slots.acquire("c")] == [True, False]
    slots.release("a")
    assert [slots.acquire("c"), slots.acquire("a")] == [True, False]
    assert Slots(1, spare=1).acquire("a"), "the only slot is anybody's"


def test_an_owner_that_queues_as_much_as_it_may_is_refused_at_once() -> None:
    slots = Slots(1, of_one=2, patience=30)
    assert slots.acquire("a")
    with ThreadPoolExecutor(1) as pool:
        queued = pool.submit(slots.acquire, "a")
        assert wait_for(lambda: slots.queued == 1, seconds=10)
        assert not slots.acquire("a")
        slots.release("a")
        assert queued.result(timeout=10)


def test_nobody_queues_behind_one_that_took_too_long() -> None:
    slots, done = Slots(1, patience=0.2), threading.Event()
    with ThreadPoolExecutor(1) as pool:

        def hold() -> None:
            with slots.of_cloudapi():
                done.wait(timeout=30)

        holding = pool.submit(hold)
        assert wait_for(lambda: slots.held == 1, seconds=10)
        with pytest.raises(Unavailable, match="CloudAPI is slow"), slots.of_cloudapi():
            pass
        done.set()
        holding.result(timeout=10)
    assert slots.acquire()
