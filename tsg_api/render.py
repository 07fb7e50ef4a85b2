"""Objects onto the wire: JSON with the fields and forms of the contract."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import falcon

from shared.errors import FieldError
from shared.groups import Group
from shared.templates import Template

JSON = "application/json; charset=utf-8"


def timestamp(when: datetime) -> str:
    """RFC 3339 in UTC, with Z and microseconds."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


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


def answer(response: falcon.Response, body: object, *, status: str = falcon.HTTP_200, location: str | None = None) -> None:
    """Answer with a JSON body."""
    response.status = status
    response.content_type = JSON
    response.text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    if location:
        response.location = location


def nothing(response: falcon.Response, status: str) -> None:
    """Answer without a body: 202 and 204."""
    response.status = status


def error(response: falcon.Response, status: str, code: str, message: str, fields: Sequence[FieldError] = ()) -> None:
    """Answer with an error in CloudAPI's form."""
    body: dict[str, Any] = {"code": code, "message": message}
    if fields:
        body["errors"] = [{"field": field.field, "message": field.message} for field in fields]
    answer(response, body, status=status)
