"""Rollouts, drains and updates: killed at every step, scaled meanwhile, with members that die. Nothing is done twice."""

import uuid
from typing import Any, NamedTuple

import pytest
import requests

from dev.client import Tsg
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE, LARGE_PACKAGE
from tests.e2e.conftest import Service, doomed, dying, workers_asleep
from tests.e2e.test_every_step import doomed_api, lives

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


class Owner:
    """An account of its own with one group, and what it has rolled out."""

    def __init__(self, service: Service, capacity: int, **group: Any) -> None:
        stack = service.stack
        name = f"owner-{uuid.uuid4().hex[:8]}"
        stack.add_account(name)
        self.service = service
        self.tsg = Tsg(stack.url, name, stack.key_file, stack.key_id)
        body = {"group_name": "g", "template_id": self.template("old"), "capacity": capacity, **group}
        self.group = self.tsg.ok("POST", "/groups", body, status=201)

    def template(self, name: str, **fields: Any) -> str:
        body = {"template_name": name, "package": DEFAULT_PACKAGE, "image_id": DEFAULT_IMAGE, "cns_services": ["web:80"], **fields}
        return str(self.tsg.ok("POST", "/templates", body, status=201)["id"])

    def roll(self, template_id: str, **settings: Any) -> str:
        body = {"template_id": template_id, "max_surge": 1, "bake_seconds": 0, **settings}
        return str(self.tsg.ok("POST", f"/groups/{self.group['id']}/rollouts", body, status=201)["id"])

    def rollout(self, rollout_id: str) -> Any:
        return self.tsg.ok("GET", f"/groups/{self.group['id']}/rollouts/{rollout_id}")

    def ends(self, rollout_id: str, state: str = "Successful") -> None:
        self.service.wait("the rollout ends", lambda: self.rollout(rollout_id)["ended_at"] is not None)
        assert self.rollout(rollout_id)["state"] == state, self.rollout(rollout_id)


def test_what_is_killed_at_any_step_of_a_rollout_is_made_good(calm: Service) -> None:
    owners = [Owner(calm, 2, **case.group) for case in CASES]
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
    owner = Owner(calm, 1)
    calm.settles(owner.group, 1)
    path, body = f"/groups/{owner.group['id']}/rollouts", {"template_id": owner.template("new", **ANEW), "max_surge": 1, "bake_seconds": 0}
    # Written, and not committed; committed, and nobody knows.
    for fault, expected in (("after shared.state.rollouts:insert_rollout", 0), ("after tsg_api.http.write:change", 1)):
        with doomed_api(calm, fault) as start_again:
            with pytest.raises(requests.ConnectionError):
                owner.tsg("POST", path, body)
            start_again()
            assert len(owner.tsg.ok("GET", path)) == expected
    owner.ends(owner.tsg.ok("GET", path)[0]["id"])
    calm.settles(owner.group, 1)
    assert sorted(lives(calm, owner.group), key=len) == [STAYED, WENT]
    owner.tsg.ok("DELETE", f"/groups/{owner.group['id']}", status=204)


def test_a_rollout_ends_while_cloudapi_fails_members_die_and_the_group_is_scaled(calm: Service) -> None:
    owner = Owner(calm, 10)
    calm.settles(owner.group, 10)
    new = owner.template("new", **ANEW)
    rollout = owner.roll(new, max_surge="50%", max_failures=1000)
    calm.knobs(error_share=0.3)
    calm.wait("it has begun", lambda: owner.rollout(rollout)["counts"]["new"] > 0)
    body = {"group_name": "g", "template_id": new}
    owner.tsg.ok("PUT", f"/groups/{owner.group['id']}", {**body, "capacity": 14})
    next(child for name, child in calm.stack.processes.items() if name.startswith("worker")).kill()
    calm.stack.restart_the_dead()
    calm.stack.cloud("POST", f"/machines/{calm.machines(owner.group)[0]['id']}/kill")
    calm.wait("it has grown", lambda: calm.running(owner.group) >= 14)
    owner.tsg.ok("PUT", f"/groups/{owner.group['id']}", {**body, "capacity": 4})
    calm.knobs(error_share=0.0)
    owner.ends(rollout)
    calm.settles(owner.group, 4)
    assert {machine["tags"]["tsg.template"] for machine in calm.machines(owner.group)} == {new}
    owner.tsg.ok("DELETE", f"/groups/{owner.group['id']}", status=204)
