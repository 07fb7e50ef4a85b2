"""Rollouts of a group over HTTP: begun, looked at, and asked to pause, resume, end or go back."""

import falcon
from sqlalchemy import Connection

from shared.spec.rollout import ENDED, Ask, Rollout, State
from shared.state import rollouts
from shared.state.idempotency import Answer
from shared.store.paging import Entry
from tsg_api.http import paging
from tsg_api.http.awaiting import Awaiting
from tsg_api.http.service import Service, found_id, read_body
from tsg_api.resources.groups import BASE, GroupResource
from tsg_api.schema import parse, render, responses


class Rollouts(GroupResource):
    """`/v1/tsg/groups/<id>/rollouts`"""

    rehearses = frozenset({"POST"})

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        page, group = paging.asked(req), self._existing(req, group_id)
        with self._service.db.read() as connection:
            found = rollouts.list_of_group(connection, group.id, limit=(page.limit or paging.MOST) + 1, marker=page.marker)
        by_id = {one.id: one for one in found}

        def count() -> int:
            with self._service.db.read() as connection:
                return rollouts.count(connection, group.id)

        listing = paging.Listing([Entry(one.id) for one in found], lambda ids: [responses.rollout(by_id[one]) for one in ids], count)
        paging.answer(req, resp, page, listing, self._service.slots.lists)

    def on_post(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        with self._if_it_exists(req, group_id) as wanted:
            body = read_body(req, parse.rollout_body(), self._service)

            def work(connection: Connection) -> Rollout:
                return rollouts.insert_rollout(
                    *(connection, req.context.account.id, wanted),
                    template_id=body.template_id.lower() if body.template_id else None,
                    settings=body.settings(),
                    request_id=req.context.request_id,
                )

            self._change(req, resp, wanted, work, _created)


class OneRollout(GroupResource):
    """`/v1/tsg/groups/<id>/rollouts/<id>`"""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._awaiting = Awaiting(service, self._has_ended)

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str, rollout_id: str) -> None:
        group = self._existing(req, group_id)
        awaited = (group.id, found_id("rollout", rollout_id))
        found, seconds = self._look(awaited), parse.query(parse.StatusQuery, req.params).wait
        if seconds and not _is_over(found) and self._awaiting.wait(req, resp, awaited, seconds):
            found = self._look(awaited)
        render.answer(resp, responses.rollout(found))

    def _look(self, awaited: tuple[str, str]) -> Rollout:
        with self._service.db.read() as connection:
            return rollouts.get(connection, *awaited)

    def _has_ended(self, awaited: tuple[str, str]) -> bool:
        return _is_over(self._look(awaited))


class Asking(GroupResource):
    """`/v1/tsg/groups/<id>/rollouts/<id>/pause`, and so on."""

    def __init__(self, service: Service, what: Ask) -> None:
        super().__init__(service)
        self._what = what

    def on_put(self, req: falcon.Request, resp: falcon.Response, group_id: str, rollout_id: str) -> None:
        with self._if_it_exists(req, group_id) as wanted:
            its_id = found_id("rollout", rollout_id)

            def work(connection: Connection) -> Rollout:
                return rollouts.ask(*(connection, req.context.account.id, wanted, its_id), self._what, request_id=req.context.request_id)

            self._change(req, resp, wanted, work, lambda asked: Answer(200, render.to_json(responses.rollout(asked))))


def _created(made: Rollout) -> Answer:
    return Answer(201, render.to_json(responses.rollout(made)), f"{BASE}/{made.group_id}/rollouts/{made.id}")


def _is_over(found: Rollout) -> bool:
    """It has ended, or goes on only when somebody says so."""
    return found.state in ENDED or (found.state == State.PAUSED and found.next_at is None)
