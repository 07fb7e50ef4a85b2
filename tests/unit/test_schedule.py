"""When a group is looked at again."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.backoff import LONGEST, backoff
from shared.plan.census import Census, Sight
from shared.plan.conclusion import LONGEST_LEFT_ALONE, may_rest, put_off_together, rest
from shared.plan.limits import Limits
from shared.plan.outcome import Outcome, Trouble
from shared.plan.schedule import LATE_LOOK, LATEST, SOONEST, late_look, next_look
from shared.plan.steps import Hold, Limit, Plan, Why
from shared.reasons import Reason
from shared.state.group_state import DueGroup
from shared.state.instances import Instance

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
TROUBLE = Outcome(errors=("no room",))


def plan(*, moving_for: float | None = None, held: int = 0, boots: Sequence[float] = ()) -> Plan:
    """The plan of a settled group, but for this. In seconds; `boots` are those of what runs."""
    ran = [Instance(f"r{boot}", "g1", f"r{boot}", "running", NOW, NOW - timedelta(seconds=boot), None, NOW) for boot in boots]
    moving = [Sight(instance) for instance in ran]
    if moving_for is not None:
        since = NOW - timedelta(seconds=moving_for)
        moving.append(Sight(Instance("i1", "g1", "m1", "provisioning", since, since, None)))
    return Plan(Census(healthy=tuple(moving), taken_at=NOW), (Hold(held, Why.MISSING, Limit.BACKOFF),) if held else ())


def look(planned: Plan, outcome: Outcome | None = None, *, failures: int = 0, interval: int = 300, resume_in: float | None = None) -> float:
    resume_at = None if resume_in is None else NOW + timedelta(seconds=resume_in)
    return next_look(planned, outcome or Outcome(), failures, interval, NOW, spread=0.1, resume_at=resume_at)


def test_a_settled_group_is_left_until_its_interval_is_nearly_over() -> None:
    looks = [look(plan()) for _ in range(100)]
    assert all(270 <= seconds <= 300 for seconds in looks)
    assert len(set(looks)) > 1, "groups that were made together would be checked together for ever"


def test_no_look_is_ever_later_than_the_interval() -> None:
    for _ in range(200):
        assert 9 <= look(plan(), interval=10) <= 10
        assert look(plan(), TROUBLE, failures=50, interval=10) <= 10
        assert look(plan(held=2), interval=10, resume_in=500) <= 10


@pytest.mark.parametrize(("asks", "least", "most"), [(0, 1, 2), (1, 1, 2), (40, 40, 40), (1e9, LONGEST_LEFT_ALONE, LONGEST_LEFT_ALONE)])
def test_cloudapi_is_left_alone_for_as_long_as_it_asks_within_bounds(asks: float, least: float, most: float) -> None:
    for reason in (Reason.CLOUDAPI_UNAVAILABLE, Reason.THROTTLED):
        (check,) = put_off_together([due(Reason.SETTLED, 0)], Trouble("not now", reason, retry_after=asks))
        assert least <= check.after <= most


def test_groups_of_an_account_that_cannot_be_worked_on_wait_for_as_long_as_it_could_not_be() -> None:
    refused, trouble = due(Reason.TEMPLATE_REJECTED, 50), Trouble("no key", Reason.ACCOUNT_REJECTED)
    for waited, failures in (([refused], 1), ([refused, due(Reason.SETTLED, 0)], 1), ([due(Reason.ACCOUNT_REJECTED, 3), refused], 4)):
        checks = put_off_together(waited, trouble)
        assert {check.failures for check in checks} == {failures}
        (after,) = {check.after for check in checks}
        assert 2 ** (failures - 1) <= after <= 2**failures


def due(reason: Reason, failures: int) -> DueGroup:
    return DueGroup("g1", "web", "t1", 2, False, 1, failures, 300, False, None, reason)


def test_what_was_just_launched_is_looked_at_soon() -> None:
    assert look(plan(), Outcome(launched=1)) == SOONEST


@pytest.mark.parametrize(("seconds", "until"), [(0, SOONEST), (8, 2), (40, 10), (299, LATEST)])
def test_the_longer_nothing_moves_the_longer_until_the_next_look(seconds: float, until: float) -> None:
    assert look(plan(moving_for=seconds)) == until


@pytest.mark.parametrize(("seconds", "until"), [(1, SOONEST), (3.5, 1.5), (4.5, 0.5), (5, 1.25), (8, 2)])
def test_a_look_falls_on_the_moment_at_which_the_last_launch_may_run(seconds: float, until: float) -> None:
    assert look(plan(moving_for=seconds, boots=(30, 5, 6))) == until


def test_a_look_falls_on_the_moment_at_which_the_last_deletion_may_be_over() -> None:
    gone = Sight(Instance("i1", "g1", "m1", "gone", NOW - timedelta(seconds=9), NOW, NOW - timedelta(seconds=5)))
    going = Sight(Instance("i2", "g1", "m2", "deleting", NOW - timedelta(seconds=3), NOW, None))
    assert look(Plan(Census(gone=(gone,)), ())) >= 270
    planned = Plan(Census(gone=(gone,), deleting=(going,), taken_at=NOW), ())
    assert look(planned) == 1
    assert next_look(planned, Outcome(), 0, 300, NOW + timedelta(seconds=1.2), spread=0.1, resume_at=None) == 0, "a long pass"
    quick = Sight(gone.instance._replace(gone_at=NOW - timedelta(seconds=8.5)))
    assert look(Plan(Census(gone=(gone, quick)), ()), Outcome(deleted=1)) == 0.5
    assert look(Plan(Census(gone=(gone, quick)), ()), Outcome(launched=1, deleted=1)) == SOONEST


def test_what_was_not_finished_goes_on_at_once() -> None:
    assert look(plan(), Outcome(launched=2, unfinished=True)) == 0


def test_trouble_is_met_with_patience_even_when_something_was_left_over() -> None:
    assert look(plan(), replace(TROUBLE, unfinished=True), failures=5) >= 16


def test_patience_doubles_up_to_ten_minutes() -> None:
    for failures in range(1, 100):
        top = min(LONGEST, 2**failures)
        assert top / 2 <= backoff(failures) <= top
    assert LONGEST == 600


def test_a_paused_group_is_looked_at_when_its_pause_is_over() -> None:
    assert look(plan(held=2), resume_in=7) == 7


def test_while_the_first_launch_after_a_pause_is_under_way_the_group_is_not_looked_at_all_the_time() -> None:
    planned = plan(held=2, moving_for=1)
    assert look(planned, resume_in=-1) >= SOONEST
    assert look(planned, resume_in=0.5) == 0.5


def test_a_deleted_group_is_looked_at_for_latecomers_ever_less_often_and_not_for_ever() -> None:
    ages, after = [0.0], late_look(None)
    while after is not None:
        ages.append(ages[-1] + after)
        after = late_look(ages[-1])
    assert ages == [0, LATE_LOOK, 1200, 4800, 19200, 76800]


def test_groups_rest_while_the_list_is_the_same_and_are_planned_once_an_hour_all_the_same() -> None:
    group = DueGroup("g1", "web", "t1", 2, False, 1, 0, 300, False, None, checked_at=NOW, listing="same")
    at_rest = [minute for minute in range(121) if may_rest("a1", [group], "same", NOW + timedelta(minutes=minute))]
    assert at_rest == list(range(len(at_rest)))
    assert len(at_rest) <= 60
    assert not may_rest("a1", [group, group._replace(listing=None)], "same", NOW)
    assert not may_rest("a1", [group], "other", NOW)
    ends = {len([m for m in range(61) if may_rest(f"a{n}", [group], "same", NOW + timedelta(minutes=m))]) for n in range(20)}
    assert len(ends) > 5, "accounts have times of their own"
    check = rest(group._replace(last_error="One instance is protected."), Limits(300, 60))
    assert (check.listing, check.error, check.reason) == ("same", "One instance is protected.", Reason.SETTLED)
    assert 270 <= check.after <= 300
