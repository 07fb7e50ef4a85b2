"""What groups and rollouts may be set to: limits, defaults, and the documents that hold them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.errors import OtherRelease
from shared.spec import group_settings, rollout_settings
from shared.spec.group_settings import DEFAULT, GroupSettings, Suspension
from shared.spec.rollout_settings import Amount, RolloutSettings

AMOUNT = 'must be a number of instances, 0 to 10000, or a share of the capacity: "0%" to "100%"'
NOW = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)


def settings(**values: Any) -> GroupSettings:
    return GroupSettings.model_validate_json(json.dumps(values))


def rollout(**values: Any) -> RolloutSettings:
    return RolloutSettings.model_validate_json(json.dumps(values))


def wrong(kind: type[GroupSettings | RolloutSettings], **values: Any) -> list[str]:
    """The messages that these values are refused with."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate_json(json.dumps(values))
    return [error["msg"] for error in caught.value.errors()]


def test_what_nobody_set_is_as_in_2018_and_needs_no_document() -> None:
    assert group_settings.to_document(DEFAULT) is None
    assert group_settings.from_document(None) is DEFAULT
    assert (DEFAULT.min_capacity, DEFAULT.max_capacity, DEFAULT.health_check, DEFAULT.drain, DEFAULT.suspended) == (0, None, None, None, ())
    assert DEFAULT.update.model_dump() == {"strategy": "manual"}


def test_a_document_says_what_was_set() -> None:
    told = settings(
        min_capacity=2,
        max_capacity=8,
        ready_seconds=5,
        health_check={"type": "http", "port": 80, "expect": [200, 299]},
        drain={"seconds": 30},
        termination_policy=["newest"],
        update={"strategy": "rolling", "max_surge": "20%", "steps": [{"percent": 10, "pause": True}, {"percent": 100}]},
        suspended=["launch"],
        suspend_reason="a night of work",
        suspended_until="2026-11-28T00:00:00+01:00",
    )
    document = group_settings.to_document(told)
    assert document is not None
    assert json.loads(document)["version"] == group_settings.VERSION
    assert group_settings.from_document(document) == told
    assert rollout_settings.from_document(rollout_settings.to_document(told.update.rollout)) == told.update.rollout


@pytest.mark.parametrize("document", ['{"version": 2, "fields": {}}', "[]", '{"version": 1, "fields": {"unheard_of": 1}}', "nonsense"])
def test_a_document_of_another_release_is_not_read_by_halves(document: str) -> None:
    with pytest.raises(OtherRelease):
        group_settings.from_document(document)


def test_null_is_the_default() -> None:
    assert settings(health_check=None, min_capacity=None, update=None) == DEFAULT
    assert rollout(max_surge=None, steps=None) == RolloutSettings()


def test_all_that_is_wrong_is_told_at_once() -> None:
    assert wrong(
        GroupSettings,
        min_capacity=-1,
        ready_seconds=3601,
        health_check={"type": "ping", "port": 0, "path": "x", "expect": [400, 200], "network": "n"},
        drain={"cns": 1},
        termination_policy=["oldest", "oldest"],
        suspended=["sleep"],
        suspended_until=17,
    ) == [
        "cannot be negative",
        "Input should be less than or equal to 3600",
        "Input should be 'http' or 'tcp'",
        "Input should be greater than or equal to 1",
        "must begin with / and have at most 1024 printable ASCII characters, no blanks",
        "must be two HTTP statuses from 100 to 599, the lower one first",
        "the network of a health_check must be a valid UUID",
        "Field required",
        "Input should be a valid boolean",
        "cannot have oldest more than once",
        "Input should be 'launch', 'terminate', 'replace' or 'policies'",
        "must be a moment as RFC 3339 has it, such as 2026-11-27T09:30:00Z",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_surge": 0}, "max_surge and max_unavailable cannot both be 0: nothing could be replaced"),
        ({"max_surge": "0%"}, "max_surge and max_unavailable cannot both be 0: nothing could be replaced"),
        ({"max_surge": "101%"}, AMOUNT),
        (
            {"max_unavailable": True},
            AMOUNT,
        ),
        ({"max_surge": 1.5}, AMOUNT),
        ({"steps": []}, "must end with a step of percent 100"),
        ({"steps": [{"percent": 50}]}, "must end with a step of percent 100"),
        ({"steps": [{"percent": 100}, {"percent": 100}]}, "must each have a larger percent than the one before"),
        (
            {"steps": [{"percent": 100, "pause": True, "pause_seconds": 1}]},
            "a step has pause (until it is resumed) or pause_seconds: give one of them",
        ),
        ({"on_failure": "retry"}, "Input should be 'pause', 'stop' or 'rollback'"),
        ({"max_failures": 0}, "Input should be greater than or equal to 1"),
        ({"speed": 1}, f"a rollout has no 'speed': it has {', '.join(RolloutSettings.model_fields)}"),
    ],
)
def test_a_rollout_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    assert wrong(RolloutSettings, **values) == [message]


@given(capacity=st.integers(0, 10_000), percent=st.integers(0, 100))
def test_a_share_that_may_be_there_is_rounded_up_and_one_that_may_be_missing_down(capacity: int, percent: int) -> None:
    share = Amount(percent, is_percent=True)
    assert 0 <= share.of(capacity, up=True) * 100 - capacity * percent < 100
    assert 0 <= capacity * percent - share.of(capacity, up=False) * 100 < 100


def test_shares_that_come_to_nothing_let_one_be_unavailable() -> None:
    assert rollout(max_surge=0, max_unavailable="10%").bounds(5) == (0, 1)
    assert rollout(max_surge=0, max_unavailable="10%").bounds(20) == (0, 2)
    assert rollout(max_surge="10%").bounds(5) == (1, 0)


def test_a_suspension_ends_by_itself() -> None:
    told = settings(suspended=["launch"], suspended_until=NOW.isoformat())
    assert told.is_suspended(Suspension.LAUNCH, NOW - timedelta(seconds=1))
    assert not told.is_suspended(Suspension.LAUNCH, NOW)
    assert not told.is_suspended(Suspension.TERMINATE, NOW - timedelta(seconds=1))
    assert settings(suspended=["launch"]).is_suspended(Suspension.LAUNCH, NOW)
