"""Rows of work: who has claimed what, and what is due."""

import uuid
from typing import Any

import pytest
from sqlalchemy import Connection, text

from shared.state import work
from shared.state.work import LONGEST_CLAIM, WAKE_AGAIN, Claim
from shared.store.db import Database

KIND = "test"


class Desk:
    """One subject, and what is done to it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.subject = str(uuid.uuid4())

    def claim(self, seconds: float = 30) -> Claim | None:
        return work.claim(self.connection, KIND, self.subject, owner="here", seconds=seconds)

    def claimed(self) -> Claim:
        claim = self.claim()
        assert claim is not None
        return claim

    def is_woken(self) -> bool:
        return self.subject in work.claim_wake_ups(self.connection, KIND, limit=1000)

    def sql(self, statement: str) -> Any:
        where = f"{statement} WHERE kind = '{KIND}' AND subject = '{self.subject}'"
        return self.connection.execute(text(where))

    def row(self) -> Any:
        return self.sql("SELECT due_at <= now() AS is_due, failures, last_error, owner, until FROM tsg_work").one()


@pytest.fixture
def desk(database: Database) -> Any:
    with database.read() as connection:
        yield Desk(connection)


def test_what_is_claimed_is_not_claimed_again_until_it_is_given_back(desk: Desk) -> None:
    first = desk.claimed()
    assert desk.claim() is None
    assert work.mark_done(desk.connection, first, after=5)
    assert desk.claimed().token == first.token + 1


def test_what_a_dead_holder_had_is_due_once_its_claim_has_ended(desk: Desk) -> None:
    first = desk.claimed()
    assert not desk.is_woken()
    desk.sql("UPDATE tsg_work SET until = until - interval '31 seconds', due_at = due_at - interval '31 seconds'")
    assert desk.is_woken()
    assert desk.claim() is not None
    assert not work.renew(desk.connection, first, seconds=30)
    assert not work.mark_done(desk.connection, first, after=None), "whoever was overtaken writes nothing"
    assert desk.claim() is None


def test_a_renewed_claim_is_not_due_and_lasts_from_then_on(desk: Desk) -> None:
    claim = desk.claimed()
    assert work.renew(desk.connection, claim, seconds=200)
    assert (desk.row().is_due, desk.is_woken()) == (False, False)
    assert desk.sql("SELECT until > now() + interval '190 seconds' FROM tsg_work").scalar_one()


def test_what_is_made_due_during_a_claim_is_due_when_it_is_given_back(desk: Desk) -> None:
    claim = desk.claimed()
    work.mark_due(desk.connection, KIND, desk.subject)
    assert work.renew(desk.connection, claim, seconds=60)
    assert not desk.is_woken(), "its holder is still at it"
    assert work.mark_done(desk.connection, claim, after=3600)
    assert desk.is_woken()


@pytest.mark.parametrize("after", [None, 3600])
def test_what_is_done_is_due_when_its_holder_says_so(desk: Desk, after: float | None) -> None:
    assert work.mark_done(desk.connection, desk.claimed(), after=after)
    assert not desk.row().is_due
    assert not desk.is_woken()


def test_failures_are_counted_until_it_is_done(desk: Desk) -> None:
    for number in (1, 2):
        assert work.mark_failed(desk.connection, desk.claimed(), after=0, error="no")
        assert (desk.row().failures, desk.row().last_error) == (number, "no")
    assert work.mark_postponed(desk.connection, desk.claimed(), after=0)
    assert desk.row().failures == 2, "it was not time yet: nothing is known"
    assert work.mark_done(desk.connection, desk.claimed(), after=0)
    assert (desk.row().failures, desk.row().last_error) == (0, None)


def test_a_wake_up_without_an_answer_is_sent_again(desk: Desk) -> None:
    work.mark_due(desk.connection, KIND, desk.subject)
    assert desk.is_woken()
    assert not desk.is_woken()
    desk.sql(f"UPDATE tsg_work SET woken_at = now() - interval '{WAKE_AGAIN + 1} seconds'")
    assert desk.is_woken()


def test_a_wake_up_that_another_sent_after_this_statement_began_is_not_sent_again(desk: Desk) -> None:
    """`now()` is when a statement began: one that waited for a row finds a time there that lies after its own."""
    work.mark_due(desk.connection, KIND, desk.subject)
    desk.sql("UPDATE tsg_work SET woken_at = now() + interval '1 second'")
    assert not desk.is_woken()


def test_times_from_before_the_clock_was_set_back_hold_nothing_up(desk: Desk) -> None:
    desk.claimed()
    desk.sql(f"UPDATE tsg_work SET until = now() + interval '{LONGEST_CLAIM + 60} seconds'")
    assert desk.claim() is not None
    work.mark_due(desk.connection, KIND, desk.subject)
    desk.sql("UPDATE tsg_work SET until = NULL, woken_at = now() + interval '1 hour'")
    assert desk.is_woken()


def test_what_is_forgotten_is_gone(desk: Desk) -> None:
    work.delete_work(desk.connection, desk.claimed())
    assert desk.sql("SELECT 1 FROM tsg_work").all() == []
