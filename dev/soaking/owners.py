"""What owners of groups ask of members and rollouts, beside what users of 2018 did."""

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import requests

from dev.client import send
from dev.processes import wait_for
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE
from dev.soaking.oracle import Group, Span
from dev.soaking.users import User

#: Settings of rollouts that end soon, whatever happens to them.
PROGRESS_DEADLINE = 60
SUSPENSIONS = ("launch", "terminate", "replace")
#: Seconds for CloudAPI to have a machine run that is to be adopted.
BOOT = 10
#: What an owner may ask of a rollout.
ASKS = ("pause", "resume", "resume", "cancel", "rollback")


class Owner(User):
    """A user who knows of members and rollouts."""

    # Rollouts

    def roll_out(self, name: str, template: str, number: int, bound: int) -> None:
        """A rollout of one of the templates, or a reload."""
        group = self._account.groups.get(name)
        found = self._account.templates.get(template) if number % 3 else group.template if group else None
        body: dict[str, Any] = {
            "template_id": found or str(uuid.uuid4()),
            "max_surge": ("25%", "50%", 2, 0)[bound % 4],
            "max_unavailable": ("25%", 0, 1, 1)[bound % 4],
            "steps": (
                [{"percent": 100}],
                [{"percent": 50, "pause_seconds": 2}, {"percent": 100}],
                [{"percent": 25, "pause": True}, {"percent": 100}],
            )[number % 3],
            "bake_seconds": bound % 3,
            "max_failures": 1 + bound,
            "progress_deadline_seconds": PROGRESS_DEADLINE,
            "on_failure": ("pause", "stop", "rollback")[bound % 3] if group and found != group.template else ("pause", "stop")[bound % 2],
            "skip_matching": bool(number % 2),
            "in_place": bool(bound % 2),
            "protected": ("wait", "skip", "replace")[(number + bound) % 3],
        }
        expected = {404} if group is None else {201, 409} if found else {422}
        before = group.template if group else None
        answer, sent = self._ask("POST", f"/groups/{group.id if group else self._gone()}/rollouts", body, expected)
        if group and answer is not None and answer.status_code == 201:
            self._account.changed(group, group.capacity, sent, found)
            group.fallback = before if body["on_failure"] == "rollback" else None

    def ask_of_rollout(self, name: str, _template: str, _number: int, bound: int) -> None:
        group = self._account.groups.get(name)
        what = ASKS[bound % len(ASKS)]
        rollout = self._newest(group) if group else None
        path = f"/groups/{group.id if group else self._gone()}/rollouts/{rollout['id'] if rollout else uuid.uuid4()}/{what}"
        answer, sent = self._ask("PUT", path, None, {200, 409} if rollout else {404})
        if group and rollout and answer is not None and answer.status_code == 200:
            self._asked(group, rollout, what, sent)

    def _asked(self, group: Group, rollout: dict[str, Any], what: str, sent: float) -> None:
        if what == "rollback":
            before = rollout["previous_template_id"]
            self._account.changed(group, group.capacity, sent, before)
        if what in ("rollback", "cancel"):
            group.fallback = None

    def _newest(self, group: Group) -> dict[str, Any] | None:
        return next(iter(self.look(f"/groups/{group.id}/rollouts?limit=1")), None)

    # Members

    def protect(self, name: str, _template: str, number: int, bound: int) -> None:
        def protect(group: Group, machine: str) -> None:
            body = {"protected": bound % 3 > 0, "note": "soak"}
            answer, sent = self._ask("PUT", f"/groups/{group.id}/members/{machine}/protection", body, {200, 404})
            group.end(group.protections, machine, sent)
            if body["protected"] and answer is not None and answer.status_code == 200:
                group.protections.append(Span(machine, time.time()))

        self._of_member(name, number, protect)

    def vote(self, name: str, _template: str, number: int, bound: int) -> None:
        def vote(group: Group, machine: str) -> None:
            status = "unhealthy" if bound % 4 else "healthy"
            if status == "unhealthy":
                group.unwanted.setdefault(machine, time.time())
            self._ask("PUT", f"/groups/{group.id}/members/{machine}/health", {"status": status}, {200, 404})

        self._of_member(name, number, vote)

    def remove(self, name: str, _template: str, number: int, bound: int) -> None:
        def remove(group: Group, machine: str) -> None:
            lowers = bound % 2 > 0
            group.unwanted.setdefault(machine, time.time())
            expected = {202, 404, 409, 400} if lowers else {202, 404, 409}
            answer, sent = self._ask("DELETE", f"/groups/{group.id}/members/{machine}?decrement={str(lowers).lower()}", None, expected)
            if lowers and answer is not None and answer.status_code == 202:
                self._account.changed(group, group.capacity - 1, sent)

        self._of_member(name, number, remove)

    def detach(self, name: str, _template: str, number: int, bound: int) -> None:
        def detach(group: Group, machine: str) -> None:
            self._detach(group, machine, lowers=bound % 2 > 0)

        self._of_member(name, number, detach)

    def _detach(self, group: Group, machine: str, *, lowers: bool) -> None:
        since = group.half_detached.setdefault(machine, time.time())
        group.unwanted.setdefault(machine, since)
        path = f"/groups/{group.id}/members/{machine}/detach"
        answer, sent = self._ask("POST", path, {"decrement": lowers}, {204, 400, 404, 409, 503})
        if answer is None or answer.status_code == 503:
            self._resolve(sent)
            return
        del group.half_detached[machine]
        if answer.status_code == 204:
            group.detached[machine] = since
            self._account.changed(group, group.capacity - lowers, sent)

    def adopt(self, name: str, _template: str, _number: int, bound: int) -> None:
        """A machine that the owner made without the service."""
        group = self._account.groups.get(name)
        if group is None or bound % 3:
            return
        with suppress(requests.RequestException):
            headers = {**self._tsg.headers(), "Accept-Version": "~9"}
            order = {"package": DEFAULT_PACKAGE, "image": DEFAULT_IMAGE, "tag.soak": "by-hand"}
            url = f"{self._world.stack.cloud_url}/{self._account.name}/machines"
            made = send("POST", url, json=order, headers=headers, timeout=30)
            if made.status_code == 201 and wait_for(lambda: self._runs(made.json()["id"]), seconds=BOOT):
                self._adopt(group, made.json()["id"])

    def _runs(self, machine: str) -> bool:
        return any(row["id"] == machine and row["state"] == "running" for row in self._world.machines(live=True))

    def _adopt(self, group: Group, machine: str) -> None:
        group.adopted.setdefault(machine, time.time())
        group.half_adopted.add(machine)
        answer, sent = self._ask("POST", f"/groups/{group.id}/members", {"machine_id": machine}, {201, 409, 422, 503})
        if answer is None or answer.status_code == 503:
            self._resolve(sent)
            return
        group.half_adopted.discard(machine)
        told, _ = self._ask("GET", f"/groups/{group.id}", None, {200}, changes=False)
        if answer.status_code == 201 and told is None:
            self._resolve(sent)
        elif told is not None and told.json()["capacity"] in (group.capacity, group.capacity + 1):
            self._account.changed(group, told.json()["capacity"], sent)

    def _of_member(self, name: str, number: int, act: Callable[[Group, str], None]) -> None:
        group = self._account.groups.get(name)
        members = self.look(f"/groups/{group.id}/members") if group else []
        if group and members:
            act(group, members[number % len(members)]["machine_id"])

    # Suspensions

    def suspend(self, name: str, _template: str, number: int, bound: int) -> None:
        group = self._account.groups.get(name)
        if group is not None:
            self._suspend(group, [SUSPENSIONS[number % len(SUSPENSIONS)]] if bound % 2 else [])

    def _suspend(self, group: Group, what: list[str]) -> None:
        body = {**group.to_json(), "suspended": what, "suspend_reason": "soak"}
        answer, sent = self._ask("PUT", f"/groups/{group.id}", body, {200} if group.fallback is None else {200, 409})
        for one in SUSPENSIONS:
            group.end(group.suspensions, one, sent)
        if answer is not None and answer.status_code == 200:
            group.suspensions += [Span(one, time.time()) for one in what]
            self._same(group, answer.json())

    # When all is to become quiet

    def wind_up(self) -> None:
        """End what would keep a group from its capacity: suspensions, protections, and what was begun by halves."""
        for group in list(self._account.groups.values()):
            if any(span.until == float("inf") for span in group.suspensions):
                self._suspend(group, [])
            for machine in list(group.half_detached):
                self._detach(group, machine, lowers=False)
            for machine in list(group.half_adopted):
                self._adopt(group, machine)
            for member in self.look(f"/groups/{group.id}/members"):
                if member["protected"] and member["machine_id"] not in group.half_detached:
                    answer, sent = self._ask(
                        "PUT", f"/groups/{group.id}/members/{member['machine_id']}/protection", {"protected": False}, {200, 404}
                    )
                    if answer is not None:
                        group.end(group.protections, member["machine_id"], sent)

    def end_paused_rollouts(self) -> None:
        """Those that wait for somebody."""
        for group in list(self._account.groups.values()):
            rollout = self._newest(group)
            if rollout and rollout["state"] == "Paused" and rollout["next_at"] is None:
                answer, sent = self._ask("PUT", f"/groups/{group.id}/rollouts/{rollout['id']}/cancel", None, {200, 409})
                if answer is not None and answer.status_code == 200:
                    self._asked(group, rollout, "cancel", sent)

    acts: ClassVar = (
        *User.acts,
        *[roll_out] * 5,
        *[ask_of_rollout] * 4,
        *[protect] * 3,
        *[vote] * 2,
        *[remove] * 2,
        *[detach] * 1,
        *[adopt] * 2,
        *[suspend] * 2,
    )
