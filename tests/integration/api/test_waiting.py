"""`status?wait`: who waits is answered when it is over, keeps no thread from others, and leaves room for other accounts."""

import http.client
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from email.message import Message
from typing import Any, NamedTuple

import pytest
import requests

from dev.processes import wait_for
from shared import metrics
from shared.reasons import Reason
from tests.integration.api.service import Api, Caller
from tests.integration.api.test_explain import Group, instances, looked_at, status
from tsg_api.http.waiting import Watcher

#: Threads of the server that the tests' API runs on.
THREADS = 8


def test_a_request_that_cannot_be_answered_costs_the_others_nothing() -> None:
    watcher, failed = Watcher[str](lambda _awaited: True, threading.Event()), threading.Event()

    def fail() -> None:
        failed.set()
        raise OSError("its connection is no more")

    watcher.add("one", 60, fail, lambda: False)
    assert failed.wait(60)
    watcher.wait("other", 60)


@pytest.mark.parametrize("end", [Reason.SETTLED, Reason.TEMPLATE_REJECTED, Reason.QUOTA_EXCEEDED, Reason.CIRCUIT_OPEN])
def test_who_waits_is_answered_when_it_is_over(api: Api, tsg: Caller, end: Reason) -> None:
    group = tsg.make_group(1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(status, tsg, group, "?wait=60")
        for kept_by in (Reason.PROVISIONING, Reason.THROTTLED, Reason.CLOUDAPI_UNAVAILABLE):
            looked_at(api, group, kept_by)
            assert not waiting.done()
        looked_at(api, group, end)
        assert waiting.result(timeout=20)["reason"] == end


def test_who_waits_in_vain_is_told_how_it_stands(tsg: Caller) -> None:
    group = tsg.make_group(1)
    began = time.monotonic()
    assert status(tsg, group, "?wait=0.3")["settled"] is False
    assert time.monotonic() - began >= 0.3


def test_who_has_seen_a_status_is_answered_when_it_changes(api: Api, tsg: Caller) -> None:
    group = tsg.make_group(2)
    looked_at(api, group, Reason.PROVISIONING)
    path = f"/groups/{group['id']}/status"
    seen = tsg("GET", path).headers["ETag"]
    assert tsg("GET", path, headers={"If-None-Match": seen}).status_code == 304
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(tsg, "GET", f"{path}?wait=60", headers={"If-None-Match": seen})
        instances(api, group, "provisioning")
        answer = waiting.result(timeout=20)
    assert (answer.status_code, answer.json()["provisioning"], answer.json()["settled"]) == (200, 1, False)
    assert answer.headers["ETag"] != seen


def test_a_settled_group_is_waited_for_too_by_who_has_seen_it(api: Api, tsg: Caller) -> None:
    group = tsg.make_group(0)
    looked_at(api, group, Reason.SETTLED)
    path = f"/groups/{group['id']}/status"
    seen = tsg("GET", path).headers["ETag"]
    api.sql("UPDATE tsg_group_state SET checked_at = now(), check_at = now() + interval '9 seconds' WHERE group_id = :id", id=group["id"])
    answer = tsg("GET", f"{path}?wait=0.3", headers={"If-None-Match": seen})
    assert (answer.status_code, answer.headers["ETag"]) == (304, seen), "another look that found the same is no change"
    assert tsg("GET", f"{path}?wait=60", headers={"If-None-Match": '"another"'}).json()["settled"], "it is answered at once"


def held(api: Api) -> int:
    """Requests that wait for a group."""
    return api.slots.settling.held


def answered() -> float:
    """Requests for a status that were answered with 200."""
    labels = {"method": "GET", "route": "/v1/tsg/groups/{group_id}/status", "status": "200"}
    return metrics.REGISTRY.get_sample_value("tsg_http_requests_total", labels) or 0.0


def asks(tsg: Caller, group: Group, seconds: float = 60) -> requests.Response:
    return tsg("GET", f"/groups/{group['id']}/status?wait={seconds}")


def test_sixty_who_wait_keep_no_thread_from_another_account_nor_a_slot(make_api: Callable[..., Api]) -> None:
    api = make_api()
    many, other = api.new_account(), api.new_account()
    groups = [many.make_group(1) for _ in range(3)]
    own = other.make_group(1)
    with ThreadPoolExecutor(61) as pool:
        waiting = [pool.submit(asks, many, groups[number % 3]) for number in range(60)]
        assert wait_for(lambda: held(api) == 60, seconds=30)
        one = pool.submit(asks, other, own)
        assert wait_for(lambda: held(api) == 61, seconds=30)
        # Everything else goes on, though far more wait than there are threads.
        assert other.ok("GET", f"/groups/{own['id']}") == own
        assert many.capacity(groups[0]) == 1
        looked_at(api, own, Reason.SETTLED)
        assert one.result(timeout=30).json()["settled"]
        assert not any(each.done() for each in waiting)
        for group in groups:
            looked_at(api, group, Reason.SETTLED)
        assert all(each.result(timeout=30).json()["settled"] for each in waiting)
    assert held(api) == 0


def test_one_account_may_not_have_all_slots(make_api: Callable[..., Api]) -> None:
    """On a server that can't park requests there are three for eight threads: two for one account."""
    api = make_api(threads=THREADS, parks=False)
    many, other = api.new_account(), api.new_account()
    group, own = many.make_group(1), other.make_group(1)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(asks, many, group) for _ in range(2)]
        assert wait_for(lambda: held(api) == 2, seconds=30)
        refused = asks(many, group)
        assert (refused.json()["settled"], refused.headers["Retry-After"]) == (False, "1")
        waiting.append(pool.submit(asks, other, own))
        assert wait_for(lambda: held(api) == 3, seconds=30)
        assert asks(other, own).headers["Retry-After"] == "1"
        looked_at(api, group, Reason.SETTLED)
        looked_at(api, own, Reason.SETTLED)
        assert all(each.result(timeout=30).json()["settled"] for each in waiting)


def test_who_hangs_up_waits_no_more(make_api: Callable[..., Api]) -> None:
    api = make_api()
    tsg = api.new_account()
    group = tsg.make_group(1)
    raw = Raw(tsg)
    raw.ask(f"/groups/{group['id']}/status?wait=60")
    assert wait_for(lambda: held(api) == 1, seconds=30)
    raw.connection.close()
    assert wait_for(lambda: held(api) == 0, seconds=10)


def test_a_request_that_waited_is_one_request(make_api: Callable[..., Api]) -> None:
    """It is counted once, by the limits and by the metrics, and its connection is of use for the next."""
    roomy = make_api()
    owner = roomy.new_account()
    group = owner.make_group(1)
    strict = make_api(database=roomy.db, simulator=roomy.sim, rate_per_account=0.01, rate_per_address=0.01)  # 1 at once
    raw, path, before = Raw(Caller(strict, owner.triton)), f"/groups/{group['id']}/status", answered()
    with closing(raw.connection):
        raw.ask(f"{path}?wait=0.4", request_id="first")
        answer = raw.answer()
        assert (answer.status, answer.headers["X-Request-Id"]) == (200, "first")
        assert json.loads(answer.body)["settled"] is False
        assert answered() - before == 1
        raw.ask(path, request_id="second")
        assert raw.answer().status == 429


def test_a_group_that_cannot_be_looked_at_is_an_error_and_not_a_wait(make_api: Callable[..., Api]) -> None:
    api = make_api()
    tsg = api.new_account()
    group = tsg.make_group(1)
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[Any] = pool.submit(asks, tsg, group)
        assert wait_for(lambda: held(api) == 1, seconds=30)
        api.sql("ALTER TABLE tsg_instances RENAME COLUMN state TO other")
        assert waiting.result(timeout=30).status_code == 500
    assert held(api) == 0


def test_who_waits_is_answered_when_the_process_is_to_stop(make_api: Callable[..., Api]) -> None:
    api = make_api()
    tsg = api.new_account()
    group = tsg.make_group(1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(asks, tsg, group)
        assert wait_for(lambda: held(api) == 1, seconds=30)
        api.stop_waiting()
        answer = waiting.result(timeout=10)
    assert (answer.status_code, answer.json()["settled"]) == (200, False)


class Raw:
    """One connection, without a client that would open another."""

    def __init__(self, tsg: Caller) -> None:
        host, _, port = tsg.api.url.removeprefix("http://").partition(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=30)
        self._tsg = tsg

    def ask(self, path: str, request_id: str = "raw") -> None:
        self.connection.request("GET", f"/v1/tsg{path}", headers={**self._tsg.signed(), "X-Request-Id": request_id})

    def answer(self) -> "Answered":
        found = self.connection.getresponse()
        return Answered(found.status, found.headers, found.read())


class Answered(NamedTuple):
    status: int
    headers: Message
    body: bytes
