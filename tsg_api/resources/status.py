"""Why a group is, or is not, what it should be: its status, and its activities. Deleted groups have both too."""

from collections.abc import Sequence
from typing import NamedTuple

import falcon

from shared.state import activities, status
from tsg_api.http import etag, paging
from tsg_api.http.awaiting import Awaiting
from tsg_api.http.service import Service, found_id
from tsg_api.schema import parse, responses
from tsg_api.schema.parse import ActivitiesQuery, StatusQuery

BASE = "/v1/tsg/status"
#: Activities in an answer whose request does not say.
PAGE = 100


class _Awaited(NamedTuple):
    """What a request waits for."""

    group_id: str
    #: The entity tag of the status that its caller has seen, and waits to change; None for the group to settle.
    seen: str | None


class Status:
    """`/v1/tsg/groups/<id>/status`"""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._awaiting = Awaiting(service, self._has_ended)

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        account, wanted = req.context.account.id, found_id("group", group_id)
        found, seconds = self._look(account, wanted), parse.query(StatusQuery, req.params).wait
        awaited = _awaited(req, found)
        if seconds and awaited and self._awaiting.wait(req, resp, awaited, seconds):
            found = self._look(account, wanted)
        shown = responses.Status.model_validate(found)
        etag.answer(req, resp, shown, etag.of_status(shown), lambda shown: shown)

    def _look(self, account: str, group_id: str) -> status.Status:
        with self._service.db.read() as connection:
            return status.get(connection, account, group_id)

    def _has_ended(self, awaited: _Awaited) -> bool:
        with self._service.db.read() as connection:
            found = status.find(connection, awaited.group_id)
        return found is None or (_is_over(found) if awaited.seen is None else _tag(found) != awaited.seen)


class Statuses:
    """`/v1/tsg/status`"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        page = paging.asked(req)
        listing = paging.stored(status, self._service.db, req.context.account.id, page, responses.Status.model_validate)
        paging.answer(req, resp, page, listing, self._service.slots.lists)


class Activities:
    """`/v1/tsg/groups/<id>/activities`"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        wanted = found_id("group", group_id)
        with self._service.db.read() as connection:
            status.get(connection, req.context.account.id, wanted)
            asked = parse.query(ActivitiesQuery, req.params)
            most = asked.limit or PAGE
            entries = activities.list_entries(connection, wanted, limit=most + 1, before=asked.before, status=asked.status, kind=asked.kind)
        if len(entries) > most:
            paging.link_next(req, resp, before=entries[most - 1].id)

        def read(ids: Sequence[str]) -> list[object]:
            with self._service.db.read() as connection:
                found = activities.get_by_ids(connection, ids)
            return [responses.Activity.model_validate(found[one]) for one in ids if one in found]

        paging.send(req, resp, entries[:most], read, self._service.slots.lists)


def _is_over(found: status.Status) -> bool:
    """There is nothing to wait for: it is settled, or will not be without a change."""
    return found.settled or found.stuck


def _awaited(req: falcon.Request, found: status.Status) -> _Awaited | None:
    """What a request may wait for: a change of the status that its caller has (`If-None-Match`), or else the end. None when it is there."""
    if req.get_header("If-None-Match") is not None:
        tag = _tag(found)
        return _Awaited(found.group_id, tag) if etag.is_fresh(req, tag) else None
    return None if _is_over(found) else _Awaited(found.group_id, None)


def _tag(found: status.Status) -> str:
    return etag.of_status(responses.Status.model_validate(found))
