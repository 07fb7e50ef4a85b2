"""A CloudAPI that computes its lists of machines instead of storing them: what is measured is not the simulator.

    python -m dev.benches.computed ACCOUNTS GROUPS INSTANCES PROVISION_SECONDS

Prints its address. Which machines there are follows from their numbers (`dev.benches.numbered`); only what changed since is stored.
It lists, shows, makes and deletes machines, and throttles each account as CloudAPI does. It looks at no signature.
"""

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from dev.benches.numbered import Size, address_of, uuid_of
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_NETWORK
from shared.clients.token_bucket import TokenBucket

#: CloudAPI's throttle of an account: requests a second, and at once.
RATE, BURST = 10.0, 30.0
CREATED = "2026-01-01T00:00:00.000Z"

#: As CloudAPI shows one, with its most usual parts.
MACHINE = (
    '{"id":"%(id)s","name":"%(name)s","type":"smartmachine","brand":"joyent","state":"%(state)s","image":"' + DEFAULT_IMAGE + '",'
    '"ips":["%(ip)s"],"memory":512,"disk":10240,"deletion_protection":false,"metadata":{"root_authorized_keys":"ssh-rsa AAAA"},'
    '"tags":%(tags)s,"created":"%(created)s","updated":"%(created)s","networks":["' + DEFAULT_NETWORK + '"],"firewall_enabled":false,'
    '"compute_node":"%(compute_node)s","package":"sim-small","primaryIp":"%(ip)s","nics":[{"mac":"90:b8:d0:00:00:01","primary":true,'
    '"ip":"%(ip)s","netmask":"255.0.0.0","gateway":"10.0.0.1","state":"running","network":"' + DEFAULT_NETWORK + '"}]}'
)
TAGS = '{"tsg.name":"group-%(group)d","tsg.group":"%(group_id)s","tsg.template":"%(template)s","tsg.launch":"%(launch)s"}'
REASONS = {200: "OK", 201: "Created", 204: "No Content", 404: "Not Found", 410: "Gone", 429: "Too Many Requests"}


class Made(NamedTuple):
    """A machine that was asked for."""

    id: str
    name: str
    tags: Mapping[str, Any]
    at: float


@dataclass
class Account:
    """What is not as the numbers say, and what is left of the budget."""

    number: int
    bucket: TokenBucket = field(default_factory=lambda: TokenBucket(RATE, BURST))
    made: dict[str, Made] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)
    requests: int = 0


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    count: int | None = None


class Computed:
    """The cloud. Not thread-safe."""

    def __init__(self, size: Size, provision_seconds: float) -> None:
        self._size = size
        self._provision_seconds = provision_seconds
        self._accounts = {uuid_of("triton", number): Account(number) for number in range(size.accounts)}
        #: Of the computed machines, each of this many is gone; 0: none.
        self._lost_every = 0
        #: What is counted over all accounts.
        self.counters = {"requests": 0, "throttled": 0, "lists": 0, "made": 0, "deleted": 0}

    def answer(self, method: str, target: str, body: bytes) -> Answer:
        """One request."""
        url = urlsplit(target)
        owner, *path = url.path.strip("/").split("/")
        query = dict(parse_qsl(url.query))
        if owner == "--sim":
            return self._control(path[0], query)
        account = self._accounts.get(owner)
        if account is None or path[:1] != ["machines"]:
            return _refused(404, "ResourceNotFound")
        self.counters["requests"] += 1
        account.requests += 1
        if account.bucket.left < 1:
            self.counters["throttled"] += 1
            return _refused(429, "TooManyRequestsError")
        account.bucket.take()
        if len(path) == 1:
            return self._make(account, json.loads(body)) if method == "POST" else self._list(account, query)
        return self._delete(account, path[1]) if method == "DELETE" else self._show(account, path[1])

    def _control(self, what: str, query: Mapping[str, str]) -> Answer:
        if what == "lose":
            self._lost_every = int(query["every"])
        lost = len(range(0, self._size.machines, self._lost_every)) if self._lost_every else 0
        most = max(account.requests for account in self._accounts.values())
        return Answer(200, json.dumps({**self.counters, "lost": lost, "most": most}).encode())

    def _list(self, account: Account, query: Mapping[str, str]) -> Answer:
        self.counters["lists"] += 1
        offset, limit = int(query.get("offset", 0)), int(query.get("limit", 1000))
        if (launch := query.get("tag.tsg.launch")) is not None:
            found = [self._shown(one) for one in account.made.values() if one.tags.get("tsg.launch") == launch]
        else:
            numbers = [number for number in self._numbers(account) if self._is_there(account, number)]
            found = [self._computed(account, number) for number in numbers[offset : offset + limit]]
            if len(found) < limit:
                behind = max(0, offset - len(numbers))
                found += [self._shown(one) for one in account.made.values()][behind : behind + limit - len(found)]
        return Answer(200, f"[{','.join(found)}]".encode(), len(found))

    def _show(self, account: Account, machine_id: str) -> Answer:
        if (made := account.made.get(machine_id)) is not None:
            return Answer(200, self._shown(made).encode())
        if (number := self._find(account, machine_id)) is None:
            return _refused(404, "ResourceNotFound")
        if self._is_there(account, number):
            return Answer(200, self._computed(account, number).encode())
        return Answer(410, self._computed(account, number, state="deleted").encode())

    def _make(self, account: Account, order: Mapping[str, Any]) -> Answer:
        tags = {name.removeprefix("tag."): value for name, value in order.items() if name.startswith("tag.")}
        made = Made(str(uuid.uuid4()), str(order.get("name", "")), tags, time.monotonic())
        account.made[made.id] = made
        self.counters["made"] += 1
        return Answer(201, self._shown(made).encode())

    def _delete(self, account: Account, machine_id: str) -> Answer:
        if account.made.pop(machine_id, None) is None:
            if (number := self._find(account, machine_id)) is None:
                return _refused(404, "ResourceNotFound")
            account.deleted.add(number)
        self.counters["deleted"] += 1
        return Answer(204)

    def _shown(self, made: Made) -> str:
        state = "running" if time.monotonic() - made.at >= self._provision_seconds else "provisioning"
        return MACHINE % {
            "id": made.id,
            "name": made.name,
            "state": state,
            "ip": "10.255.255.1",
            "tags": json.dumps(made.tags),
            "created": CREATED,
            "compute_node": made.id,
        }

    def _numbers(self, account: Account) -> Iterator[int]:
        each = self._size.instances
        return (group * each + number for group in self._size.groups_of(account.number) for number in range(each))

    def _find(self, account: Account, machine_id: str) -> int | None:
        """The number of a computed machine. Those that are gone are asked for most."""
        in_turn = sorted(self._numbers(account), key=lambda number: self._is_there(account, number))
        return next((number for number in in_turn if uuid_of("machine", number) == machine_id), None)

    def _is_there(self, account: Account, number: int) -> bool:
        return number not in account.deleted and not (self._lost_every and number % self._lost_every == 0)

    def _computed(self, account: Account, number: int, state: str = "running") -> str:
        group, template = number // self._size.instances, uuid_of("template", account.number)
        tags = {"group": group, "group_id": uuid_of("group", group), "template": template, "launch": uuid_of("launch", number)}
        return MACHINE % {
            "id": uuid_of("machine", number),
            "name": f"m-{number}",
            "state": state,
            "ip": address_of(number),
            "tags": TAGS % tags,
            "created": CREATED,
            "compute_node": uuid_of("server", number % 1000),
        }


def _refused(status: int, code: str) -> Answer:
    return Answer(status, json.dumps({"code": code, "message": code}).encode())


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as much of it as the service's client uses."""

    def __init__(self, answer: Callable[[str, str, bytes], Answer]) -> None:
        self._answer = answer
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end].decode("latin-1")
            _, _, behind = head.lower().partition("content-length:")
            length = int(behind.partition("\r\n")[0]) if behind else 0
            if len(self._read) < end + 4 + length:
                return
            body, self._read = self._read[end + 4 : end + 4 + length], self._read[end + 4 + length :]
            method, target, _ = head.split(" ", 2)
            self._write(self._answer(method, target, body))

    def _write(self, answer: Answer) -> None:
        counted = "" if answer.count is None else f"x-resource-count: {answer.count}\r\n"
        head = (
            f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\nContent-Type: application/json\r\n"
            f"{counted}Content-Length: {len(answer.body)}\r\n\r\n"
        )
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(head.encode() + answer.body)


async def _serve(cloud: Computed) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(cloud.answer), "127.0.0.1", 0, backlog=1000)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    _accounts, _groups, _instances = map(int, sys.argv[1:4])
    asyncio.run(_serve(Computed(Size(_accounts, _groups, _instances), float(sys.argv[4]))))
