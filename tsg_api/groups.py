"""Groups over HTTP: parse, transact, ring, render. The answer is true once the row is committed; the bell comes after it."""

from collections.abc import Callable

import falcon
from sqlalchemy import Connection

from shared import groups
from shared.cloudapi import TAG_NAME
from shared.groups import Group as StoredGroup
from tsg_api import parse, render
from tsg_api.service import LIST_MOST, Service, found_id, read_body

BASE = "/v1/tsg/groups"


class _Resource:
    def __init__(self, service: Service) -> None:
        self._service = service

    def _existing(self, req: falcon.Request, group_id: str) -> StoredGroup:
        """An unknown group is 404 whatever else is wrong with the request."""
        with self._service.db.read() as connection:
            return groups.get(connection, req.context.account.id, found_id("group", group_id))

    def _changed(self, req: falcon.Request, work: Callable[[Connection], StoredGroup]) -> StoredGroup:
        made = self._service.db.transact(work)
        self._service.ring(req.context.account.id, made.id)
        return made

    def _put(self, req: falcon.Request, resp: falcon.Response, group_id: str, body: parse.GroupBody) -> None:
        made = self._changed(
            req,
            lambda connection: groups.change(
                connection,
                req.context.account.id,
                group_id,
                name=body.group_name,
                template_id=body.template_id.lower(),
                capacity=body.capacity,
                interval=body.health_check_interval,
                request_id=req.context.request_id,
            ),
        )
        render.answer(resp, render.group(made))


class Groups(_Resource):
    """`/v1/tsg/groups`"""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        with self._service.db.read() as connection:
            found = groups.listed(connection, req.context.account.id, limit=LIST_MOST)
        render.answer(resp, [render.group(group) for group in found])

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = read_body(req, parse.GroupBody, self._service)
        made = self._changed(
            req,
            lambda connection: groups.create(
                connection,
                req.context.account.id,
                name=body.group_name,
                template_id=body.template_id.lower(),
                capacity=body.capacity,
                interval=body.health_check_interval or self._service.interval,
                request_id=req.context.request_id,
            ),
        )
        render.answer(resp, render.group(made), status=falcon.HTTP_201, location=f"{BASE}/{made.id}")

    def on_put(self, req: falcon.Request, resp: falcon.Response) -> None:
        """An update without an id, as the released Terraform provider sends it: the name says which group."""
        body = read_body(req, parse.GroupBody, self._service)
        with self._service.db.read() as connection:
            found = groups.named(connection, req.context.account.id, body.group_name)
        self._put(req, resp, found.id, body)


class Group(_Resource):
    """`/v1/tsg/groups/<id>`"""

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        render.answer(resp, render.group(self._existing(req, group_id)))

    def on_put(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        found = self._existing(req, group_id)
        self._put(req, resp, found.id, read_body(req, parse.GroupBody, self._service))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        wanted, account = found_id("group", group_id), req.context.account.id
        self._service.db.transact(lambda connection: groups.archive(connection, account, wanted, request_id=req.context.request_id))
        self._service.ring(account, wanted)
        render.nothing(resp, falcon.HTTP_204)


class Increment(_Resource):
    """`/v1/tsg/groups/<id>/increment`"""

    def on_put(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        found = self._existing(req, group_id)
        body = read_body(req, parse.IncrementBody, self._service)
        by, maximum = body.instance_count or 0, body.max_instance or 0
        self._changed(
            req,
            lambda connection: groups.increment(
                connection, req.context.account.id, found.id, by=by, maximum=maximum, request_id=req.context.request_id
            ),
        )
        render.nothing(resp, falcon.HTTP_202)


class Decrement(_Resource):
    """`/v1/tsg/groups/<id>/decrement`"""

    def on_put(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        found = self._existing(req, group_id)
        body = read_body(req, parse.DecrementBody, self._service)
        by, minimum = body.instance_count or 0, body.min_instance or 0
        self._changed(
            req,
            lambda connection: groups.decrement(
                connection, req.context.account.id, found.id, by=by, minimum=minimum, request_id=req.context.request_id
            ),
        )
        render.nothing(resp, falcon.HTTP_202)


class Instances(_Resource):
    """`/v1/tsg/groups/<id>/instances`"""

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        found = self._existing(req, group_id)
        with self._service.db.read() as connection:
            by_name = groups.is_by_name(connection, found.id)
        machines = self._service.cloud(req.context.account).machines(**{f"tag.{TAG_NAME}": found.name})
        names = {found.name: found.id} if by_name else {}
        render.answer(resp, [machine.body for machine in machines if machine.owner({found.id}, names)])
