"""The parts of tsg-feed that talk to nobody: who watches what, what is made due when, and what a connection should have told."""

import uuid

import pytest

from shared.state.activities import LAUNCH, LOST, TERMINATE
from shared.state.feed_messages import Event, FeedMessage
from tsg_workers.feed.evidence import SUBSCRIBED_WITHIN, Evidence
from tsg_workers.feed.gate import ALL_WITHIN, SLOWEST, Gate
from tsg_workers.feed.pending import APART, SOONEST, PendingMessages
from tsg_workers.feed.seats import accounts_of
from tsg_workers.feed.times import USUAL


def some(count: int) -> list[str]:
    return [str(uuid.UUID(int=number * 7919)) for number in range(1, count + 1)]


# Seats


def test_each_account_is_of_one_watcher_and_their_shares_are_about_equal() -> None:
    watchers, accounts = some(4), some(2000)
    shares = [accounts_of(watcher, watchers, accounts) for watcher in watchers]
    assert sum(map(len, shares)) == 2000
    assert set.union(*shares) == set(accounts)
    assert all(400 < len(share) < 600 for share in shares)


def test_a_watcher_that_goes_moves_only_its_own_accounts() -> None:
    watchers, accounts = some(3), some(300)
    before = [accounts_of(watcher, watchers, accounts) for watcher in watchers[:2]]
    after = [accounts_of(watcher, watchers[:2], accounts) for watcher in watchers[:2]]
    assert all(less <= more for less, more in zip(before, after, strict=True))
    assert accounts_of(watchers[0], [], accounts) == set()


# Messages that wait


def test_the_first_message_is_handed_on_at_once_and_the_next_ones_ever_later_up_to_a_second() -> None:
    pending = PendingMessages()
    one, other = FeedMessage("account", "m1"), FeedMessage("account", "m2")
    pending.add(one)
    assert pending.take(100.0) == (set(), [one])
    pending.add(other)
    pending.add(other)
    assert pending.take(100.0 + SOONEST - 0.01) == (set(), [])
    assert pending.next_at() == 100.0 + SOONEST
    assert pending.take(100.0 + SOONEST) == (set(), [other])
    assert pending.next_at() is None


def test_a_hundred_messages_of_one_second_are_handed_on_in_a_few_turns_and_the_last_of_them_soon() -> None:
    pending = PendingMessages()
    turns: list[float] = []
    for hundredth in range(600):
        if hundredth < 100:
            pending.add(FeedMessage("account", f"m{hundredth}"))
        if pending.take(hundredth / 100)[1]:
            turns.append(hundredth / 100)
    assert turns == pytest.approx([0.0, SOONEST, 3 * SOONEST, 3 * SOONEST + APART])
    for hundredth in range(1000, 2000):
        pending.add(FeedMessage("account", "m"))
        if pending.take(hundredth / 100)[1]:
            turns.append(hundredth / 100)
    assert turns[4:6] == pytest.approx([10.0, 10.0 + SOONEST]), "after a quiet time it begins anew"
    assert len(turns[4:]) == pytest.approx(10 / APART, abs=2)


def test_a_whole_account_needs_no_message_of_its_own_and_waits_for_none() -> None:
    pending = PendingMessages()
    pending.add(FeedMessage("account", "m1"))
    pending.add_account("account")
    pending.add(FeedMessage("other", "m2"))
    assert pending.take(100.0) == ({"account"}, [FeedMessage("other", "m2")])
    pending.add(FeedMessage("other", "m3"))
    pending.add_account("other")
    pending.forget("other")
    assert pending.take(200.0) == (set(), [])


# Evidence


def test_what_was_told_is_not_lacking() -> None:
    evidence = Evidence(0.0, USUAL)
    evidence.hear("m", 99.0)
    assert not evidence.lacks(Event("a", "m", LAUNCH, 40.0), 140.0)
    assert not evidence.lacks(Event("a", "m", TERMINATE, 40.0), 140.0)
    assert evidence.lacks(Event("a", "m", TERMINATE, 40.0), 240.0), "its launch was told, and not its deletion"


def test_what_was_not_told_is_lacking_once_it_is_late() -> None:
    evidence = Evidence(0.0, USUAL)
    for kind, within in ((LAUNCH, USUAL.sent_within), (TERMINATE, USUAL.sent_within), (LOST, USUAL.found_within)):
        assert not evidence.lacks(Event("a", "m", kind, within - 1), 100.0)
        assert evidence.lacks(Event("a", "m", kind, within), 100.0)


def test_what_happened_before_the_subscription_is_not_asked_for() -> None:
    evidence = Evidence(100.0, USUAL)
    assert not evidence.lacks(Event("a", "m", LAUNCH, 40.0), 140.0 + SUBSCRIBED_WITHIN - 0.1)
    assert evidence.lacks(Event("a", "m", LAUNCH, 40.0), 140.0 + SUBSCRIBED_WITHIN)


def test_silence_is_of_the_whole_connection() -> None:
    evidence = Evidence(0.0, USUAL)
    event = Event("a", "m", LAUNCH, 40.0)
    assert evidence.is_silent_since(event, 100.0)
    evidence.hear("other", 70.0)
    assert not evidence.is_silent_since(event, 100.0)
    evidence.forget(1000.0)
    assert evidence.lacks(Event("a", "other", LOST, 40.0), 1000.0)


# The gate


def test_few_connections_are_opened_at_once_and_many_within_a_minute() -> None:
    gate = Gate()
    gate.allow_for(10)
    assert [gate.slot(100.0) for _ in range(3)] == pytest.approx([100.0, 100.0 + 1 / SLOWEST, 100.0 + 2 / SLOWEST])
    assert gate.slot(200.0) == 200.0, "nobody saves up turns"
    gate.allow_for(6000)
    taken = [gate.slot(300.0) for _ in range(6000)]
    assert taken[0] == 300.0
    assert taken[-1] == pytest.approx(300.0 + ALL_WITHIN, abs=0.1)
