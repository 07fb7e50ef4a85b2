"""What is remembered of callers, and for how long."""

import pytest

from shared.clients.cloudapi import TritonAccount
from shared.clients.keys import generate
from shared.clients.signature import parse
from tsg_api.auth import caller_keys
from tsg_api.auth.caller_keys import REFRESH_AFTER, RETRY_SECONDS, CallerKeys, Claim

LINE, OTHER_LINE = generate().public_line, generate().public_line
OWNER = TritonAccount("d82a1f04-b9f6-4075-998f-af20e3d49de6", "demo")
CREDENTIALS = parse('Signature keyId="/demo/keys/laptop",algorithm="rsa-sha256",headers="date" QUJD')
IDENTITY = ("demo", None, "laptop")


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def keys(time: Time) -> CallerKeys:
    return CallerKeys(300, now=time)


def claim(date: str = "today") -> Claim:
    return Claim(CREDENTIALS, date, date.encode(), "192.0.2.1")


def test_a_key_is_believed_for_its_time_and_remembered_for_longer(keys: CallerKeys, time: Time) -> None:
    known = keys.put(IDENTITY, LINE, OWNER, at=time.now, seconds=1e9, may_write=True)
    time.now += 299
    assert keys.is_believed(known)
    time.now += 1
    assert not keys.is_believed(known)
    assert keys.get(IDENTITY) == known


def test_a_key_is_believed_from_when_cloudapi_was_asked_and_for_no_longer_than_it_said(keys: CallerKeys, time: Time) -> None:
    assert keys.put(IDENTITY, LINE, OWNER, at=time.now - 4, seconds=100, may_write=True).until == time.now + 96


def test_a_key_in_use_is_asked_for_again_by_one_at_a_time(keys: CallerKeys, time: Time) -> None:
    keys.put(IDENTITY, LINE, OWNER, at=time.now, seconds=1e9, may_write=True)
    for seconds, is_due in ((300 * REFRESH_AFTER - 1, False), (1, True), (RETRY_SECONDS - 1, False), (1, True)):
        time.now += seconds
        known = keys.get(IDENTITY)
        assert known
        assert keys.is_due(known) == is_due
        if is_due:
            keys.postpone(IDENTITY)


def test_headers_are_recognized_for_as_long_as_their_key_is_the_same_and_believed(keys: CallerKeys, time: Time) -> None:
    known = keys.put(IDENTITY, LINE, OWNER, at=time.now, seconds=1e9, may_write=True)
    keys.remember("signature", claim(), known)
    assert keys.recognize("signature", "today") == (claim(), known)
    assert keys.recognize("signature", "tomorrow") is None
    assert keys.recognize("another", "today") is None
    time.now += 299
    again = keys.put(IDENTITY, LINE, OWNER, at=time.now, seconds=1e9, may_write=True)
    assert keys.recognize("signature", "today") == (claim(), again)
    keys.put(IDENTITY, OTHER_LINE, OWNER, at=time.now, seconds=1e9, may_write=True)
    assert keys.recognize("signature", "today") is None


def test_headers_of_a_key_that_has_run_out_or_was_forgotten_are_not_recognized(keys: CallerKeys, time: Time) -> None:
    keys.remember("signature", claim(), keys.put(IDENTITY, LINE, OWNER, at=time.now, seconds=1e9, may_write=True))
    time.now += 300
    assert keys.recognize("signature", "today") is None
    keys.put(IDENTITY, LINE, OWNER, at=time.now, seconds=1e9, may_write=True)
    assert keys.recognize("signature", "today")
    keys.forget(IDENTITY)
    assert keys.recognize("signature", "today") is None


def test_of_many_keys_and_headers_the_newest_are_remembered(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_keys, "MOST_PAIRS", 3)
    monkeypatch.setattr(caller_keys, "MOST", 3)
    keys = CallerKeys(300, now=time)
    for number in range(5):
        known = keys.put(("demo", None, str(number)), LINE, OWNER, at=time.now, seconds=1e9, may_write=True)
    assert [bool(keys.get(("demo", None, str(number)))) for number in range(5)] == [False, False, True, True, True]
    known = keys.put(IDENTITY, LINE, OWNER, at=time.now, seconds=1e9, may_write=True)
    for second in range(5):
        keys.remember("signature", claim(str(second)), known)
    assert [bool(keys.recognize("signature", str(second))) for second in range(5)] == [False, False, True, True, True]
