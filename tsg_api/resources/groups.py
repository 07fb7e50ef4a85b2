"""Groups over HTTP: parse, transact, wake a worker, render. The wake-up is sent after the commit."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import falcon
from sqlalchemy import Connection

from shared.clients.cloudapi import Client, Machine
from shared.errors import Invalid, OtherRelease
from shared.spec.machines import TAG_NAME, find_owner
from shared.state import groups, instances, members
from shared.state.groups import Group as StoredGroup
from shared.state.idempotency import Answer
from shared.state.instances import ON_THE_WAY, RUNNING
from shared.store.paging import Entry
from tsg_api.auth.enrol import as_manager
from tsg_api.http import etag, paging, rehearsal, write
from tsg_api.http.errors import TooLarge
from tsg_api.http.service import Service, found_id, read_body
from tsg_api.schema import parse, render, responses

BASE = "/v1/tsg/groups"
#: States of machines that CloudAPI lists.
LISTED = {RUNNING, *ON_THE_WAY}
#: On the answer to a change without a capacity. The Go SDK leaves out a capacity of 0, so that it can't be refused.
NO_CAPACITY = '299 - "The request had no capacity, which means 0: the group has no instances from now on."'

T = TypeVar("T")


class GroupResource:
    """What is below a group."""

    #: Methods that take `dry_run`.
    rehearses: frozenset[str] = frozenset()

    def __init__(self, service: Service) -> None:
        self._service = service

    def _existing(self, req: falcon.Request, group_id: str) -> StoredGroup:
        """An unknown group is 404 whatever else is wrong with the request."""
        with self._service.db.read() as connection:
            return groups.get(connection, req.context.account.id, found_id("group", group_id))

    @contextmanager
    def _if_it_exists(self, req: falcon.Request, group_id: str) -> Iterator[str]:
        """A change of the group of this id. An unknown one is 404 whatever else is wrong: it is looked for only when something is."""
        wanted = found_id("group", group_id)
        try:
            yield wanted
        except (Invalid, TooLarge):
            self._existing(req, wanted)
            raise

    def _change(
        self, req: falcon.Request, resp: falcon.Response, group_id: str, work: Callable[[Connection], T], answer: Callable[[T], Answer]
    ) -> None:
        """Change a group that is there, if it is the one that the request means; or say what would come of it."""
        if rehearsal.is_asked(req):
            rehearsal.answer(self._service, req, resp, group_id, work)
            return
        expected = etag.asked(req)

        def checked(connection: Connection) -> T:
            if expected:
                expected.check(etag.of_group(groups.get_locked(connection, req.context.account.id, group_id)))
            return work(connection)

        self._settle(req, resp, group_id, checked, answer)

    def _settle(
        self, req: falcon.Request, resp: falcon.Response, group_id: str, work: Callable[[Connection], T], answer: Callable[[T], Answer]
    ) -> None:
        """Change a group, and wake a worker for it."""
        if write.change(self._service.db, req, resp, work, answer) is not None:
            self._service.wake(req.context.account.id, group_id)


class _Shown(GroupResource):
    def _show(self, group: StoredGroup) -> dict[str, Any]:
        return responses.group(group, max_capacity=self._service.max_capacity)

    def _listed(self, group: StoredGroup) -> Mapping[str, object]:
        """In a list, a group whose settings another release wrote stands without them."""
        try:
            return self._show(group)
        except OtherRelease:
            return responses.group_of_2018(group)

    def _shown(self, group: StoredGroup, status: int, location: str | None = None) -> Answer:
        return Answer(status, render.to_json(self._show(group)), location, etag.of_group(group))


class _Putting(_Shown):
    def on_replay(self, req: falcon.Request, resp: falcon.Response, **_params: str) -> None:
        """The answer is given again, under its Idempotency-Key."""
        if req.method == "PUT":
            _warn(resp, read_body(req, parse.group_body(), self._service))

    def _put(self, req: falcon.Request, resp: falcon.Response, group_id: str, body: parse.GroupBody) -> None:
        def work(connection: Connection) -> StoredGroup:
            return groups.update_group(connection, req.context.account.id, group_id, body.wish(), request_id=req.context.request_id)

        self._change(req, resp, group_id, work, lambda made: self._shown(made, 200))
        _warn(resp, body)


class Groups(_Putting):
    """`/v1/tsg/groups`"""

    rehearses = frozenset({"PUT"})

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        page = paging.asked(req)
        listing = paging.stored(groups, self._service.db, req.context.account.id, page, self._listed)
        paging.answer(req, resp, page, listing, self._service.slots.lists)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = read_body(req, parse.group_body(), self._service)

        def work(connection: Connection) -> StoredGroup:
            return groups.insert_group(
                connection,
                req.context.account.id,
                body.wish(),
                interval=self._service.interval,
                request_id=req.context.request_id,
                has_job=self._service.has_jobs,
            )

        made = write.change(self._service.db, req, resp, work, self._created, alone=True)
        if made:
            self._service.wake(req.context.account.id, made.id)

    def _created(self, made: StoredGroup) -> Answer:
        return self._shown(made, 201, f"{BASE}/{made.id}")

    def on_put(self, req: falcon.Request, resp: falcon.Response) -> None:
        """An update without an id, as the released Terraform provider sends it: the name says which group."""
        body = read_body(req, parse.group_body(), self._service)
        with self._service.db.read() as connection:
            found = groups.get_by_name(connection, req.context.account.id, body.group_name)
        self._put(req, resp, found.id, body)


class Group(_Putting):
    """`/v1/tsg/groups/<id>`"""

    rehearses = frozenset({"PUT", "DELETE"})

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        found = self._existing(req, group_id)
        etag.answer(req, resp, found, etag.of_group(found), self._show)

    def on_put(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        with self._if_it_exists(req, group_id) as wanted:
            self._put(req, resp, wanted, read_body(req, parse.group_body(), self._service))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        wanted, account = found_id("group", group_id), req.context.account.id

        def work(connection: Connection) -> StoredGroup:
            return groups.delete_group(connection, account, wanted, request_id=req.context.request_id)

        self._change(req, resp, wanted, work, lambda _made: Answer(204))


class _Step(GroupResource):
    rehearses = frozenset({"PUT"})
    model: type[parse.IncrementBody | parse.DecrementBody]
    step: Callable[..., StoredGroup]

    def on_put(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        with self._if_it_exists(req, group_id) as wanted:
            asked = read_body(req, self.model, self._service).step()

            def work(connection: Connection) -> StoredGroup:
                return self.step(connection, req.context.account.id, wanted, request_id=req.context.request_id, **asked)

            self._change(req, resp, wanted, work, lambda _made: Answer(202))


class Increment(_Step):
    """`/v1/tsg/groups/<id>/increment`"""

    model, step = parse.IncrementBody, staticmethod(groups.increment)


class Decrement(_Step):
    """`/v1/tsg/groups/<id>/decrement`"""

    model, step = parse.DecrementBody, staticmethod(members.decrement)


class Instances(GroupResource):
    """`/v1/tsg/groups/<id>/instances`"""

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        page, found = paging.asked(req), self._existing(req, group_id)
        with self._service.db.read() as connection:
            by_name = groups.is_by_name(connection, found.id)
        with self._service.slots.machines.of_cloudapi(req.context.account.id), as_manager(self._service.db, req.context.account):
            owned = self._owned(self._service.cloud(req.context.account), req.context.account.id, found, by_name=by_name)
        ids: Iterable[str] = owned
        if page.limit or page.marker:
            # A machine that is gone says nothing of its age any more: pages go by id.
            ids = sorted(machine_id for machine_id in owned if machine_id > (page.marker or ""))
        listing = paging.Listing([Entry(machine_id) for machine_id in ids], lambda ids: [owned[one] for one in ids], lambda: len(owned))
        paging.answer(req, resp, page, listing, self._service.slots.lists)

    def _owned(self, client: Client, account_id: str, group: StoredGroup, *, by_name: bool) -> dict[str, Mapping[str, Any]]:
        """The group's machines: those with rows, whatever has become of their tags, and those that have its tags alone."""
        machines = list(client.machine_bodies(**{f"tag.{TAG_NAME}": group.name}))
        names = {group.name: group.id} if by_name else {}
        with self._service.db.read() as connection:
            rows = instances.get_owners(connection, account_id, {machine.id for machine in machines}, group_id=group.id)

        def is_owned(machine: Machine) -> bool:
            return rows[machine.id][0] == group.id if machine.id in rows else find_owner(machine.tags, {group.id}, names) is not None

        owned = {machine.id: machine.body for machine in machines if is_owned(machine)}
        missing = {one for one, (owner, state) in rows.items() if owner == group.id and state in LISTED and one not in owned}
        if missing:
            # Their tags were changed by hand, or CloudAPI does not list them yet.
            owned |= {machine.id: machine.body for machine in client.machine_bodies() if machine.id in missing}
        return owned


def _warn(resp: falcon.Response, body: parse.GroupBody) -> None:
    if "capacity" in body.left_out:
        resp.set_header("Warning", NO_CAPACITY)
