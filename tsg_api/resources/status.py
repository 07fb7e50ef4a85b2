"""Why a group is, or is not, what it should be: its status, and its activities. Deleted groups have both too."""

import time
from collections.abc import Callable

import falcon

from shared.state import activities, status
from tsg_api.http import paging
from tsg_api.http.service import Service, found_id
from tsg_api.schema import parse, render
from tsg_api.schema.parse import ActivitiesQuery, StatusQuery

#: Activities in an answer whose request does not say.
PAGE = 100
#: Seconds between looks while waiting: soon at first, for what takes a moment only.
SOONEST, LATEST = 0.1, 1.0


class Status:
    """`/v1/tsg/groups/<id>/status`"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        account, wanted = req.context.account.id, found_id("group", group_id)

        def look() -> status.Status:
            with self._service.db.read() as connection:
                return status.of_account(connection, account, wanted)

        found, seconds = look(), parse.query(StatusQuery, req.params).wait
        if seconds and not _is_over(found):
            with self._service.places.settling.turn() as may_wait:
                if may_wait:
                    found = self._awaited(look, seconds)
                else:
                    # This answer comes before its time.
                    resp.set_header("Retry-After", "1")
        render.answer(resp, render.status(found))

    def _awaited(self, look: Callable[[], status.Status], seconds: float) -> status.Status:
        """Look until it is over, for so many seconds; or until the process is to stop."""
        deadline, pause = time.monotonic() + seconds, SOONEST
        while True:
            left = deadline - time.monotonic()
            stopped = self._service.stopping.wait(max(0.0, min(pause, left)))
            found = look()
            if stopped or _is_over(found) or left <= pause:
                return found
            pause = min(LATEST, pause * 1.5)


class Activities:
    """`/v1/tsg/groups/<id>/activities`"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        wanted = found_id("group", group_id)
        with self._service.db.read() as connection:
            status.of_account(connection, req.context.account.id, wanted)
            asked = parse.query(ActivitiesQuery, req.params)
            most = asked.limit or PAGE
            found = activities.of_group(connection, wanted, limit=most + 1, before=asked.before, status=asked.status, kind=asked.kind)
        if len(found) > most:
            paging.link_next(req, resp, before=found[most - 1].id)
        render.answer(resp, [render.activity(one) for one in found[:most]])


def _is_over(found: status.Status) -> bool:
    """There is nothing to wait for: it is settled, or will not be without a change."""
    return found.settled or found.stuck
