"""The plan of a group: what is against what should be."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.plan.census import LISTED_AFTER, Sight, is_overdue
from shared.plan.limits import Limits
from shared.plan.repair import DELETE_AGAIN
from shared.spec.group_settings import GroupSettings, HealthCheck, to_document
from shared.state.group_state import DueGroup
from shared.state.instances import DELETING, DOUBTED, GONE, LAUNCHING, Instance
from tests.unit.planned import Planned, planned

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
#: All that is unhealthy may be replaced at once.
LIMITS = Limits(provision_timeout=300, launch_grace=60, replace_percent=100)

#: What CloudAPI says of a machine that may come to run by itself.
COMING = ["provisioning", "ready", "stopping", "offline", "unknown"]
#: What it says of one that will not.
BROKEN = ["failed", "stopped", "deleted", "incomplete", "whatever"]

_numbers = itertools.count(1)


def group(wanted: int, *, archived: bool = False) -> DueGroup:
    return DueGroup("g1", "web", "t1", wanted, archived, 1, 0, 300, False, None)  # how fast it may go is asked below


def sight(state: str, age: float = 0, *, since: float | None = None, protected: bool = False, created: str | None = None) -> Sight:
    """A machine made `age` seconds ago, and in its state for `since` seconds."""
    number = next(_numbers)
    made = NOW - timedelta(seconds=age)
    machine_id = None if state in {LAUNCHING, DOUBTED} else f"m{number:06}"
    state_since = NOW - timedelta(seconds=age if since is None else since)
    instance = Instance(f"i{number:06}", "g1", machine_id, state, state_since, made, None, made)
    told = "" if machine_id is None else made.isoformat()
    return Sight(instance, told if created is None else created, protected)


def made(wanted: int, *sights: Sight) -> Planned:
    return planned(group(wanted), sights, NOW, LIMITS)


def probed(one: Sight, health: str) -> Sight:
    return one._replace(instance=one.instance._replace(probe=health))


def instances(*sights: Sight) -> list[Instance]:
    return [sight.instance for sight in sights]


# All of them unhealthy, since the health check itself is wrong


def test_a_replacement_is_under_way_until_it_passed_its_health_check_or_its_grace_is_over() -> None:
    check = HealthCheck(type="http", port=80, grace_seconds=300)
    checked = group(10)._replace(more=to_document(GroupSettings(health_check=check)), replacing=2)
    old = [probed(sight("running", 3600), "unhealthy") for _ in range(8)]
    fifth = LIMITS._replace(replace_percent=20)

    def replaced(*young: Sight) -> tuple[int, int, datetime | None]:
        found = planned(checked, [*old, *young], NOW, fifth)
        return len(found.unhealthy), found.waiting, found.plan.next_at

    in_grace = [sight("running", 40, since=since) for since in (10, 20)]
    assert replaced(*in_grace) == (0, 8, NOW + timedelta(seconds=280)), "and then it is looked at again"
    assert replaced(in_grace[0], probed(in_grace[1], "healthy")) == (1, 7, NOW + timedelta(seconds=290))
    assert replaced(*(probed(one, "healthy") for one in in_grace)) == (2, 6, None)
    assert replaced(*(sight("running", 400, since=300) for _ in range(2))) == (2, 6, None), "nobody can probe them"


# Too few


def test_what_is_missing_is_launched() -> None:
    found = made(5, sight("running"), sight("running"))
    assert (found.launches, found.surplus, found.unhealthy) == (3, [], [])


@pytest.mark.parametrize("state", [*COMING, LAUNCHING])
def test_what_is_on_its_way_counts(state: str) -> None:
    found = made(1, sight(state))
    assert (found.launches, found.plan.moving, found.settled) == (0, True, False)


@pytest.mark.parametrize("state", BROKEN)
def test_what_failed_or_stopped_is_deleted_and_replaced(state: str) -> None:
    broken = sight(state)
    found = made(1, broken)
    assert (found.launches, found.unhealthy) == (1, instances(broken))


@pytest.mark.parametrize("state", COMING)
def test_what_never_comes_up_is_deleted_and_replaced_when_its_time_is_over(state: str) -> None:
    in_time, stuck = sight(state, age=300), sight(state, age=301)
    assert (made(1, in_time).launches, made(1, in_time).unhealthy) == (0, [])
    assert (made(1, stuck).launches, made(1, stuck).unhealthy) == (1, instances(stuck))


def test_the_time_to_come_up_is_counted_from_the_last_change_of_state() -> None:
    """A machine that ran for a year and is stopping now is not stuck."""
    assert made(1, sight("stopping", age=31_536_000, since=5)).unhealthy == []


def test_a_launch_whose_answer_is_not_known_counts_for_as_long_as_it_may_turn_up() -> None:
    found = made(1, sight(LAUNCHING, age=100_000))
    assert (found.launches, found.unhealthy, found.surplus) == (0, [], [])


def test_a_launch_is_lost_when_its_grace_is_over_and_no_sooner() -> None:
    assert not is_overdue(sight(LAUNCHING, age=60).instance, NOW, LIMITS)
    assert is_overdue(sight(LAUNCHING, age=61).instance, NOW, LIMITS)


def test_a_launch_that_failed_late_is_doubted_from_then_on() -> None:
    """CloudAPI may have made the machine just before it failed: its list has had no time yet."""
    assert not is_overdue(sight(DOUBTED, age=60, since=LISTED_AFTER).instance, NOW, LIMITS)
    assert is_overdue(sight(DOUBTED, age=60, since=LISTED_AFTER + 1).instance, NOW, LIMITS)


@pytest.mark.parametrize("state", ["provisioning", "running", "failed", DELETING, GONE])
def test_a_machine_is_never_a_lost_launch(state: str) -> None:
    assert not is_overdue(sight(state, age=100_000).instance, NOW, LIMITS)


def test_what_is_being_deleted_does_not_count_and_what_is_gone_is_not_there() -> None:
    found = made(2, sight("running"), sight(DELETING), sight(GONE))
    assert (found.launches, found.unhealthy, found.plan.moving, found.plan.empty) == (1, [], True, False)


# Too many


def test_the_oldest_go_first() -> None:
    young, old, oldest = sight("running", 10), sight("running", 20), sight("running", 30)
    assert made(1, young, oldest, old).surplus == instances(oldest, old)


def test_age_is_what_cloudapi_says_and_not_when_we_came_to_know_of_it() -> None:
    found_late = sight("running", 10, created="2018-01-01T00:00:00.000Z")
    known_long = sight("running", 1000)
    assert made(1, found_late, known_long).surplus == instances(found_late)


def test_of_machines_without_a_time_of_creation_the_launch_tells_the_age() -> None:
    young, old = sight("running", 10, created=""), sight("running", 20, created="")
    assert made(1, young, old).surplus == instances(old)


def test_of_machines_of_the_same_age_the_choice_is_the_same_every_time() -> None:
    twins = [sight("running", 10) for _ in range(6)]
    assert made(3, *twins).surplus == made(3, *reversed(twins)).surplus


def test_what_is_protected_goes_last() -> None:
    protected, young, old = sight("running", 30, protected=True), sight("running", 10), sight("running", 20)
    assert made(1, protected, young, old).surplus == instances(old, young)
    assert made(0, protected, young, old).surplus == instances(old, young, protected)


@pytest.mark.parametrize("state", [LAUNCHING, DOUBTED])
def test_nothing_goes_for_a_launch_that_may_come_to_nothing(state: str) -> None:
    unknown, running = sight(state, 100), sight("running", 10)
    assert made(1, unknown, running).surplus == []
    assert made(0, unknown, running).surplus == instances(running)
    assert made(0, unknown).surplus == []
    # Of what ran and does not any more, none is needless.
    gentle = LIMITS._replace(replace_percent=1)
    assert len(planned(group(2), [unknown, sight("stopped"), sight("stopped")], NOW, gentle).unhealthy) == 1


def test_a_machine_that_is_still_provisioning_may_be_surplus() -> None:
    provisioning = sight("provisioning")
    assert made(0, provisioning).surplus == instances(provisioning)


def test_what_failed_does_not_spare_a_surplus_machine() -> None:
    failed, running, old = sight("failed", 100), sight("running", 10), sight("running", 20)
    found = made(1, failed, running, old)
    assert (found.unhealthy, found.surplus, found.launches) == (instances(failed), instances(old), 0)


# Deletions that do not come to an end


def test_a_deletion_is_told_again_when_cloudapi_has_given_it_up_and_no_sooner() -> None:
    assert timedelta(seconds=200) == DELETE_AGAIN
    assert made(0, sight(DELETING, since=200)).unhealthy == []
    stubborn = sight(DELETING, age=10_000, since=201)
    assert made(0, stubborn).unhealthy == instances(stubborn)


def test_a_deletion_that_does_not_end_does_not_hold_its_replacement_up() -> None:
    assert made(1, sight(DELETING, since=10_000)).launches == 1


# What is told besides


def test_a_group_at_its_capacity_is_settled() -> None:
    found = made(2, sight("running"), sight("running"), sight(GONE))
    assert (found.settled, found.plan.moving, found.plan.census.moving_since, found.plan.empty) == (True, False, None, False)


def test_a_group_is_empty_when_nothing_is_there_that_could_still_be_a_machine() -> None:
    assert made(0).plan.empty
    assert made(0, sight(GONE), sight(GONE)).plan.empty
    for state in (LAUNCHING, DELETING, "failed", "running", *COMING):
        assert not made(0, sight(state)).plan.empty, state


def test_the_last_movement_is_that_of_what_is_moving() -> None:
    found = made(3, sight("running", since=1), sight("provisioning", since=50), sight(DELETING, since=20))
    assert found.plan.census.moving_since == NOW - timedelta(seconds=20)


# Whatever there is

STATES = st.sampled_from(["running"] * 5 + [*COMING, *BROKEN, LAUNCHING, DOUBTED, DELETING, GONE])
SIGHTS = st.lists(
    st.builds(
        lambda state, age, share, protected: sight(state, age, since=age * share, protected=protected),
        STATES,
        st.integers(0, 1000),
        st.floats(0, 1),
        st.booleans(),
    ),
    max_size=30,
)
WANTED = st.integers(0, 40)


def counts(one: Sight) -> bool:
    """The rule of capacity in other words than the code's."""
    since = (NOW - one.instance.state_since).total_seconds()
    return one.instance.state in {"running", LAUNCHING, DOUBTED} or (one.instance.state in COMING and since <= LIMITS.provision_timeout)


@given(WANTED, SIGHTS)
def test_never_more_is_launched_than_is_missing(wanted: int, sights: list[Sight]) -> None:
    counted = sum(map(counts, sights))
    assert made(wanted, *sights).launches == max(0, wanted - counted)


@given(WANTED, SIGHTS)
def test_nothing_is_launched_while_something_is_too_many(wanted: int, sights: list[Sight]) -> None:
    found = made(wanted, *sights)
    assert not (found.launches and found.surplus)
    assert len(found.surplus) <= max(0, sum(counts(one) and one.instance.machine_id is not None for one in sights) - wanted)


@given(WANTED, SIGHTS)
def test_nothing_is_deleted_twice_nor_what_is_gone_nor_what_has_no_machine(wanted: int, sights: list[Sight]) -> None:
    found = made(wanted, *sights)
    deleted = [*found.unhealthy, *found.surplus]
    assert len({instance.id for instance in deleted}) == len(deleted)
    assert all(instance.machine_id and instance.state != GONE for instance in deleted)


@given(WANTED, SIGHTS)
def test_what_works_is_deleted_only_when_it_is_too_many(wanted: int, sights: list[Sight]) -> None:
    found = made(wanted, *sights)
    kept = [one for one in sights if counts(one) and one.instance not in found.surplus]
    assert not any(one.instance in found.unhealthy for one in kept)
    assert len(kept) >= min(wanted, sum(map(counts, sights)))


@given(SIGHTS)
def test_of_a_group_that_should_be_empty_everything_that_can_be_is_deleted(sights: list[Sight]) -> None:
    found = made(0, *sights)
    young = [one for one in sights if one.instance.state == DELETING and NOW - one.instance.state_since <= DELETE_AGAIN]
    untouchable = {LAUNCHING, DOUBTED, GONE}
    expected = {one.instance.id for one in sights if one.instance.state not in untouchable and one not in young}
    assert found.launches == 0
    assert {instance.id for instance in (*found.unhealthy, *found.surplus)} == expected


@given(WANTED, SIGHTS)
def test_no_machine_is_kept_that_is_older_than_one_that_goes_as_surplus(wanted: int, sights: list[Sight]) -> None:
    found = made(wanted, *sights)
    for protected, running in itertools.product((False, True), (False, True)):
        of_kind = [
            one
            for one in sights
            if one.instance.machine_id and counts(one) and one.protected is protected and (one.instance.state == "running") is running
        ]
        going = [one.instance.launched_at for one in of_kind if one.instance in found.surplus]
        staying = [one.instance.launched_at for one in of_kind if one.instance not in found.surplus]
        assert not going or not staying or max(going) <= min(staying)
    if any(one.protected for one in sights if one.instance in found.surplus):
        unprotected = [one.instance for one in sights if one.instance.machine_id and counts(one) and not one.protected]
        assert set(unprotected) <= set(found.surplus)


@given(WANTED, SIGHTS, st.randoms())
def test_the_order_of_what_is_seen_changes_nothing(wanted: int, sights: list[Sight], random: st.randoms) -> None:  # type: ignore[valid-type]
    shuffled = sights[:]
    random.shuffle(shuffled)
    first, second = made(wanted, *sights), made(wanted, *shuffled)
    assert (first.launches, first.surplus, set(first.unhealthy)) == (second.launches, second.surplus, set(second.unhealthy))


@given(WANTED, SIGHTS)
def test_once_carried_out_a_plan_leaves_nothing_to_do(wanted: int, sights: list[Sight]) -> None:
    found = made(wanted, *sights)
    deleted = {*found.unhealthy, *found.surplus}
    after = [
        one._replace(instance=one.instance._replace(state=DELETING, state_since=NOW)) if one.instance in deleted else one for one in sights
    ]
    after += [sight(LAUNCHING) for _ in range(found.launches)]
    again = made(wanted, *after)
    assert (again.launches, again.unhealthy, again.surplus) == (0, [], [])
