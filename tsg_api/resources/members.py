"""Members of a group over HTTP: what rows know of them, and what their owner asks of them.

Adoption writes the row first and then the machine's tags: a machine with the tags and without a row would be found by a worker that knows
of no higher capacity. Detachment takes the tags away first and then the row: a machine without a row and with the tags would be found anew.
Whatever is left over when this process is killed in between, the same request sent again completes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import falcon
from sqlalchemy import Connection

from shared.clients import cloudapi
from shared.clients.cloudapi import Client, CloudAPIError, Machine
from shared.errors import Conflict, FieldError, Invalid
from shared.rules import is_uuid
from shared.spec.machines import TAG_GROUP, TAG_NAME, find_owner
from shared.spec.tags import CMON_GROUPS
from shared.state import group_state, groups, members
from shared.state.changes import Asker
from shared.state.groups import Group
from shared.state.idempotency import Answer
from shared.state.instances import RUNNING
from shared.state.members import Adoptee, Member
from tsg_api.auth.enrol import as_manager
from tsg_api.http import etag, paging
from tsg_api.http.errors import TooLarge, Unavailable
from tsg_api.http.service import found_id, read_body
from tsg_api.resources.groups import GroupResource
from tsg_api.schema import parse, render, responses

#: Tags that begin so are this service's own.
OURS = "tsg."
#: Seconds to wait for a turn at CloudAPI.
TURN_SECONDS = 5.0


class _MemberResource(GroupResource):
    @contextmanager
    def _if_it_is_there(self, req: falcon.Request, group_id: str, machine_id: str) -> Iterator[tuple[Asker, str]]:
        """A change of a member. An unknown one is 404 whatever else is wrong: it is looked for only when something is."""
        with self._if_it_exists(req, group_id) as wanted:
            machine = found_id("member", machine_id)
            try:
                yield self._asker(req, wanted), machine
            except (Invalid, TooLarge):
                self._existing(req, wanted)
                with self._service.db.read() as connection:
                    members.get(connection, wanted, machine)
                raise

    def _asker(self, req: falcon.Request, group_id: str) -> Asker:
        return Asker(req.context.account.id, group_id, req.context.request_id)

    def _change_member(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        group_id: str,
        work: Callable[[Connection], tuple[Group, Member]],
        status: int = 200,
    ) -> None:
        def shown(changed: tuple[Group, Member]) -> Answer:
            group, member = changed
            return Answer(status, render.to_json(responses.member(group, member)), etag=etag.of_group(group))

        self._change(req, resp, group_id, work, shown)

    @contextmanager
    def _cloud(self, req: falcon.Request) -> Iterator[Client]:
        """CloudAPI by the account's management key, and a slot for it."""
        account = req.context.account
        with self._service.slots.machines.of_cloudapi(account.id), as_manager(self._service.db, account):
            yield self._service.cloud(account)


class Members(_MemberResource):
    """`/v1/tsg/groups/<id>/members`"""

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        page, group = paging.asked(req), self._existing(req, group_id)
        with self._service.db.read() as connection:
            entries = members.list_entries(connection, group.id, limit=(page.limit or paging.MOST) + 1, marker=page.marker)

        def read(ids: Sequence[str]) -> list[object]:
            with self._service.db.read() as connection:
                found = members.get_by_machine_ids(connection, group.id, ids)
            return [responses.member(group, found[one]) for one in ids if one in found]

        def count() -> int:
            with self._service.db.read() as connection:
                return members.count(connection, group.id)

        paging.answer(req, resp, page, paging.Listing(entries, read, count), self._service.slots.lists)

    def on_post(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        with self._if_it_exists(req, group_id) as wanted:
            machine_id = read_body(req, parse.AdoptionBody, self._service).machine_id.lower()
            group = self._existing(req, wanted)
            with self._cloud(req) as client:
                machine = self._adoptable(req, client, group, machine_id)
                adoptee = Adoptee(machine.id, machine.name, machine.state, machine.compute_node or None, machine.primary_ip or None)

                def work(connection: Connection) -> tuple[Group, Member]:
                    return members.adopt(connection, self._asker(req, wanted), adoptee, most=self._service.max_capacity)

                self._change_member(req, resp, wanted, work, status=201)
                _tag(client, group, machine)

    def on_replay(self, req: falcon.Request, resp: falcon.Response, *, group_id: str) -> None:
        """The adoption was stored before; what failed then, or was never done, is done now."""
        if req.method != "POST" or resp.status != falcon.HTTP_201:
            return
        group = self._existing(req, group_id)
        machine_id = read_body(req, parse.AdoptionBody, self._service).machine_id.lower()
        with self._service.db.read() as connection:
            is_member = machine_id in members.get_by_machine_ids(connection, group.id, [machine_id])
        if is_member:
            with self._cloud(req) as client:
                _tag(client, group, _found(client, machine_id))

    def _adoptable(self, req: falcon.Request, client: Client, group: Group, machine_id: str) -> Machine:
        """The machine as CloudAPI has it. `Invalid` unless it runs; `Conflict` when its tags name another group."""
        machine = _found(client, machine_id)
        if machine.state != RUNNING:
            raise Invalid([FieldError("machine_id", f"the machine {machine_id} is {machine.state}: only one that runs can be adopted")])
        tagged = str(machine.tags.get(TAG_GROUP))
        with self._service.db.read() as connection:
            owners = group_state.list_owners(
                connection,
                req.context.account.id,
                ids={tagged} if is_uuid(tagged) else set(),
                names={str(machine.tags.get(TAG_NAME))},
            )
        living = [owner for owner in owners if not owner.is_emptied]
        owner = find_owner(machine.tags, {one.id for one in living}, {one.name: one.id for one in living if one.by_name})
        if owner not in {None, group.id}:
            raise Conflict(f"The machine {machine_id} has the tags of the group {owner}: detach it there first.")
        return machine


class Removal(_MemberResource):
    """`/v1/tsg/groups/<id>/members/<machine>`"""

    rehearses = frozenset({"DELETE"})

    def on_delete(self, req: falcon.Request, resp: falcon.Response, group_id: str, machine_id: str) -> None:
        with self._if_it_is_there(req, group_id, machine_id) as (asker, machine):
            lowers = parse.query(parse.RemovalQuery, req.params).decrement

            def work(connection: Connection) -> Group:
                return members.remove(connection, asker, machine, lowers=lowers)

            self._change(req, resp, asker.group_id, work, lambda _group: Answer(202))


class Protection(_MemberResource):
    """`/v1/tsg/groups/<id>/members/<machine>/protection`"""

    def on_put(self, req: falcon.Request, resp: falcon.Response, group_id: str, machine_id: str) -> None:
        with self._if_it_is_there(req, group_id, machine_id) as (asker, machine):
            body = read_body(req, parse.ProtectionBody, self._service)

            def work(connection: Connection) -> tuple[Group, Member]:
                if body.protected:
                    return members.protect(connection, asker, machine, until=body.until, note=body.note)
                return members.unprotect(connection, asker, machine, note=body.note)

            self._change_member(req, resp, asker.group_id, work)


class Health(_MemberResource):
    """`/v1/tsg/groups/<id>/members/<machine>/health`"""

    def on_put(self, req: falcon.Request, resp: falcon.Response, group_id: str, machine_id: str) -> None:
        with self._if_it_is_there(req, group_id, machine_id) as (asker, machine):
            body = read_body(req, parse.HealthBody, self._service)
            self._change_member(
                *(req, resp, asker.group_id),
                lambda connection: members.vote(connection, asker, machine, status=body.status, note=body.note),
            )


class Detachment(_MemberResource):
    """`/v1/tsg/groups/<id>/members/<machine>/detach`"""

    def on_post(self, req: falcon.Request, resp: falcon.Response, group_id: str, machine_id: str) -> None:
        with self._if_it_is_there(req, group_id, machine_id) as (asker, machine):
            lowers = read_body(req, parse.DetachmentBody, self._service).decrement
            expected = etag.asked(req)

            def hold(connection: Connection) -> tuple[Group, Member]:
                group = groups.get_locked(connection, asker.account_id, asker.group_id)
                if expected:
                    expected.check(etag.of_group(group))
                return members.hold(connection, asker, machine, lowers=lowers)

            def work(connection: Connection) -> Group:
                return members.detach(connection, asker, machine, lowers=lowers)

            with self._cloud(req) as client:
                group, member = self._service.db.transact(hold)
                _untag(client, group, member)
                self._settle(req, resp, asker.group_id, work, lambda _group: Answer(204))


def _found(client: Client, machine_id: str) -> Machine:
    """`Invalid` when CloudAPI has no such machine."""
    _await_turn(client)
    try:
        machine = client.machine(machine_id)
    except cloudapi.NotFound:
        machine = None
    if machine is None:
        raise Invalid([FieldError("machine_id", f"the account has no machine {machine_id}")])
    return machine


def _tag(client: Client, group: Group, machine: Machine) -> None:
    """Give a member the tags by which this service knows its machines, and Prometheus the group's."""
    tags = {TAG_NAME: group.name, TAG_GROUP: group.id}
    if CMON_GROUPS not in machine.tags:
        tags[CMON_GROUPS] = group.id
    missing = {name: value for name, value in tags.items() if machine.tags.get(name) != value}
    if not missing:
        return
    try:
        _await_turn(client)
        client.add_tags(machine.id, missing)
    except (CloudAPIError, Unavailable) as error:
        raise Unavailable(f"The machine is a member now, and CloudAPI did not take its tags ({error}): send the request again.") from error


def _untag(client: Client, group: Group, member: Member) -> None:
    """Take them away; and have DNS lead to it again that left it for its drain."""
    machine = _kept(client, member.machine_id)
    ours = [name for name in machine.tags if name.startswith(OURS)]
    if machine.tags.get(CMON_GROUPS) == group.id:
        ours.append(CMON_GROUPS)
    for name in ours:
        _await_turn(client)
        client.delete_tag(machine.id, name)
    if member.instance.draining_since is not None and machine.cns_status is not None:
        _await_turn(client)
        client.delete_metadata(machine.id, cloudapi.CNS_STATUS)


def _kept(client: Client, machine_id: str) -> Machine:
    """`Conflict` when there is nothing left to keep."""
    try:
        return _found(client, machine_id)
    except Invalid:
        raise Conflict(f"CloudAPI has no machine {machine_id} any more.") from None


def _await_turn(client: Client) -> None:
    if not client.turn(within=TURN_SECONDS):
        raise Unavailable("CloudAPI takes no more requests of this account now; try again.")
