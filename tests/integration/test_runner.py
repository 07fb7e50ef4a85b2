"""The one loop, shown by a kind of work that the service does not have: one class, one entry among the kinds."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest

from dev.processes import wait_for
from dev.services import Valkey
from shared import metrics
from shared.clients.queue import count_waiting, make_broker
from shared.runtime import settings
from shared.state import work
from shared.state.work import Claim
from tests.integration.conftest import World
from tsg_workers import wiring
from tsg_workers.runner import After, Failed, Gone, Keeper, NotYet, Reconciler, Result, Runner
from tsg_workers.scheduler import _tick


class Toy(Reconciler[Claim]):
    """Does what the test says."""

    kind = "toy"
    queues = ("toy",)
    claim_seconds = 1

    def __init__(self, *_: Any) -> None:
        self.came: list[Claim] = []
        self.result: Result | Exception = After(100)
        self.under_way, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.held = False

    def reconcile(self, claimed: Claim, keeper: Keeper) -> Result:
        self.came.append(claimed)
        self.under_way.set()
        assert self.go_on.wait(30)
        self.held = keeper.holds
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def subject(world: World) -> Iterator[str]:
    with world.db.read() as connection:
        work.mark_due(connection, "toy", world.account.id)
    yield world.account.id
    world.sql("DELETE FROM tsg_work WHERE kind = 'toy'")


@pytest.fixture
def toy() -> Toy:
    return Toy()


def row(world: World, subject: str) -> Any:
    query = "SELECT owner, until, token, failures, last_error, extract(epoch FROM due_at - now())::float AS due_in FROM tsg_work"
    rows = world.sql(f"{query} WHERE kind = 'toy' AND subject = :id", id=subject)
    return rows[0] if rows else None


def test_a_kind_that_is_registered_is_woken_and_run(world: World, subject: str, toy: Toy, valkey: Valkey) -> None:
    url = world.db.engine.url.render_as_string(hide_password=False)
    chosen = settings.load({"TSG_DATABASE_URL": url, "TSG_REDIS_URL": valkey.url.replace("db=0", "db=10")}, needs_keys=False)
    broker = make_broker(chosen.redis_url)
    stop = threading.Event()
    kinds = (wiring.Kind(Toy, lambda *_: toy),)
    with ThreadPoolExecutor(1) as pool, mock.patch.object(metrics, "export_state"), mock.patch.object(wiring, "KINDS", kinds):
        ticking = pool.submit(_tick, chosen, world.db, stop)
        heard = wait_for(lambda: count_waiting(broker, "toy") == 1 or ticking.done(), seconds=20)
        stop.set()
        (runner,) = wiring.runners(chosen, world.db, threading.Event())
    ticking.result()
    broker.flush_all()
    broker.close()
    assert heard
    assert runner.reconciler is toy
    assert not runner.run(subject)
    assert [claim.subject for claim in toy.came] == [subject]
    found = row(world, subject)
    assert (found.owner, found.until, found.failures) == (None, None, 0)
    assert 90 < found.due_in <= 100


def test_a_claim_is_renewed_while_the_work_goes_on_and_keeps_others_out(world: World, subject: str, toy: Toy) -> None:
    toy.go_on.clear()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(Runner(world.db, toy, owner="one").run, subject)
        try:
            assert toy.under_way.wait(20)
            first = row(world, subject)
            assert first.owner == "one"
            # Twice its term later it is held still, without a gap.
            assert wait_for(lambda: (row(world, subject).until - first.until).total_seconds() > 2, seconds=20)
            other = Toy()
            assert not Runner(world.db, other, owner="two").run(subject)
            assert other.came == []
        finally:
            toy.go_on.set()
        running.result()
    assert toy.held
    assert row(world, subject).token == first.token


def test_a_failure_is_counted_and_tried_again_after_growing_pauses(world: World, subject: str, toy: Toy) -> None:
    runner = Runner(world.db, toy, owner="one")
    toy.result = ValueError("a fault of ours")
    pauses = []
    for failures in (1, 2, 3):
        with pytest.raises(ValueError, match="a fault of ours"):
            runner.run(subject)
        found = row(world, subject)
        assert (found.failures, found.last_error, found.owner) == (failures, "ValueError: a fault of ours", None)
        pauses.append(found.due_in)
    assert 0 < pauses[0] <= 2 < pauses[2] + 0.5 <= 8.5
    toy.result = Failed(50, "away")
    runner.run(subject)
    assert (row(world, subject).failures, row(world, subject).last_error) == (4, "away")
    toy.result = NotYet(50)
    runner.run(subject)
    assert row(world, subject).failures == 4
    toy.result = After(50)
    runner.run(subject)
    assert (row(world, subject).failures, row(world, subject).last_error) == (0, None)
    assert [claim.failures for claim in toy.came] == [0, 1, 2, 3, 4, 4]


def test_the_work_of_a_killed_worker_is_due_when_its_claim_ends_and_taken_over(world: World, subject: str, toy: Toy) -> None:
    with world.db.read() as connection:
        killed = work.claim(connection, "toy", subject, owner="killed", seconds=1)
    assert killed is not None
    runner, began = Runner(world.db, toy, owner="two"), time.monotonic()

    def is_woken() -> bool:
        with world.db.read() as connection:
            return ("toy", subject) in Toy.claim_due(connection, limit=10)

    assert wait_for(is_woken, seconds=20)
    assert time.monotonic() - began > 0.5, "not before its claim has ended"
    runner.run(subject)
    assert [claim.token for claim in toy.came] == [killed.token + 1]
    with world.db.read() as connection:
        assert not work.mark_done(connection, killed, after=None), "the killed one writes nothing when it wakes"


def test_a_worker_that_stops_hands_back_what_has_not_ended(world: World, subject: str, toy: Toy) -> None:
    toy.go_on.clear()
    stop = threading.Event()
    runner = Runner(world.db, toy, owner="one", stop=stop)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(runner.run, subject)
        try:
            assert toy.under_way.wait(20)
            stop.set()
            assert runner.hand_back() == 1
            assert row(world, subject).owner is None
            assert row(world, subject).due_in <= 0
            other = Toy()
            Runner(world.db, other, owner="two").run(subject)
            assert len(other.came) == 1
        finally:
            toy.go_on.set()
        running.result()
    assert not toy.held, "it began nothing more"
    assert row(world, subject).due_in > 90, "what the first one said in the end is not written: the claim was the other's"
    assert not runner.run(subject), "nor does it claim more"
    assert len(toy.came) == 1


def test_what_is_gone_is_forgotten_and_what_is_left_is_due_at_once(world: World, subject: str, toy: Toy) -> None:
    runner = Runner(world.db, toy, owner="one")
    toy.result = After(0)
    assert runner.run(subject)
    toy.result = Gone()
    assert not runner.run(subject)
    assert row(world, subject) is None
