"""Objects onto the wire: JSON with the fields and forms of the contract."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import falcon

from shared.errors import FieldError
from shared.state.activities import Activity
from shared.state.groups import Group
from shared.state.idempotency import Answer
from shared.state.status import Status
from shared.state.templates import Template

JSON = "application/json; charset=utf-8"
#: `json.dumps` makes one each time.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def timestamp(when: datetime) -> str:
    """RFC 3339 in UTC, with Z and microseconds."""
    return when.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def template(made: Template) -> dict[str, Any]:
    """A template as clients know it."""
    spec = made.spec
    return {
        "id": made.id,
        "template_name": spec.name,
        "package": spec.package,
        "image_id": spec.image_id,
        "firewall_enabled": spec.firewall_enabled,
        "networks": list(spec.networks),
        "userdata": spec.userdata,
        "metadata": spec.metadata,
        "tags": spec.tags,
        "created_at": timestamp(made.created_at),
    }


def group(made: Group) -> dict[str, Any]:
    """A group as clients know it."""
    return {
        "id": made.id,
        "group_name": made.name,
        "template_id": made.template_id,
        "capacity": made.capacity,
        "created_at": timestamp(made.created_at),
        "updated_at": timestamp(made.updated_at),
    }


def status(found: Status) -> dict[str, Any]:
    """How far a group is."""
    return {
        "group_id": found.group_id,
        "group_name": found.name,
        "desired": found.desired,
        "running": found.running,
        "provisioning": found.provisioning,
        "failed": found.failed,
        "deleting": found.deleting,
        "settled": found.settled,
        "reason": found.reason,
        "message": found.message,
        "since": timestamp(found.since),
        "last_error": found.last_error,
        "failures": found.failures,
        "checked_at": found.checked_at and timestamp(found.checked_at),
        "next_attempt_at": found.next_attempt_at and timestamp(found.next_attempt_at),
        "generation": found.generation,
        "observed_generation": found.observed_generation,
    }


def activity(done: Activity) -> dict[str, Any]:
    """One thing that was done for a group, or refused."""
    return {
        "id": done.id,
        "group_id": done.group_id,
        "kind": done.kind,
        "status": done.status,
        "description": done.description,
        "cause": done.cause,
        "instance_ids": [done.machine_id] if done.machine_id else [],
        "error_code": done.error_code,
        "cloudapi_request_id": done.cloudapi_request_id,
        "actor": done.actor,
        "request_id": done.request_id,
        "started_at": timestamp(done.started_at or done.at),
        "ended_at": timestamp(done.at),
    }


def answer(response: falcon.Response, body: object, *, status: str = falcon.HTTP_200) -> None:
    """Answer with a JSON body."""
    response.status = status
    response.content_type = JSON
    response.text = to_json(body)


def to_json(body: object) -> str:
    """The text of a JSON body."""
    return _ENCODER.encode(body)


def send(response: falcon.Response, given: Answer) -> None:
    """Answer to a change."""
    response.status = falcon.code_to_http_status(given.status)
    if given.body is not None:
        response.content_type = JSON
        response.text = given.body
    if given.location is not None:
        response.location = given.location
    if given.etag is not None:
        response.set_header("ETag", given.etag)


def error(response: falcon.Response, status: str, code: str, message: str, fields: Sequence[FieldError] = ()) -> None:
    """Answer with an error in CloudAPI's form."""
    body: dict[str, Any] = {"code": code, "message": message}
    if fields:
        body["errors"] = [{"field": field.field, "message": field.message} for field in fields]
    answer(response, body, status=status)
