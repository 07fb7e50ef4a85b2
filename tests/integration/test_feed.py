"""tsg-feed against a real database and the simulator's changefeed: what is told makes groups due, and silence is noticed."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from dev.processes import wait_for
from dev.sim.cloudapi.simulator import Simulator
from shared.clients.changefeed import Changefeed
from shared.clients.keys import KeyPair
from shared.plan.limits import Limits
from shared.state import clock, feed_messages, feeds, status
from shared.state.feeds import FeedState
from shared.state.groups import Group
from shared.store.db import Database
from tests.integration.conftest import LIMITS, World
from tsg_workers.feed.feeds import Feeds
from tsg_workers.feed.times import Times
from tsg_workers.reconcilers import watching

NOBODY = "11111111-1111-4111-8111-111111111111"
#: Seconds.
QUICK = Times(round=0.05, seat=5.0, sent_within=0.5, found_within=0.5, mute=600.0, doubt=600.0)
PATIENCE = 20.0


class Watcher:
    """A `tsg-feed` in a thread of this process."""

    def __init__(self, world: World, times: Times = QUICK) -> None:
        self.woken: list[str] = []
        self._world = world
        self._times = times
        self._begun: Future[Feeds] = Future()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()
        self.feeds = self._begun.result(PATIENCE)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._watch())

    async def _watch(self) -> None:
        world = self._world
        made = Feeds(world.db, Changefeed(world.sim.url), world.sealer, self.woken.append, owner="watcher", times=self._times)
        self._task = asyncio.create_task(made.run())
        self._begun.set_result(made)
        await asyncio.wait([self._task])

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(PATIENCE)

    def state(self, account_id: str | None = None) -> FeedState | None:
        watch = self.feeds.watches.get(account_id or self._world.account.id)
        return watch.state if watch else None


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(throttle=False, threads=12, provision_seconds=0, delete_seconds=0, feed_poll_seconds=0.02) as simulator:
        yield simulator


@pytest.fixture
def world(database: Database, sim: Simulator, pair: KeyPair) -> Iterator[World]:
    """In a database of its own: a `tsg-feed` watches all accounts that are there."""
    built = World(database, sim, pair)
    yield built
    built.close()


@pytest.fixture
def watch(world: World) -> Iterator[Callable[..., Watcher]]:
    started = []

    def start(times: Times = QUICK) -> Watcher:
        started.append(Watcher(world, times))
        return started[-1]

    yield start
    for watcher in started:
        watcher.stop()


def eventually(true: Callable[[], Any]) -> None:
    assert wait_for(true, seconds=PATIENCE)


def is_due(world: World, group: Group) -> bool:
    return bool(world.sql("SELECT check_at <= now() FROM tsg_group_state WHERE group_id = :id", id=group.id)[0][0])


def put_off(world: World) -> None:
    world.sql("UPDATE tsg_group_state SET check_at = now() + interval '300 s' WHERE check_at IS NOT NULL")


def noted(world: World) -> Any:
    rows = world.sql("SELECT state, problem FROM tsg_feeds WHERE account_id = :id", id=world.account.id)
    return rows[0] if rows else (None, None)


def settled_and_heard(world: World, watcher: Watcher) -> Group:
    """A settled group of two, whose launches were told."""
    group = world.make_group(0)
    eventually(lambda: watcher.state() == FeedState.WATCHED)
    world.resize(group, 2)
    world.settle()
    eventually(lambda: watcher.state() == FeedState.TRUSTED)
    quiet(world)
    put_off(world)
    return group


def quiet(world: World) -> None:
    """Everything that was to be told has been told, and what follows from it is written."""
    before = -1
    while before != (sent := world.sim.cloud.changefeed.sent):
        before = sent
        eventually(lambda: not world.sim.cloud._changes)
        world.sql("SELECT pg_sleep(0.3)")


def kill_one(world: World, group: Group) -> str:
    machine = world.machines(group)[0]
    world.sim.cloud.kill(machine)
    return machine.id


# What is told


def test_a_killed_machine_makes_its_group_due_and_wakes_a_worker(world: World, watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    group = settled_and_heard(world, watcher)
    other = world.make_group(0)
    put_off(world)
    watcher.woken.clear()
    kill_one(world, group)
    eventually(lambda: is_due(world, group))
    eventually(lambda: watcher.woken == [world.account.id])
    assert not is_due(world, other)


def test_what_cannot_be_written_ends_nothing(world: World, watch: Callable[..., Watcher]) -> None:
    """One account's messages come with those of all."""
    watcher = watch()
    group = settled_and_heard(world, watcher)
    watcher.feeds._pending.add(feed_messages.FeedMessage(world.account.id, NOBODY, None, "a\0b"))
    kill_one(world, group)
    eventually(lambda: is_due(world, group))
    world.settle()
    quiet(world)
    put_off(world)
    kill_one(world, group)
    eventually(lambda: is_due(world, group))


@pytest.mark.parametrize("knob", [{"feed_lie": True}, {"feed_double": True}, {"feed_shuffle": True}, {"feed_late_seconds": 0.2}])
def test_a_message_that_is_false_late_or_doubled_does_the_same(world: World, watch: Callable[..., Watcher], knob: dict[str, Any]) -> None:
    watcher = watch()
    group = settled_and_heard(world, watcher)
    world.sim.knobs.turn(knob)
    kill_one(world, group)
    eventually(lambda: is_due(world, group))
    world.settle()
    assert world.running(group) == 2


def test_a_group_of_2018_is_found_by_its_name(world: World, watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    group = world.make_group(0, by_name=True)
    eventually(lambda: watcher.state() == FeedState.WATCHED)
    quiet(world)
    put_off(world)
    told_of = feed_messages.FeedMessage(world.account.id, NOBODY, None, group.name)
    for already_due in (False, True):
        assert is_due(world, group) == already_due
        woken = world.db.transact(lambda connection: feed_messages.mark_groups_due(connection, [told_of]))
        assert woken == {world.account.id}, "one that is due already does not wait for the scheduler either"
    assert is_due(world, group)


def test_what_is_told_during_a_check_is_not_lost_by_its_end(world: World) -> None:
    """The check has its list already when the machine dies, and writes that all is well after the message."""
    group = world.make_group(1)
    world.settle()
    (row,) = world.rows(group)
    real = world.sim.cloud.list_machines

    def dies_after_the_list(*arguments: Any) -> Any:
        listed = real(*arguments)
        message = feed_messages.FeedMessage(world.account.id, row.machine_id or "", group.id)
        assert world.db.transact(lambda connection: feed_messages.mark_groups_due(connection, [message])) == {world.account.id}
        world.sim.cloud.list_machines = real  # type: ignore[method-assign]
        kill_one(world, group)
        return listed

    world.sim.cloud.list_machines = dies_after_the_list  # type: ignore[method-assign]
    world.converge()
    assert len(world.machines(group)) == 1, "the pass that was told went on, and found the death"


def test_all_groups_are_due_once_after_connecting_and_after_a_close(world: World, watch: Callable[..., Watcher]) -> None:
    groups = [world.make_group(0) for _ in range(3)]
    put_off(world)
    watcher = watch()
    eventually(lambda: all(is_due(world, group) for group in groups))
    put_off(world)
    world.sim.cloud.changefeed.restart(0)
    eventually(lambda: world.sim.cloud.changefeed.opened == 2)
    eventually(lambda: all(is_due(world, group) for group in groups))
    assert watcher.state() == FeedState.WATCHED, "what it told before says nothing of the new connection"


# Trust


def test_settled_groups_are_checked_less_often_while_the_feed_is_trusted(world: World, watch: Callable[..., Watcher]) -> None:
    patient = world.make_worker("patient", limits=LIMITS._replace(watched_factor=4))
    watcher = watch()
    group = settled_and_heard(world, watcher)

    def pause(worker: Any) -> float:
        world.converge(worker)
        check_at, now = world.sql("SELECT check_at, now() FROM tsg_group_state WHERE group_id = :id", id=group.id)[0]
        return float((check_at - now).total_seconds())

    assert 270 * 4 - 1 <= pause(patient) <= 300 * 4
    world.db.transact(clock.bring_back)
    assert pause_now(world, group) > 300, "the time is not one from before the clock was set back"
    assert pause(world.worker) <= 300, "a worker to which the setting says so checks as often as ever"
    pause(patient)
    watcher.stop()
    watching.mend(world.db)
    assert 0 < pause_now(world, group) <= 300, "the others are brought back once the feed has ended"
    assert pause(patient) <= 300


def pause_now(world: World, group: Group) -> float:
    return float(world.sql("SELECT extract(epoch FROM check_at - now()) FROM tsg_group_state WHERE group_id = :id", id=group.id)[0][0])


def test_a_mute_feed_is_noticed_told_and_healed(world: World, watch: Callable[..., Watcher]) -> None:
    world.sim.knobs.turn({"feed_mute": True})
    watcher = watch(QUICK._replace(mute=1.0))
    group = world.make_group(0)
    eventually(lambda: watcher.state() == FeedState.WATCHED)
    # A event counts once the subscription certainly holds.
    world.sql("SELECT pg_sleep(3.1)")
    world.resize(group, 1)
    world.settle()
    eventually(lambda: noted(world)[0] == "mute")
    assert "sent no message" in noted(world)[1]
    world.converge(world.make_worker("patient", limits=Limits(300, 60, watched_factor=4)))
    assert pause_now(world, group) <= 300
    opened = world.sim.cloud.changefeed.opened
    eventually(lambda: world.sim.cloud.changefeed.opened > opened)
    assert watcher.state() == FeedState.MUTE, "a new connection proves nothing"
    world.sim.knobs.turn({"feed_mute": False})
    kill_one(world, group)
    eventually(lambda: watcher.state() == FeedState.TRUSTED)
    eventually(lambda: is_due(world, group))


def test_a_feed_that_keeps_a_death_to_itself_is_not_trusted(world: World, watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    group = settled_and_heard(world, watcher)
    world.sql("SELECT pg_sleep(3.1)")
    # What was told of the machine's launch was long ago.
    watch_of = watcher.feeds.watches[world.account.id]
    assert watch_of._evidence is not None
    watch_of._evidence._by_machine = dict.fromkeys(watch_of._evidence._by_machine, -1e9)
    world.sim.knobs.turn({"feed_lose_next": 1})
    kill_one(world, group)
    world.settle()
    eventually(lambda: watcher.state() == FeedState.WATCHED)


# What goes wrong


@pytest.mark.parametrize(
    ("knobs", "state", "word"),
    [
        ({"feed_offered": False}, FeedState.TOO_OLD, "404"),
        ({"error_share": 1.0, "error_endpoints": ["Changefeed"], "error_status": 403}, FeedState.FORBIDDEN, "403"),
        ({"error_share": 1.0, "error_endpoints": ["Changefeed"], "error_status": 429}, FeedState.THROTTLED, "429"),
        (
            {"error_share": 1.0, "error_endpoints": ["Changefeed"], "error_message": "Connection Must Upgrade For WebSockets"},
            FeedState.STRIPPED,
            "Upgrade",
        ),
        ({"down": True}, FeedState.UNREACHABLE, "503"),
    ],
)
def test_a_refusal_is_noted_in_words(
    world: World, watch: Callable[..., Watcher], knobs: dict[str, Any], state: FeedState, word: str
) -> None:
    world.sim.knobs.turn(knobs)
    world.make_group(0)
    watcher = watch()
    eventually(lambda: noted(world)[0] == state)
    assert word in noted(world)[1]
    assert watcher.state() == state
    if state != FeedState.UNREACHABLE:
        assert world.sim.cloud.counters.asked("Changefeed") == 1, "it is not asked again soon"


def test_an_account_without_groups_is_not_watched(world: World, watch: Callable[..., Watcher]) -> None:
    group = world.make_group(0)
    watcher = watch()
    eventually(lambda: watcher.state() == FeedState.WATCHED)
    world.delete(group)
    eventually(lambda: watcher.state() is None)
    eventually(lambda: noted(world)[0] is None)
    eventually(lambda: world.sim.cloud.changefeed.shown()["connections"] == 0)


def test_two_share_the_accounts_and_the_other_takes_those_of_one_that_leaves(
    world: World, watch: Callable[..., Watcher], pair: KeyPair
) -> None:
    worlds = [world, *(World(world.db, world.sim, pair) for _ in range(9))]
    for one in worlds:
        one.make_group(0)
    first, second = watch(), watch()
    everybody = {one.account.id for one in worlds}

    def shared() -> bool:
        mine, others = set(first.feeds.watches), set(second.feeds.watches)
        return mine | others == everybody and not mine & others

    eventually(shared)
    eventually(lambda: world.sim.cloud.changefeed.shown()["connections"] == 10)
    first.stop()
    eventually(lambda: set(second.feeds.watches) == everybody)
    eventually(lambda: world.sim.cloud.changefeed.shown()["connections"] == 10)


def test_what_another_wrote_last_is_written_again(world: World, watch: Callable[..., Watcher]) -> None:
    """One that gives an account away, and the scheduler after an outage of the database, may write after the one that has it."""
    watcher = watch()
    world.make_group(0)
    eventually(lambda: noted(world)[0] == "watched")
    world.sql("UPDATE tsg_feeds SET watcher = gen_random_uuid(), state = 'unreachable'")
    eventually(lambda: noted(world)[0] == "watched")
    assert str(world.sql("SELECT watcher FROM tsg_feeds")[0][0]) == watcher.feeds.id


def test_a_status_says_whether_the_group_is_watched(world: World, watch: Callable[..., Watcher]) -> None:
    group = world.make_group(0)

    def watched() -> bool:
        with world.db.read() as connection:
            return status.get(connection, world.account.id, group.id).watched

    assert not watched()
    watcher = watch()
    eventually(watched)
    watcher.stop()
    assert not watched(), "nobody has a seat"
    world.db.transact(feeds.mark_unwatched)
    assert noted(world) == ("unreachable", feeds.WATCHER_GONE)
