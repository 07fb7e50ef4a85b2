"""Rollouts, drains and updates: killed at every step, scaled meanwhile, with members that die. Nothing is done twice."""

import signal
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import requests

from dev.faults import killed
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE, LARGE_PACKAGE
from tests.e2e.conftest import Owner, Service, doomed, dying, workers_asleep
from tests.e2e.test_every_step import lives

pytestmark = pytest.mark.stack("often killed")

STAYED, WENT = ["provisioning", "running"], ["provisioning", "running", "destroy", "stopping", "deleted"]


class Case(NamedTuple):
    """Where a program is killed, and what is different about the new template and the group."""

    fault: str
    template: dict[str, Any]
    group: dict[str, Any]


ANEW: dict[str, Any] = {"package": LARGE_PACKAGE}
DRAINS: dict[str, Any] = {"drain": {"seconds": 1}}
CASES = (
    Case("before shared.state.rollouts:mark_progress", ANEW, {}),
    Case("after shared.state.rollouts:mark_progress 2", ANEW, {}),
    Case("after shared.state.instances:insert_launch", ANEW, {}),
    Case("after shared.clients.cloudapi:Client.create_machine 2", ANEW, {}),
    Case("after shared.clients.cloudapi:Client.delete_machine", ANEW, {}),
    Case("after shared.state.instances:mark_deleting 2", ANEW, {}),
    Case("after shared.state.instances:mark_draining", ANEW, DRAINS),
    Case("after shared.clients.cloudapi:Client.add_metadata 2", ANEW, DRAINS),
    Case("before shared.state.instances:mark_drained", ANEW, DRAINS),
    Case("after shared.clients.cloudapi:Client.add_metadata", {"metadata": {"a": "2"}}, {}),
    Case("after shared.clients.cloudapi:Client.add_tags 2", {"metadata": {"a": "2"}}, {}),
    Case("before shared.state.instances:mark_updated", {"metadata": {"a": "2"}}, {}),
)


class Roller(Owner):
    """What it has rolled out to its group."""

    def template(self, name: str, **fields: Any) -> str:
        return super().template(name, cns_services=["web:80"], **fields)

    def roll(self, template_id: str, **settings: Any) -> str:
        body = {"template_id": template_id, "max_surge": 1, "bake_seconds": 0, **settings}
        return str(self.tsg.ok("POST", f"/groups/{self.group['id']}/rollouts", body, status=201)["id"])

    def machine_by_hand(self) -> str:
        """A machine that is made without the service, and runs."""
        url, headers = f"{self.service.stack.cloud_url}/{self.name}/machines", {**self.tsg.headers(), "Accept-Version": "~9"}
        made = requests.post(url, json={"package": DEFAULT_PACKAGE, "image": DEFAULT_IMAGE}, headers=headers, timeout=30)
        machine_id = str(made.json()["id"])
        self.service.wait("it runs", lambda: self._machine(machine_id)["state"] == "running")
        return machine_id

    def tags(self, machine_id: str) -> set[str]:
        return set(self._machine(machine_id)["tags"])

    def _machine(self, machine_id: str) -> Any:
        return next(machine for machine in self.service.stack.cloud("GET", "/machines?live=true") if machine["id"] == machine_id)

    def members(self) -> int:
        """As the rows have them: the API may be dead."""
        ((count,),) = self.service.stack.sql("SELECT count(*) FROM tsg_instances WHERE group_id = %s AND gone_at IS NULL", self.group["id"])
        return int(count)

    def rollout(self, rollout_id: str) -> Any:
        return self.tsg.ok("GET", f"/groups/{self.group['id']}/rollouts/{rollout_id}")

    def ends(self, rollout_id: str, state: str = "Successful") -> None:
        self.service.wait("the rollout ends", lambda: self.rollout(rollout_id)["ended_at"] is not None)
        assert self.rollout(rollout_id)["state"] == state, self.rollout(rollout_id)


def kill_api_over(service: Service, fault: str, request: Callable[[], object]) -> None:
    """An API that is killed at the fault takes the place of the one that is there, and dies of the request."""
    stack = service.stack
    stack.processes["api"].stop()
    stack.start_api(killed(fault))
    with pytest.raises(requests.ConnectionError):
        request()
    service.wait("the API is killed", lambda: stack.processes["api"].status is not None)
    assert stack.processes["api"].status == -signal.SIGKILL


def test_what_is_killed_at_any_step_of_a_rollout_is_made_good(calm: Service) -> None:
    owners = [Roller(calm, 2, **case.group) for case in CASES]
    for owner in owners:
        calm.settles(owner.group, 2)
    with workers_asleep(calm):
        begun = [owner.roll(owner.template("new", **case.template)) for owner, case in zip(owners, CASES, strict=True)]
        dying(
            calm,
            {
                f"{case.fault} {owner.group['id']}": doomed(calm, case.fault, "tsg-scale", "--wait", str(owner.group["id"]))
                for owner, case in zip(owners, CASES, strict=True)
            },
        )
    for owner, rollout, case in zip(owners, begun, CASES, strict=True):
        owner.ends(rollout)
        calm.settles(owner.group, 2)
        found = sorted(lives(calm, owner.group), key=len)
        assert found == ([STAYED] * 2 + [WENT] * 2 if case.template is ANEW else [STAYED] * 2), case.fault
        owner.tsg.ok("DELETE", f"/groups/{owner.group['id']}", status=204)


def test_an_api_that_is_killed_over_a_rollout_has_begun_it_or_not(calm: Service) -> None:
    owner = Roller(calm, 1)
    calm.settles(owner.group, 1)
    path, body = f"/groups/{owner.group['id']}/rollouts", {"template_id": owner.template("new", **ANEW), "max_surge": 1, "bake_seconds": 0}
    # Written, and not committed; committed, and nobody knows.
    for fault, expected in (("after shared.state.rollouts:insert_rollout", 0), ("after tsg_api.http.write:change", 1)):
        kill_api_over(calm, fault, lambda: owner.tsg("POST", path, body))
        assert calm.stack.sql("SELECT count(*) FROM tsg_rollouts WHERE group_id = %s", owner.group["id"]) == [(expected,)]
    calm.stack.restart_the_dead()
    owner.ends(owner.tsg.ok("GET", path)[0]["id"])
    calm.settles(owner.group, 1)
    assert sorted(lives(calm, owner.group), key=len) == [STAYED, WENT]
    owner.tsg.ok("DELETE", f"/groups/{owner.group['id']}", status=204)


def test_an_api_that_is_killed_between_a_members_row_and_its_tags_is_asked_again(calm: Service) -> None:
    owner = Roller(calm, 1)
    calm.settles(owner.group, 1)
    machine_id = owner.machine_by_hand()
    path = f"/groups/{owner.group['id']}/members"
    adoption, detachment = ("POST", path, {"machine_id": machine_id}), ("POST", f"{path}/{machine_id}/detach", {"decrement": True})
    kill_api_over(calm, "before tsg_api.resources.members:_tag", lambda: owner.tsg(*adoption))
    assert owner.members() == 2
    assert owner.tags(machine_id) == set(), "a member, and nobody else knows"

    def adopt_and_detach() -> None:
        owner.tsg.ok(*adoption, status=201)
        calm.wait("it has the group's tags", lambda: {"tsg.group", "tsg.name"} <= owner.tags(machine_id))
        owner.tsg(*detachment)

    kill_api_over(calm, "before shared.state.members:detach", adopt_and_detach)
    assert owner.members() == 2
    calm.wait("its tags are gone", lambda: not owner.tags(machine_id))
    calm.stack.restart_the_dead()
    owner.tsg.ok(*detachment, status=204)
    calm.settles(owner.group, 1)
    assert lives(calm, owner.group) == [STAYED], "nothing was launched in its place"
    assert owner.tags(machine_id) == set()
    owner.tsg.ok("DELETE", f"/groups/{owner.group['id']}", status=204)


def test_a_rollout_ends_while_cloudapi_fails_members_die_and_the_group_is_scaled(calm: Service) -> None:
    owner = Roller(calm, 10)
    calm.settles(owner.group, 10)
    new = owner.template("new", **ANEW)
    rollout = owner.roll(new, max_surge="50%", max_failures=1000)
    calm.stack.knobs(error_share=0.3)
    calm.wait("it has begun", lambda: owner.rollout(rollout)["counts"]["new"] > 0)
    body = {"group_name": "g", "template_id": new}
    owner.tsg.ok("PUT", f"/groups/{owner.group['id']}", {**body, "capacity": 14})
    for name in ("api", "clock", next(name for name in calm.stack.processes if name.startswith("worker"))):
        calm.stack.processes[name].kill()
    calm.stack.postgres.kill()
    calm.stack.postgres.start()
    calm.stack.restart_the_dead()
    calm.stack.cloud("POST", f"/machines/{calm.machines(owner.group)[0]['id']}/kill")
    calm.wait("it has grown", lambda: calm.running(owner.group) >= 14)
    path = f"/groups/{owner.group['id']}"
    # CloudAPI may fail over the caller's key, which an API that was just started has to ask for.
    calm.wait("it is asked to shrink", lambda: owner.tsg("PUT", path, {**body, "capacity": 4}).status_code == 200)
    calm.stack.knobs(error_share=0.0)
    owner.ends(rollout)
    calm.settles(owner.group, 4)
    assert {machine["tags"]["tsg.template"] for machine in calm.machines(owner.group)} == {new}
    owner.tsg.ok("DELETE", f"/groups/{owner.group['id']}", status=204)
