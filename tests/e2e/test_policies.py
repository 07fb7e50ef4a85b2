"""Policies and notifications: workers killed over a decision and over a delivery, all restarted within a cooldown, a flood of calls."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import falcon
import pytest
import requests

from dev.sim.common.server import Server
from tests.e2e.conftest import Owner, Service, doomed, dying, workers_asleep
from tsg_api.resources.policies import CALL_RATE

pytestmark = pytest.mark.stack("often killed")

#: Written, and not committed; committed, and nobody knows.
DECIDING = ("after shared.state.groups:scale", "before shared.state.work:mark_done")
DELIVERING = ("before shared.clients.webhooks:Sender.send", "after shared.clients.webhooks:Sender.send")
FLOOD, AT_ONCE, MOST = 1000, 16, 3


class Receiver(Server):
    """Counts what it gets, by the id of the delivery."""

    def __init__(self) -> None:
        self.got: Counter[str] = Counter()
        super().__init__(self._app)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        self.got[str(req.get_header("webhook-id"))] += 1
        resp.status = falcon.HTTP_204

    def _app(self) -> falcon.App[Any, Any]:
        app: falcon.App[Any, Any] = falcon.App()
        app.add_route("/", self)
        return app


class Caller(Owner):
    """Its webhook makes its empty group larger, and cools down for an hour."""

    def __init__(self, service: Service, cooldown_seconds: int = 3600) -> None:
        super().__init__(service, 0, max_capacity=MOST)
        cooldown = {"out_seconds": cooldown_seconds}
        hook = {"policy_name": "hook", "kind": "webhook", "change": "+1", "cooldown": cooldown}
        self.url = self.tsg.ok("POST", f"/groups/{self.group['id']}/policies", hook, status=201)["webhook_url"]

    def call(self) -> str:
        """The id of the decision."""
        answer = requests.post(self.url, timeout=60)
        assert answer.status_code == 202
        return str(answer.json()["decision_id"])

    def decisions(self) -> dict[str, str]:
        """What came of each."""
        return {one["id"]: one["result"] for one in self.tsg.ok("GET", f"/groups/{self.group['id']}/decisions?limit=1000")}

    def capacity(self) -> int:
        return int(self.tsg.ok("GET", f"/groups/{self.group['id']}")["capacity"])

    def close(self) -> None:
        self.tsg.ok("DELETE", f"/groups/{self.group['id']}", status=204)


@pytest.fixture
def make_owner(calm: Service) -> Iterator[Callable[..., Caller]]:
    owners: list[Caller] = []

    def make(**options: int) -> Caller:
        owners.append(Caller(calm, **options))
        return owners[-1]

    yield make
    for owner in owners:
        owner.close()


def waiting(service: Service) -> tuple[int, int]:
    """Calls and deliveries that wait."""
    calls = "SELECT count(*) FROM tsg_hook_calls WHERE decided_at IS NULL"
    return tuple(service.stack.sql(f"SELECT ({calls}), (SELECT count(*) FROM tsg_deliveries WHERE state = 'waiting')")[0])  # type: ignore[return-value]


def test_a_worker_killed_over_a_decision_or_a_delivery_steps_once_and_tells_it(calm: Service, make_owner: Callable[..., Caller]) -> None:
    stack = calm.stack
    with Receiver() as receiver:
        owners = [make_owner() for _ in DECIDING]
        for owner in owners:
            owner.tsg.ok("POST", "/notifications", {"url": receiver.url, "kinds": ["policy.*"]}, status=201)
        with workers_asleep(calm):
            called = [owner.call() for owner in owners]
            for faults in (DECIDING, DELIVERING):
                # With one thread each: two could both decide for both owners before the first of them dies.
                dying(calm, {fault: doomed(calm, fault, "tsg-worker", "--threads=1") for fault in faults})
        calm.wait("all is decided and told", lambda: waiting(calm) == (0, 0))
        told = {row[0]: row[1] for row in stack.sql("SELECT id::text, state FROM tsg_deliveries")}
        assert told == dict.fromkeys(receiver.got, "delivered")
        assert len(told) == len(owners)
    for owner, its_id in zip(owners, called, strict=True):
        assert (owner.decisions(), owner.capacity()) == ({its_id: "changed"}, 1)
    # Everything but the cloud is killed, and started again.
    for name, child in stack.processes.items():
        if name != "cloudapi":
            child.kill()
    stack.valkey.stop()
    stack.postgres.stop()
    stack.restart_the_dead()
    for owner in owners:
        again = owner.call()
        calm.wait("the call is decided about", lambda owner=owner, again=again: again in owner.decisions())  # type: ignore[misc]
        assert (owner.decisions()[again], owner.capacity()) == ("cooldown", 1)


def test_a_flood_of_calls_changes_what_the_rules_allow_and_keeps_nobody_else_waiting(
    calm: Service, make_owner: Callable[..., Caller]
) -> None:
    owner, began = make_owner(cooldown_seconds=0), time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        flood = pool.map(lambda url: requests.post(url, timeout=60).status_code, repeat(owner.url, FLOOD))
        other = [calm.tsg("GET", "/groups").status_code for _ in range(50)]
        assert Counter(flood) == {202: FLOOD}
    elapsed = time.monotonic() - began
    assert set(other) == {200}
    hook = {"policy_name": "behind what ends TLS", "kind": "webhook", "change": "+1"}
    made = owner.tsg("POST", f"/groups/{owner.group['id']}/policies", hook, headers={"X-Forwarded-Proto": "https"})
    assert made.json()["webhook_url"].startswith("https://")
    calm.wait("all calls are decided about", lambda: waiting(calm)[0] == 0)
    results = Counter(owner.decisions().values())
    assert results["changed"] == owner.capacity() == MOST
    assert results.total() == results["changed"] + results["clamped"] <= CALL_RATE * (elapsed + 5) + 1
