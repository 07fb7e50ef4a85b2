"""How fast a group may launch after launches that failed, and how many of its machines may be replaced at once."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.plan.census import Sight
from shared.plan.limits import Limits
from shared.plan.outcome import Outcome
from shared.plan.pacing import PROBE_EVERY, Pacing
from shared.reasons import Reason
from shared.state.group_state import DueGroup
from shared.state.instances import DELETING, DOUBTED, GONE, LAUNCHING, MISSING, Instance
from tests.unit.planned import Planned, planned

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LIMITS = Limits(provision_timeout=300, launch_grace=60, replace_percent=20, breaker=5)
BREAKER = LIMITS.breaker


def failed(pacing: Pacing, times: int = 1, *, succeeded: int = 0) -> Pacing:
    for _ in range(times):
        pacing = pacing.after(succeeded=succeeded, failed=1, now=NOW, breaker=BREAKER)
    return pacing


def succeeded(pacing: Pacing, count: int) -> Pacing:
    return pacing.after(succeeded=count, failed=0, now=NOW, breaker=BREAKER)


def pause(pacing: Pacing) -> float:
    assert pacing.resume_at is not None
    return (pacing.resume_at - NOW).total_seconds()


# Slow start and breaker


def test_as_many_as_are_missing_are_launched_while_nothing_failed() -> None:
    assert Pacing().allowed(100, 0, NOW) == 100


def test_after_a_failure_launches_wait_and_then_go_one_two_four_eight() -> None:
    pacing, sizes = failed(Pacing()), []
    assert pacing.allowed(100, 0, NOW) == 0
    for _ in range(5):
        size = pacing.allowed(100, 0, NOW + timedelta(seconds=2))
        assert pacing.allowed(100, size, NOW + timedelta(seconds=2)) == 0, "the next ones wait for these"
        sizes.append(size)
        pacing = succeeded(pacing, size)
    assert sizes == [1, 2, 4, 8, 16]


def test_a_failure_on_the_way_up_begins_anew() -> None:
    pacing = failed(succeeded(succeeded(failed(Pacing()), 1), 2))
    assert (pacing.failures, pacing.window) == (1, 1)


def test_failures_beside_successes_shrink_the_window_to_what_succeeded() -> None:
    assert failed(Pacing(), succeeded=7)[:2] == (1, 7)


def test_the_pause_doubles_and_the_breaker_opens_at_its_number_of_failures_in_a_row_and_no_sooner() -> None:
    for failures in range(1, BREAKER):
        pacing = failed(Pacing(), failures)
        assert 2 ** (failures - 1) <= pause(pacing) <= 2**failures
        assert not pacing.is_open(BREAKER)
    for failures in range(BREAKER, 100):
        pacing = failed(Pacing(), failures)
        assert pacing.is_open(BREAKER)
        assert pacing.window == 1
        assert PROBE_EVERY <= pause(pacing) <= 600


def test_a_success_closes_the_breaker() -> None:
    pacing = succeeded(failed(Pacing(), 9), 1)
    assert not pacing.is_open(BREAKER)
    assert pacing.allowed(100, 0, NOW) == 2


def test_nothing_new_changes_nothing() -> None:
    for pacing in (Pacing(), failed(Pacing(), 3)):
        assert succeeded(pacing, 0) == pacing


# The plan keeps to it


def group(wanted: int, **more: object) -> DueGroup:
    return DueGroup("g1", "web", "t1", wanted, False, 1, 0, 300, False, None)._replace(**more)  # type: ignore[arg-type]


def some(count: int, state: str, *, ran: bool = True, since: float = 100, sure: bool = True, lost: bool = False) -> list[Sight]:
    began = NOW - timedelta(seconds=since)
    machine_id = None if state == LAUNCHING else "m"
    one = Instance("", "g1", machine_id, state, began, began, None, began if ran else None)
    return [Sight(one._replace(id=f"{state}{ran}{since}{number:04}"), sure=sure, lost=lost) for number in range(count)]


def made(wanted: int, *sights: list[Sight], **more: object) -> Planned:
    return planned(group(wanted, **more), [one for several in sights for one in several], NOW, LIMITS)


def test_a_paused_group_launches_nothing_and_says_that_something_is_held_back() -> None:
    found = made(10, launch_failures=1, launch_window=1, launch_at=NOW + timedelta(seconds=5))
    assert (found.launches, found.held, found.settled) == (0, 10, False)
    found = made(10, launch_failures=1, launch_window=1, launch_at=NOW)
    assert (found.launches, found.held) == (1, 9)


def test_machines_that_never_ran_are_all_deleted_and_one_is_tried_in_their_place() -> None:
    found = made(10, some(10, "failed", ran=False))
    assert (len(found.never_ran), found.launches, found.held) == (10, 1, 9)


def test_a_launch_that_came_to_nothing_is_a_failure() -> None:
    found = made(3, some(3, LAUNCHING, ran=False, lost=True))
    assert (found.plan.census.failed_launches, found.launches) == (3, 1)


def test_machines_that_came_up_between_are_counted_once() -> None:
    found = made(3, some(3, "running"))
    assert found.plan.census.came_up == 0
    fresh = [one._replace(instance=one.instance._replace(ran_at=NOW)) for one in some(2, "running")]
    assert made(3, fresh).plan.census.came_up == 2


# A share at a time


def test_all_of_a_group_look_stopped_and_a_fifth_is_replaced() -> None:
    found = made(50, some(50, "stopped"))
    assert (len(found.unhealthy), found.launches, found.waiting, found.plan.replacing) == (10, 10, 40, 10)


def test_the_rest_waits_until_the_replacements_run() -> None:
    going, coming, left = some(10, DELETING), some(10, "provisioning", ran=False), some(40, "stopped")
    found = made(50, going, coming, left, replacing=10)
    assert (found.unhealthy, found.launches, found.waiting) == ([], 0, 40)
    found = made(50, some(4, "running"), coming[:6], left, replacing=10)
    assert (len(found.unhealthy), found.launches, found.plan.replacing) == (4, 4, 10)


def test_no_more_goes_while_replacements_can_not_be_had() -> None:
    found = made(50, some(40, "stopped"), replacing=10, launch_failures=3, launch_window=1, launch_at=NOW + timedelta(seconds=9))
    assert (found.unhealthy, found.launches, found.held, found.waiting) == ([], 0, 10, 40)


def test_of_a_small_group_one_is_replaced_at_a_time() -> None:
    assert [len(made(wanted, some(wanted, "stopped")).unhealthy) for wanted in (1, 2, 4, 5, 9, 10)] == [1, 1, 1, 1, 1, 2]


def test_a_stopped_machine_does_not_wait_for_a_group_that_grows() -> None:
    found = made(100, some(49, "running"), some(1, "stopped"), some(50, "provisioning", ran=False))
    assert (len(found.unhealthy), found.launches) == (1, 1)


def test_what_is_gone_is_replaced_at_once_whatever_the_share() -> None:
    assert made(50, some(50, GONE)).launches == 50


def test_a_machine_that_cloudapi_does_not_know_is_only_a_sign_of_trouble() -> None:
    found = made(50, some(50, MISSING))
    assert (len(found.unhealthy), found.launches) == (10, 10)


def test_what_is_not_needed_any_more_goes_at_once_and_the_unhealthy_first() -> None:
    found = made(5, some(5, "running"), some(8, "stopped"))
    assert (len(found.unhealthy), found.surplus, found.launches) == (8, [], 0)
    assert len(made(0, some(8, "stopped")).unhealthy) == 8


def test_what_nobody_is_sure_of_is_there_before_a_launch_and_gone_before_a_deletion() -> None:
    unsure = some(5, "running", sure=False)
    assert made(5, unsure).launches == 0
    assert made(8, unsure).launches == 3
    assert made(3, unsure).surplus == []
    assert made(3, unsure, some(3, "running")).surplus == []
    assert len(made(3, unsure, some(4, "running")).surplus) == 1
    assert made(0, some(5, "stopped", sure=False)).unhealthy == []


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 30), st.integers(0, 60))
def test_no_more_than_a_share_is_ever_away_by_our_own_doing(wanted: int, running: int, ailing: int, coming: int, replacing: int) -> None:
    found = made(wanted, some(running, "running"), some(ailing, "stopped"), some(coming, "provisioning", ran=False), replacing=replacing)
    needless = max(0, running + coming + ailing - wanted)
    share = max(1, wanted // 5)
    assert len(found.unhealthy) <= needless + share
    assert found.plan.replacing <= max(share, replacing)
    assert len(found.unhealthy) + found.waiting == ailing


# Why nothing is launched


def test_the_reason_for_a_pause_is_what_was_refused_until_the_breaker_opens() -> None:
    held = {"launch_failures": 2, "launch_window": 1, "launch_at": NOW + timedelta(seconds=5)}
    before = group(2, reason=Reason.QUOTA_EXCEEDED, last_error="Quota exceeded")
    found = made(2, **held)
    assert Outcome().reason_after(found.plan, before, is_open=False) is Reason.QUOTA_EXCEEDED
    assert Outcome().reason_after(found.plan, group(2), is_open=False) is Reason.BACKOFF
    assert Outcome().reason_after(found.plan, before, is_open=True) is Reason.CIRCUIT_OPEN
    assert Outcome().reason_after(made(1, some(1, "running")).plan, before, is_open=False) is Reason.SETTLED


def test_launches_in_doubt_are_no_sign_that_cloudapi_works_again() -> None:
    before = group(3, reason=Reason.CLOUDAPI_UNAVAILABLE, failures=1, last_error="it failed")
    found = made(3, some(3, DOUBTED, ran=False, since=2))
    assert found.launches == 0
    assert Outcome().reason_after(found.plan, before, is_open=False) is Reason.CLOUDAPI_UNAVAILABLE
    assert Outcome().error_after(found.plan, before) == "it failed"
    assert Outcome(launched=1).reason_after(found.plan, before, is_open=False) is Reason.PROVISIONING
    assert Outcome().reason_after(found.plan, group(3), is_open=False) is Reason.PROVISIONING
