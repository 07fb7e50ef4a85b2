"""The service's routes, one method each, by the names in its description (`operationId` of /v1/tsg/openapi.json)."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import requests

from tsg_client import errors
from tsg_client.models import (
    Activity,
    Decision,
    Delivery,
    Group,
    Json,
    Member,
    Model,
    Notification,
    Plan,
    Policy,
    Preview,
    Rollout,
    Status,
    Tagged,
    Template,
    Verification,
)
from tsg_client.signer import Signer
from tsg_client.transport import Transport

BASE = "/v1/tsg"
TEMPLATES, GROUPS, NOTIFICATIONS = f"{BASE}/templates", f"{BASE}/groups", f"{BASE}/notifications"

#: Objects of a page.
PAGE = 500
#: Seconds that one request waits for a status to change, and between two that are answered at once.
LONGEST_WAIT, SOONEST = 60, 1.0

#: The query that asks for a plan.
DRY_RUN = {"dry_run": True}
#: Seconds after which a rollout that is watched is looked at again.
ROLLOUT_LOOK = 2

M = TypeVar("M", bound=Model)


class Client:
    """One account's view of a service. Not for several threads at once.

    Every method raises what `errors` has. Requests that the service asks to repeat are repeated for `patience` seconds; writes carry an
    Idempotency-Key, so that they are done once. `verify` is as requests has it: whether, or by which file, certificates are checked.
    """

    def __init__(self, url: str, signer: Signer | None, *, patience: float = 60.0, verify: bool | str = True) -> None:
        self._transport = Transport(url, signer, patience=patience, verify=verify)

    @property
    def url(self) -> str:
        return self._transport.url

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.close()

    # Templates

    def list_templates(self) -> Iterator[Template]:
        """All templates of the account, the oldest first."""
        return self._pages(TEMPLATES, Template)

    def create_template(self, fields: Mapping[str, Any], *, verify: bool = False) -> Template:
        """Make a template of these fields (docs/templates.md). `verify` asks CloudAPI first whether it can be launched."""
        return self._one("POST", TEMPLATES, Template, body=fields, query={"verify": True} if verify else None)

    def get_template(self, template_id: str) -> Template:
        """One template."""
        return self._one("GET", _under(TEMPLATES, template_id), Template)

    def verify_template(self, template_id: str) -> Verification:
        """Whether CloudAPI could make an instance from it now."""
        return self._one("GET", _under(TEMPLATES, template_id, "verification"), Verification)

    def delete_template(self, template_id: str, *, if_match: str | None = None) -> None:
        """Delete a template that no group uses. `Conflict` while one does."""
        self._transport.send("DELETE", _under(TEMPLATES, template_id), if_match=if_match)

    # Groups

    def list_groups(self) -> Iterator[Group]:
        """All groups of the account, the oldest first."""
        return self._pages(GROUPS, Group)

    def create_group(self, fields: Mapping[str, Any]) -> Group:
        """Make a group: `group_name`, `template_id`, `capacity`, and what else docs/api.md has."""
        return self._one("POST", GROUPS, Group, body=fields)

    def get_group(self, group_id: str) -> Group:
        """One group."""
        return self._one("GET", _under(GROUPS, group_id), Group)

    def update_group(self, group_id: str, fields: Mapping[str, Any], *, if_match: str | None = None) -> Group:
        """Change a group. `group_name`, `template_id` and `capacity` must be among the fields: without a capacity it would be 0."""
        _see_capacity(fields)
        return self._one("PUT", _under(GROUPS, group_id), Group, body=fields, if_match=if_match)

    def update_group_by_name(self, fields: Mapping[str, Any], *, if_match: str | None = None) -> Group:
        """The same for the group whose `group_name` is among the fields."""
        _see_capacity(fields)
        return self._one("PUT", GROUPS, Group, body=fields, if_match=if_match)

    def delete_group(self, group_id: str, *, if_match: str | None = None) -> None:
        """Delete a group, and in the background its instances."""
        self._transport.send("DELETE", _under(GROUPS, group_id), if_match=if_match)

    def increment_group(self, group_id: str, count: int, maximum: int, *, if_match: str | None = None) -> None:
        """Raise the capacity by `count`, to `maximum` at most. `Conflict` when it is there already."""
        body = {"instance_count": count, "max_instance": maximum}
        self._transport.send("PUT", _under(GROUPS, group_id, "increment"), body=body, if_match=if_match)

    def decrement_group(self, group_id: str, count: int, minimum: int = 0, *, if_match: str | None = None) -> None:
        """Lower the capacity by `count`, to `minimum` at least. `Conflict` when it is there already."""
        body = {"instance_count": count, "min_instance": minimum}
        self._transport.send("PUT", _under(GROUPS, group_id, "decrement"), body=body, if_match=if_match)

    def decrement_by(self, group_id: str, machine_ids: Sequence[str], *, if_match: str | None = None) -> None:
        """Delete these members and no others, and lower the capacity by as many. All or none."""
        self._transport.send("PUT", _under(GROUPS, group_id, "decrement"), body={"instances": list(machine_ids)}, if_match=if_match)

    def list_instances(self, group_id: str) -> Iterator[Json]:
        """The group's machines, as CloudAPI shows them."""
        for answer in self._answers(_under(GROUPS, group_id, "instances")):
            yield from answer.json()

    # Plans: what would be done, without doing it

    def plan_update(self, group_id: str, fields: Mapping[str, Any]) -> Plan:
        """What `update_group` with these fields would do."""
        _see_capacity(fields)
        return self._one("PUT", _under(GROUPS, group_id), Plan, body=fields, query=DRY_RUN)

    def plan_delete(self, group_id: str) -> Plan:
        """What `delete_group` would do."""
        return self._one("DELETE", _under(GROUPS, group_id), Plan, query=DRY_RUN)

    def plan_increment(self, group_id: str, count: int, maximum: int) -> Plan:
        """What `increment_group` would do."""
        body = {"instance_count": count, "max_instance": maximum}
        return self._one("PUT", _under(GROUPS, group_id, "increment"), Plan, body=body, query=DRY_RUN)

    def plan_decrement(self, group_id: str, count: int, minimum: int = 0) -> Plan:
        """What `decrement_group` would do."""
        body = {"instance_count": count, "min_instance": minimum}
        return self._one("PUT", _under(GROUPS, group_id, "decrement"), Plan, body=body, query=DRY_RUN)

    def plan_removal(self, group_id: str, machine_id: str, *, decrement: bool = False) -> Plan:
        """What `remove_member` would do."""
        path = _under(GROUPS, group_id, "members", machine_id)
        return self._one("DELETE", path, Plan, query={**DRY_RUN, "decrement": decrement})

    def plan_rollout(self, group_id: str, fields: Mapping[str, Any]) -> Plan:
        """What `start_rollout` with these fields would do."""
        return self._one("POST", _under(GROUPS, group_id, "rollouts"), Plan, body=fields, query=DRY_RUN)

    # Members

    def list_members(self, group_id: str) -> Iterator[Member]:
        """The group's machines as the service knows them; CloudAPI is not asked."""
        return self._pages(_under(GROUPS, group_id, "members"), Member)

    def protect_member(
        self, group_id: str, machine_id: str, *, protected: bool = True, until: datetime | None = None, note: str | None = None
    ) -> Member:
        """Have scale-in and rollouts leave a member alone, until then if that is given; or no more."""
        body = {"protected": protected, "until": until.isoformat() if until else None, "note": note}
        return self._one("PUT", _under(GROUPS, group_id, "members", machine_id, "protection"), Member, body=body)

    def vote_on_member(self, group_id: str, machine_id: str, status: str, *, note: str | None = None) -> Member:
        """The application's own vote, `healthy` or `unhealthy`: an unhealthy member is replaced."""
        path = _under(GROUPS, group_id, "members", machine_id, "health")
        return self._one("PUT", path, Member, body={"status": status, "note": note})

    def remove_member(self, group_id: str, machine_id: str, *, decrement: bool = False) -> None:
        """Delete a member, after its drain. Another one is launched, unless `decrement` lowers the capacity by one."""
        self._transport.send("DELETE", _under(GROUPS, group_id, "members", machine_id), query={"decrement": decrement})

    def adopt_machine(self, group_id: str, machine_id: str) -> Member:
        """Take a running machine of the account into the group."""
        return self._one("POST", _under(GROUPS, group_id, "members"), Member, body={"machine_id": machine_id})

    def detach_member(self, group_id: str, machine_id: str, *, decrement: bool = False) -> None:
        """Let the group forget a machine, which stays. Another one is launched, unless `decrement` lowers the capacity by one."""
        self._transport.send("POST", _under(GROUPS, group_id, "members", machine_id, "detach"), body={"decrement": decrement})

    # Rollouts

    def list_rollouts(self, group_id: str) -> Iterator[Rollout]:
        """The group's rollouts, the newest first."""
        return self._pages(_under(GROUPS, group_id, "rollouts"), Rollout)

    def start_rollout(self, group_id: str, fields: Mapping[str, Any], *, if_match: str | None = None) -> Rollout:
        """Begin a rollout: of `template_id`, or of the group's own. `Conflict` while another one is under way."""
        return self._one("POST", _under(GROUPS, group_id, "rollouts"), Rollout, body=fields, if_match=if_match)

    def get_rollout(self, group_id: str, rollout_id: str, *, wait: int | None = None) -> Rollout:
        """One rollout. With `wait` it answers when it ends or needs somebody, or after that time (60 seconds at most)."""
        return self._one("GET", _under(GROUPS, group_id, "rollouts", rollout_id), Rollout, query={"wait": wait})

    def pause_rollout(self, group_id: str, rollout_id: str) -> Rollout:
        """Stop for now."""
        return self._ask_rollout(group_id, rollout_id, "pause")

    def resume_rollout(self, group_id: str, rollout_id: str) -> Rollout:
        """Go on, or past the pause of a step."""
        return self._ask_rollout(group_id, rollout_id, "resume")

    def cancel_rollout(self, group_id: str, rollout_id: str) -> Rollout:
        """End it, and leave members as they are."""
        return self._ask_rollout(group_id, rollout_id, "cancel")

    def roll_back(self, group_id: str, rollout_id: str) -> Rollout:
        """Go back to the template before: of the newest rollout, a successful one too."""
        return self._ask_rollout(group_id, rollout_id, "rollback")

    def _ask_rollout(self, group_id: str, rollout_id: str, what: str) -> Rollout:
        return self._one("PUT", _under(GROUPS, group_id, "rollouts", rollout_id, what), Rollout)

    def watch_rollout(self, group_id: str, rollout_id: str, *, timeout: float) -> Iterator[Rollout]:
        """The rollout now and after each change that is seen, until it is over or `timeout` seconds are."""
        until = time.monotonic() + timeout
        seen: Json = {}
        while True:
            wait = min(ROLLOUT_LOOK, max(0, math.ceil(until - time.monotonic()))) if seen else 0
            found = self.get_rollout(group_id, rollout_id, wait=wait)
            if found.as_json() != seen:
                yield found
            if found.is_over or time.monotonic() >= until:
                return
            seen = found.as_json()

    # Policies

    def list_policies(self, group_id: str) -> Iterator[Policy]:
        """The group's policies, the oldest first."""
        return self._pages(_under(GROUPS, group_id, "policies"), Policy, paged=False)

    def create_policy(self, group_id: str, fields: Mapping[str, Any]) -> Policy:
        """Make a policy. Of a webhook, `webhook_url` is in this answer and in no other."""
        return self._one("POST", _under(GROUPS, group_id, "policies"), Policy, body=fields)

    def preview_policy(self, group_id: str, fields: Mapping[str, Any]) -> Preview:
        """What a policy of these fields would decide now."""
        return self._one("POST", _under(GROUPS, group_id, "policies", "preview"), Preview, body=fields)

    def get_policy(self, group_id: str, policy_id: str) -> Policy:
        """One policy."""
        return self._one("GET", _under(GROUPS, group_id, "policies", policy_id), Policy)

    def update_policy(self, group_id: str, policy_id: str, fields: Mapping[str, Any], *, if_match: str | None = None) -> Policy:
        """Replace a policy's fields by these."""
        return self._one("PUT", _under(GROUPS, group_id, "policies", policy_id), Policy, body=fields, if_match=if_match)

    def delete_policy(self, group_id: str, policy_id: str, *, if_match: str | None = None) -> None:
        """Delete a policy."""
        self._transport.send("DELETE", _under(GROUPS, group_id, "policies", policy_id), if_match=if_match)

    def rotate_webhook(self, group_id: str, policy_id: str) -> Policy:
        """Give a webhook another URL, which is in this answer and in no other. The one before ends."""
        return self._one("POST", _under(GROUPS, group_id, "policies", policy_id, "rotate"), Policy)

    def list_decisions(self, group_id: str, *, limit: int = 100) -> Iterator[Decision]:
        """What was decided about all policies of a group, the newest first."""
        return self._pages(_under(GROUPS, group_id, "decisions"), Decision, page=limit)

    def list_decisions_of_policy(self, group_id: str, policy_id: str, *, limit: int = 100) -> Iterator[Decision]:
        """What was decided about one policy, the newest first."""
        return self._pages(_under(GROUPS, group_id, "policies", policy_id, "decisions"), Decision, page=limit)

    def push_metric(self, group_id: str, name: str, value: float, *, unit: str | None = None, member: str | None = None) -> None:
        """Tell the value of a metric of the group, or of one member, for policies whose source is `pushed`."""
        body = {"value": value, "unit": unit, "member": member}
        self._transport.send("PUT", _under(GROUPS, group_id, "metrics", name), body=body)

    def call_webhook(self, token: str, body: object = None) -> str:
        """Call a webhook as others do; the id of the decision that it leads to. It needs no signature."""
        return str(self._transport.send("POST", _under(f"{BASE}/hooks", token), body=body).json()["decision_id"])

    # Notifications

    def list_notifications(self) -> Iterator[Notification]:
        """Where the account's activities are sent, the oldest first."""
        return self._pages(NOTIFICATIONS, Notification, paged=False)

    def create_notification(self, fields: Mapping[str, Any]) -> Notification:
        """Have activities sent to a `url`. Its `secret` is in this answer and in no other."""
        return self._one("POST", NOTIFICATIONS, Notification, body=fields)

    def get_notification(self, notification_id: str) -> Notification:
        """One notification."""
        return self._one("GET", _under(NOTIFICATIONS, notification_id), Notification)

    def update_notification(self, notification_id: str, fields: Mapping[str, Any], *, if_match: str | None = None) -> Notification:
        """Replace a notification's fields by these."""
        return self._one("PUT", _under(NOTIFICATIONS, notification_id), Notification, body=fields, if_match=if_match)

    def delete_notification(self, notification_id: str, *, if_match: str | None = None) -> None:
        """Send no more there."""
        self._transport.send("DELETE", _under(NOTIFICATIONS, notification_id), if_match=if_match)

    def rotate_secret(self, notification_id: str) -> Notification:
        """Give a notification another secret, which is in this answer and in no other."""
        return self._one("POST", _under(NOTIFICATIONS, notification_id, "rotate"), Notification)

    def list_deliveries(self, notification_id: str, *, state: str | None = None, limit: int = 100) -> Iterator[Delivery]:
        """What was sent there, or is to be, the newest first."""
        for answer in self._answers(_under(NOTIFICATIONS, notification_id, "deliveries"), {"state": state, "limit": limit}):
            yield from (Delivery.model_validate(one) for one in answer.json())

    def replay_delivery(self, notification_id: str, delivery_id: str) -> None:
        """Send a delivery once more."""
        self._transport.send("POST", _under(NOTIFICATIONS, notification_id, "deliveries", delivery_id, "replay"))

    # What a group does

    def list_statuses(self) -> Iterator[Status]:
        """How far each of the account's groups is, the oldest group first."""
        return self._pages(f"{BASE}/status", Status)

    def get_status(self, group_id: str, *, wait: int | None = None) -> Status:
        """How far the group is. With `wait` it answers when the group is settled or stuck, or after these seconds (60 at most)."""
        return self._one("GET", _under(GROUPS, group_id, "status"), Status, query={"wait": wait})

    def watch_status(self, group_id: str, *, timeout: float) -> Iterator[Status]:
        """The group's status now and after each change of it, until it is settled or stuck, or `timeout` seconds are over."""
        until = time.monotonic() + timeout
        found = self.get_status(group_id)
        yield found
        while not (found.settled or found.stuck) and (left := until - time.monotonic()) > 0:
            began = time.monotonic()
            path, query = _under(GROUPS, group_id, "status"), {"wait": min(LONGEST_WAIT, math.ceil(left))}
            answer = self._transport.send("GET", path, query=query, if_none_match=found.etag)
            if answer.status_code != 304:
                found = _read(Status, answer)
                yield found
            elif time.monotonic() - began < SOONEST:
                # Too many others wait, and the answer came at once.
                time.sleep(SOONEST)

    def wait_settled(self, group_id: str, *, timeout: float, on_progress: Callable[[Status], object] | None = None) -> Status:
        """The status of the group once it is settled. `NotSettled` when it needs a change, or after `timeout` seconds."""
        status: Status | None = None
        for status in self.watch_status(group_id, timeout=timeout):
            if on_progress is not None:
                on_progress(status)
        if status is None or not status.settled:
            raise _not_settled(status, timeout)
        return status

    def list_activities(self, group_id: str, *, kind: str | None = None, status: str | None = None, limit: int = 100) -> Iterator[Activity]:
        """What was done for the group, or refused, the newest first; a page has `limit` of them."""
        query = {"kind": kind, "status": status, "limit": limit}
        for answer in self._answers(_under(GROUPS, group_id, "activities"), query):
            yield from (Activity.model_validate(one) for one in answer.json())

    # The service

    def is_alive(self) -> Json:
        """Does the process answer?"""
        return self._json("/healthz")

    def is_ready(self) -> Json:
        """What the service needs, and the state of each. `TryLater` when it is not ready."""
        return self._json("/readyz")

    def get_description(self) -> Json:
        """The service's description of itself (OpenAPI 3.1)."""
        return self._json(f"{BASE}/openapi.json")

    def get_page(self) -> str:
        """The same as a page for people."""
        return self._transport.send("GET", f"{BASE}/docs").text

    def ask(self, method: str, path: str, body: object = None) -> requests.Response:
        """Any request, by its whole path: for routes that this version has no method for."""
        return self._transport.send(method, path, body=body)

    # The parts of a request

    def _json(self, path: str) -> Json:
        found: Json = self._transport.send("GET", path).json()
        return found

    def _one(self, method: str, path: str, kind: type[M], **more: Any) -> M:
        return _read(kind, self._transport.send(method, path, **more))

    def _pages(self, path: str, kind: type[M], *, paged: bool = True, page: int | None = None) -> Iterator[M]:
        for answer in self._answers(path, {"limit": page or PAGE} if paged else None):
            for one in answer.json():
                yield kind.model_validate(one)

    def _answers(self, path: str, query: Mapping[str, object] | None = None) -> Iterator[requests.Response]:
        """The pages of a list, each when it is asked for."""
        following: str | None = path
        while following is not None:
            answer = self._transport.send("GET", following, query=query)
            yield answer
            following = answer.links.get("next", {}).get("url")
            query = None


def _read(kind: type[M], answer: requests.Response) -> M:
    tag = {"etag": answer.headers.get("ETag")} if issubclass(kind, Tagged) else {}
    try:
        return kind.model_validate(answer.json() | tag)
    except ValueError as error:
        raise errors.ServiceFailed(f"{answer.url} did not answer as this service does: {str(error).splitlines()[0]}") from None


def _under(path: str, *parts: str) -> str:
    return "/".join([path, *(quote(part, safe="") for part in parts)])


def _see_capacity(fields: Mapping[str, Any]) -> None:
    if fields.get("capacity") is None:
        raise ValueError("a group is changed with its capacity: without one it would be 0")


def _not_settled(status: Status | None, timeout: float) -> errors.NotSettled:
    if status is not None and status.stuck:
        detail = f" CloudAPI: {status.last_error}" if status.last_error else ""
        return errors.NotSettled(f"{status.message}{detail}", code=status.reason)
    last = f": {status.message}" if status is not None else ""
    return errors.NotSettled(f"not settled after {timeout:.0f} s{last}")
