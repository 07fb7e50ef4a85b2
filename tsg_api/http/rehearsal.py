"""`dry_run=true`: a change is made, what workers would then do is planned by the function that they plan with, and all is taken back."""

from collections.abc import Callable
from typing import Any

import falcon
from sqlalchemy import Connection

from shared.errors import Refused
from shared.plan.limits import Limits
from shared.plan.preview import preview, sight_of
from shared.plan.rolling import Rolling, rolling_of
from shared.state import group_state, groups, instance_lists, rollouts, status, templates
from shared.state.groups import Group
from tsg_api.http import etag
from tsg_api.http.service import Service
from tsg_api.schema import parse, render, responses

#: Of a query.
PARAMETER = "dry_run"
_WRITES = frozenset({"POST", "PUT", "DELETE"})


class DryRuns:
    """Middleware, after authentication: a write that cannot be rehearsed is refused, rather than made."""

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, resource: object, _params: object) -> None:
        is_write = PARAMETER in req.params and req.method in _WRITES and hasattr(resource, f"on_{req.method.lower()}")
        if is_write and parse.query(parse.DryRunQuery, req.params).dry_run:
            if req.method not in getattr(resource, "rehearses", ()):
                raise Refused("dry_run is not offered here: nothing was done.")
            req.context.is_dry_run = True


def is_asked(req: falcon.Request) -> bool:
    """Is the request to change nothing?"""
    return bool(req.context.get("is_dry_run"))


def answer(service: Service, req: falcon.Request, resp: falcon.Response, group_id: str, work: Callable[[Connection], Any]) -> None:
    """Answer with what would come of the change `work`. Raises what the change itself would raise."""
    expected, account_id = etag.asked(req), req.context.account.id

    def rehearse(connection: Connection) -> responses.Plan:
        before = groups.get_locked(connection, account_id, group_id)
        if expected:
            expected.check(etag.of_group(before))
        work(connection)
        plan = _plan(connection, account_id, before, service.limits)
        connection.rollback()
        return plan

    plan = service.db.transact(rehearse)
    resp.set_header("ETag", plan.etag)
    render.answer(resp, plan)


def _plan(connection: Connection, account_id: str, before: Group, limits: Limits) -> responses.Plan:
    """What workers would do, from the rows as they stand: those of members are as old as the last check."""
    group = group_state.get(connection, account_id, before.id)
    now, known = instance_lists.list_for_preview(connection, before.id)
    rolling = _rolling(connection, before.id, {instance.template_id for instance, *_ in known})
    foreseen = preview(group, [sight_of(*one) for one in known], now, limits, rolling)
    return responses.plan(
        foreseen,
        etag=etag.of_group(before),
        as_of=status.get(connection, account_id, before.id).checked_at,
        capacity=(before.capacity, group.desired),
    )


def _rolling(connection: Connection, group_id: str, template_ids: set[str | None]) -> Rolling | None:
    rollout = rollouts.find_under_way(connection, group_id)
    if rollout is None:
        return None
    known = templates.get_by_ids(connection, {one for one in template_ids if one} | {rollout.target_id})
    return rolling_of(rollout, {template.id: template.spec for template in known.values() if not template.unreadable})
