"""Programs killed with SIGKILL at every step of what they do: others end what was begun, and no machine is made or deleted twice."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests

from dev.faults import killed
from tests.e2e.conftest import Owner, Service, doomed, dying, workers_asleep

pytestmark = pytest.mark.stack("often killed")

#: What a pass over a group does, in order; `2`: at the second of its two machines.
LAUNCHING = (
    "after shared.state.leases:claim",
    "after shared.state.instances:insert_launch 2",
    "after shared.clients.cloudapi:Client.create_machine",
    "before shared.state.group_state:mark_checked",
    "before shared.state.leases:release",
)
DELETING = (
    "after shared.clients.cloudapi:Client.delete_machine",
    "after shared.state.instances:mark_deleting",
    "before shared.state.group_state:mark_emptied",
)


@contextmanager
def doomed_api(service: Service, *faults: str) -> Iterator[Callable[[], None]]:
    """An API that is killed at each of the faults. What is yielded waits for its death, and starts another one."""
    stack = service.stack

    def start() -> None:
        stack.start_api(killed(*faults))

    def start_again() -> None:
        service.wait("the API is killed", lambda: stack.processes["api"].status is not None)
        assert stack.processes["api"].status == -signal.SIGKILL
        start()

    stack.processes["api"].stop()
    start()
    try:
        yield start_again
    finally:
        stack.processes["api"].stop()
        stack.restart_the_dead()


def lives(service: Service, group: dict[str, object]) -> list[list[str]]:
    """What befell each machine that the group ever had."""
    rows = service.stack.cloud("GET", "/machines")
    return [[event for _, event in row["life"]] for row in rows if row["tags"].get("tsg.group") == group["id"]]


def test_what_is_killed_at_any_step_is_made_good(calm: Service) -> None:
    emptying = [Owner(calm, 2) for _ in DELETING]
    for owner in emptying:
        calm.settles(owner.group, 2)
    with workers_asleep(calm):
        for owner in emptying:
            owner.tsg.ok("DELETE", f"/groups/{owner.group['id']}", status=204)
        filling = [Owner(calm, 2) for _ in LAUNCHING]
        steps = [*zip(filling, LAUNCHING, strict=True), *zip(emptying, DELETING, strict=True)]
        dying(calm, {fault: doomed(calm, fault, "tsg-scale", "--wait", str(owner.group["id"])) for owner, fault in steps})
        filling.append(Owner(calm, 2))
        # A worker that has got a wake-up, and one that has not given its lease back yet.
        heard = ("before shared.state.leases:claim", "before shared.state.leases:release")
        dying(calm, {fault: doomed(calm, fault, "tsg-worker") for fault in heard})
        # A clock that has claimed what it was going to wake. No other wake-up is left.
        calm.stack.processes["clock"].stop()
        calm.stack.valkey.flush()
        dying(calm, {"tsg-clock": doomed(calm, "before shared.clients.queue:send 2", "tsg-clock")})
    calm.stack.restart_the_dead()
    for owner, fault in zip(filling, [*LAUNCHING, "by a worker"], strict=True):
        calm.settles(owner.group, 2)
        assert lives(calm, owner.group) == [["provisioning", "running"]] * 2, fault
    for owner, fault in zip(emptying, DELETING, strict=True):
        calm.wait(
            f"the group is empty, killed {fault}", lambda owner=owner: calm.is_emptied(owner.group) and not calm.machines(owner.group)
        )
        assert lives(calm, owner.group) == [["provisioning", "running", "destroy", "stopping", "deleted"]] * 2, fault
    for owner in filling:
        owner.tsg.ok("DELETE", f"/groups/{owner.group['id']}", status=204)


def test_an_api_killed_at_any_step_has_done_all_or_nothing(calm: Service) -> None:
    resized, grown, deleted = (calm.make_group(0) for _ in range(3))
    wanted = {"group_name": "never", "template_id": grown["template_id"], "capacity": 1}
    with doomed_api(
        calm,
        "before shared.state.groups:insert_group",  # nothing is written
        "after shared.state.groups:update_group",  # it is written, and not committed
        "after tsg_api.http.write:change",  # it is committed; nobody is told, neither the workers nor the user
    ) as start_again:
        for method, path, body in (
            ("POST", "/groups", wanted),
            ("PUT", f"/groups/{resized['id']}", {**resized, "capacity": 3}),
            ("PUT", f"/groups/{grown['id']}/increment", {"instance_count": 2, "max_instance": 9}),
            ("DELETE", f"/groups/{deleted['id']}", None),
        ):
            with pytest.raises(requests.ConnectionError):
                calm.tsg(method, path, body)
            start_again()
        found = {group["group_name"]: group["capacity"] for group in calm.tsg.ok("GET", "/groups")}
        assert found == {resized["group_name"]: 0, grown["group_name"]: 2}
    calm.settles(grown, 2)
    assert calm.counters()["creates_accepted"] == 2
