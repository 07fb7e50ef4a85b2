"""Health checks: real servers on loopback addresses that play instances, well and badly, and the rows that probers write."""

import asyncio
import dataclasses
import itertools
import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_network
from typing import Any

import pytest

from dev.processes import wait_for
from dev.sim.cloudapi.catalog import DEFAULT_NETWORK, PRIVATE_NETWORK
from shared.spec import group_settings
from shared.spec.group_settings import GroupSettings, HealthCheck, Probe
from shared.state import probes, work
from shared.state.groups import Group
from shared.state.probes import HEALTHY, PROBES, RANGES, UNHEALTHY, Finding
from shared.state.work import ClaimLost
from shared.store.db import Database
from tests.integration.conftest import World
from tsg_workers.probes import prober
from tsg_workers.probes.probe import probe
from tsg_workers.probes.prober import NO_ADDRESS, Prober

LOOPBACK = [ip_network("127.0.0.0/8")]
NETWORK = "9ec60129-9034-47b4-b111-3026f9b1a10f"
#: Seconds that a test waits at most for what it expects.
PATIENCE = 60

_addresses = itertools.count(1)

#: What a probe says that took longer than its timeout.
LATE = "no answer within 1 s"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Machine:
    """A server on an address of its own, which may turn bad and good again."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int, address: str | None) -> None:
        number = next(_addresses)
        self.address = address or f"127.{100 + number // 60_000}.{number // 250 % 240}.{number % 250 + 1}"
        self.port = port
        #: What it answers; None: nothing at all. Empty: it closes the connection.
        self.answer: bytes | None = OK
        #: It never stops sending.
        self.endless = False
        self.resets = False
        self.requests: list[bytes] = []
        self._loop = loop
        self._server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, self.address, port), loop).result()
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.resets:
            writer.transport.abort()
            return
        request = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(request)
        answer = self.answer
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
            await writer.drain()
        while self.endless:
            writer.write(b"x" * 65536)
            await writer.drain()


async def _end() -> None:
    """Close what is still open: a connection that goes with the loop warns in another test."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever, daemon=True)
    thread.start()
    yield made
    asyncio.run_coroutine_threadsafe(_end(), made).result(20)
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


@pytest.fixture
def serve(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[..., Machine]]:
    with ExitStack() as stack:

        def start(port: int = 0, address: str | None = None) -> Machine:
            machine = Machine(loop, port, address)
            stack.callback(machine.close)
            return machine

        yield start


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RENEW_EVERY", "READ_EVERY", "WRITE_EVERY"):
        monkeypatch.setattr(prober, name, 0.05)


def check(**fields: Any) -> HealthCheck:
    chosen = {"type": Probe.HTTP, "port": 80, "interval_seconds": 1, "timeout_seconds": 1, "grace_seconds": 0, **fields}
    return HealthCheck(**{"unhealthy_after": 1, "healthy_after": 1, **chosen})


def outcome(machine: Machine, **fields: Any) -> str | None:
    return asyncio.run(probe(machine.address, check(port=machine.port, **fields)))


# One probe


def test_a_probe_is_one_plain_request(serve: Callable[..., Machine]) -> None:
    machine = serve()
    assert outcome(machine, path="/healthz?full=1") is None
    host = f"{machine.address}:{machine.port}".encode()
    assert machine.requests == [
        b"GET /healthz?full=1 HTTP/1.1\r\nHost: " + host + b"\r\nUser-Agent: tsg-health-check\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    ]


def test_a_server_that_does_not_do_is_told_by_what_it_does(serve: Callable[..., Machine]) -> None:
    machine = serve()
    answers = [
        (b"HTTP/1.1 500 Oops\r\n\r\n", "HTTP 500"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP 404"),
        (b"", "the connection was closed without an answer"),
        (b"+PONG\r\n", "the answer is not HTTP/1"),
        (b"HTTP/1.1 100 Continue\r\n" + b"X: y\r\n" * 20_000, "no status in 16384 bytes"),
        (None, "no answer within 1 s"),
    ]
    for machine.answer, told in answers:
        assert outcome(machine) == told
    machine.resets = True
    assert outcome(machine) in {"connection reset by peer", "the connection was closed without an answer"}
    machine.close()
    with socket.socket() as unused:
        unused.bind((machine.address, 0))
        machine.port = unused.getsockname()[1]
        assert outcome(machine) == "connection refused"


def test_the_status_is_held_against_what_is_expected(serve: Callable[..., Machine]) -> None:
    machine = serve()
    machine.answer = b"HTTP/1.1 418 I'm a teapot\r\n\r\n"
    assert outcome(machine, expect=(418, 418)) is None
    assert outcome(machine, expect=(200, 299)) == "HTTP 418"


def test_a_redirect_is_an_answer_and_is_not_followed(serve: Callable[..., Machine]) -> None:
    other, machine = serve(), serve()
    machine.answer = f"HTTP/1.1 302 Found\r\nLocation: http://{other.address}:{other.port}/\r\n\r\n".encode()
    assert outcome(machine) is None
    assert outcome(machine, expect=(200, 299)) == "HTTP 302"
    assert other.requests == []


def test_a_body_without_an_end_is_not_read(serve: Callable[..., Machine]) -> None:
    machine = serve()
    machine.endless = True
    assert outcome(machine, timeout_seconds=30, interval_seconds=30) is None


def test_a_tcp_probe_asks_for_a_connection_and_no_more(serve: Callable[..., Machine]) -> None:
    machine = serve()
    machine.answer = None
    assert outcome(machine, type=Probe.TCP) is None
    assert machine.requests == []


def test_an_instance_may_have_an_ipv6_address(loop: asyncio.AbstractEventLoop) -> None:
    got = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        writer.close()

    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(serve, "::1", 0), loop).result()
    port = server.sockets[0].getsockname()[1]
    assert asyncio.run(probe("::1", check(port=port))) is None
    assert f"Host: [::1]:{port}".encode() in got[0]
    loop.call_soon_threadsafe(server.close)


# Probers and rows


class Place:
    """A world whose groups have health checks, and instances that servers play."""

    def __init__(self, world: World) -> None:
        self.world = world

    def group(self, health_check: HealthCheck | None, *machines: Machine | None, **columns: Any) -> Group:
        group = self.world.make_group(len(machines))
        self.change(group, health_check)
        self.world.sql("UPDATE tsg_group_state SET check_at = now() + interval '1 hour' WHERE group_id = :id", id=group.id)
        for machine in machines:
            self.instance(group, machine.address if machine else None, **columns)
        return group

    def change(self, group: Group, health_check: HealthCheck | None) -> None:
        more = group_settings.to_document(GroupSettings(health_check=health_check))
        self.world.sql("UPDATE tsg_groups SET more = :more WHERE id = :id", id=group.id, more=more)

    def instance(self, group: Group, address: str | None, **columns: Any) -> None:
        values = {
            "account_id": self.world.account.id,
            "group_id": group.id,
            "machine_id": str(uuid.uuid4()),
            "state": "running",
            "primary_ip": address,
            **columns,
        }
        self.world.sql(f"INSERT INTO tsg_instances ({', '.join(values)}) VALUES ({', '.join(':' + name for name in values)})", **values)

    def health(self, group: Group) -> list[tuple[str | None, str | None]]:
        rows = self.world.sql("SELECT probe, probe_error FROM tsg_instances WHERE group_id = :id ORDER BY primary_ip::inet", id=group.id)
        return [tuple(row) for row in rows]

    def turns(self, group: Group, *health: tuple[str | None, str | None]) -> bool:
        """Comes to this. On a machine that is busy with other things, an answer may come too late where it is a bad one."""

        def is_so() -> bool:
            found = self.health(group)
            return len(found) == len(health) and all(
                one == wanted or (one == (wanted[0], LATE) and wanted[1] is not None) for one, wanted in zip(found, health, strict=True)
            )

        assert wait_for(is_so, seconds=PATIENCE), self.health(group)
        return True

    def is_due(self, group: Group) -> bool:
        return bool(self.world.sql("SELECT check_at <= now() FROM tsg_group_state WHERE group_id = :id", id=group.id)[0][0])

    def put_off(self, group: Group) -> None:
        self.world.sql("UPDATE tsg_group_state SET check_at = now() + interval '1 hour' WHERE group_id = :id", id=group.id)

    def owners(self) -> dict[str, int]:
        """How many ranges each process has."""
        rows = self.world.sql("SELECT owner, count(*) FROM tsg_work WHERE kind = 'probes' AND until > now() GROUP BY owner")
        return {row[0]: row[1] for row in rows}


@pytest.fixture
def place(database: Database, sim: Any, pair: Any) -> Iterator[Place]:
    world = World(database, sim, pair)
    yield Place(world)
    world.close()


@contextmanager
def probing(place: Place, owner: str = "prober-1", **more: Any) -> Iterator[Prober]:
    running = Prober(place.world.db, more.get("allowed", LOOPBACK), owner=owner)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def test_an_instance_turns_unhealthy_and_healthy_again_and_its_group_is_due(place: Place, serve: Callable[..., Machine]) -> None:
    first = serve()
    second = serve(first.port)
    group = place.group(check(port=first.port, unhealthy_after=2, healthy_after=2), first, second)
    with probing(place):
        assert place.turns(group, (HEALTHY, None), (HEALTHY, None))
        assert place.is_due(group)
        place.put_off(group)
        first.answer = b"HTTP/1.1 503 Busy\r\n\r\n"
        assert place.turns(group, (UNHEALTHY, "HTTP 503"), (HEALTHY, None))
        assert place.is_due(group)
        # On a machine that is busy with other things, an answer may once have come too late before.
        told = [one for one in place.world.told(group) if one.kind == "TSG_INSTANCE_UNHEALTHY"][-1]
        assert told.description.startswith(f"{told.machine_id} is unhealthy: its health check says ")
        first.answer = OK
        assert place.turns(group, (HEALTHY, None), (HEALTHY, None))
    assert place.owners() == {}, "it gave all back"


def test_rows_are_written_when_something_changes_and_not_for_every_probe(place: Place, serve: Callable[..., Machine]) -> None:
    machine = serve()
    group = place.group(check(port=machine.port, unhealthy_after=100), machine)
    with probing(place):
        assert place.turns(group, (HEALTHY, None))
        (before,) = place.world.sql("SELECT xmin::text, probe_since FROM tsg_instances WHERE group_id = :id", id=group.id)
        place.put_off(group)
        probed = len(machine.requests)
        assert wait_for(lambda: len(machine.requests) > probed + 2, seconds=PATIENCE)
    (after,) = place.world.sql("SELECT xmin::text, probe_since FROM tsg_instances WHERE group_id = :id", id=group.id)
    assert tuple(after) == tuple(before)
    assert not place.is_due(group)


def test_a_boot_is_waited_for(place: Place, serve: Callable[..., Machine]) -> None:
    machine = serve()
    machine.answer = b"HTTP/1.1 503 Starting\r\n\r\n"
    group = place.group(check(port=machine.port, grace_seconds=3600), machine)
    with probing(place):
        assert wait_for(lambda: len(machine.requests) > 3, seconds=PATIENCE)
        assert place.turns(group, (None, "HTTP 503"))
        assert not place.is_due(group)
        machine.answer = OK
        assert place.turns(group, (HEALTHY, None))
        machine.answer = b"HTTP/1.1 503 Broken\r\n\r\n"
        assert place.turns(group, (UNHEALTHY, "HTTP 503")), "the grace ended with the first success"


def test_a_health_check_may_be_on_another_network(place: Place, serve: Callable[..., Machine]) -> None:
    primary, other = serve(), serve()
    chosen = check(port=other.port, network=NETWORK)
    group = place.group(chosen, primary, addresses=json.dumps({NETWORK: other.address}))
    place.instance(group, "127.0.0.99", addresses=json.dumps({str(uuid.uuid4()): other.address}))
    place.instance(group, None)
    with probing(place):
        assert place.turns(group, *sorted([(None, NO_ADDRESS), (HEALTHY, None)], key=lambda one: one[1] or "z"), (None, NO_ADDRESS))
    assert primary.requests == []


def test_an_address_that_may_not_be_probed_is_not_and_says_so(place: Place, serve: Callable[..., Machine]) -> None:
    machine = serve()
    group = place.group(check(port=machine.port), machine, probe=UNHEALTHY)
    with probing(place, allowed=[]):
        told = f"{machine.address} is not public, and in no network of TSG_PROBE_NETWORKS: it is not probed"
        assert place.turns(group, (None, told))
    assert machine.requests == []


def test_an_instance_that_has_another_address_is_probed_there(place: Place, serve: Callable[..., Machine]) -> None:
    old = serve()
    new = serve(old.port)
    group = place.group(check(port=old.port), old)
    with probing(place):
        assert place.turns(group, (HEALTHY, None))
        place.world.sql("UPDATE tsg_instances SET primary_ip = :ip WHERE group_id = :id", ip=new.address, id=group.id)
        assert wait_for(lambda: len(new.requests) > 2, seconds=PATIENCE)
        probed = len(old.requests)
        assert wait_for(lambda: len(new.requests) > 4, seconds=PATIENCE)
        assert len(old.requests) == probed
        place.world.sql("UPDATE tsg_instances SET state = 'stopped' WHERE group_id = :id", id=group.id)
        other = place.group(check(port=old.port), old)
        assert place.turns(other, (HEALTHY, None)), "the rows were read again"
        probed = len(new.requests)
        assert wait_for(lambda: len(old.requests) > 4, seconds=PATIENCE)
        assert len(new.requests) == probed


def test_what_was_found_before_an_instance_was_started_says_nothing(place: Place, serve: Callable[..., Machine]) -> None:
    machine = serve()
    machine.answer = None
    group = place.group(check(port=machine.port, grace_seconds=3600), machine, probe=UNHEALTHY, probe_error="HTTP 500")
    place.world.sql(
        "UPDATE tsg_instances SET probe_since = now() - interval '1 hour', running_since = now() WHERE group_id = :id", id=group.id
    )
    with probing(place):
        assert wait_for(lambda: place.health(group)[0][0] is None, seconds=PATIENCE)


def test_a_group_whose_settings_are_unreadable_keeps_no_other_from_being_probed(place: Place, serve: Callable[..., Machine]) -> None:
    machine = serve()
    unreadable, fine = (place.group(check(port=machine.port), machine) for _ in range(2))
    place.world.sql("""UPDATE tsg_groups SET more = '{"health_check": {' WHERE id = :id""", id=unreadable.id)
    with probing(place):
        assert place.turns(fine, (HEALTHY, None))
    assert place.health(unreadable) == [(None, None)]


def test_a_row_that_somebody_else_wrote_is_put_right(place: Place, serve: Callable[..., Machine]) -> None:
    machine = serve()
    group = place.group(check(port=machine.port), machine)
    with probing(place):
        assert place.turns(group, (HEALTHY, None))
        with place.world.db.read() as connection:
            probes.forget(connection, group.id)
        assert place.turns(group, (HEALTHY, None))
        place.change(group, None)
        probed = len(machine.requests)
        assert wait_for(lambda: place.owners() == {}, seconds=PATIENCE), "no group has a health check any more"
        with place.world.db.read() as connection:
            probes.forget(connection, group.id)
        assert place.health(group) == [(None, None)]
        assert len(machine.requests) <= probed + 1


def test_probers_share_the_groups_and_take_over_from_one_that_ends(place: Place, serve: Callable[..., Machine]) -> None:
    machine = serve()
    groups = [place.group(check(port=machine.port), machine) for _ in range(8)]
    with probing(place, "prober-1"):
        assert wait_for(lambda: place.owners() == {"prober-1": 16}, seconds=PATIENCE)
        with probing(place, "prober-2"), probing(place, "prober-3"):
            assert wait_for(lambda: sorted(place.owners().values()) in ([4, 6, 6], [5, 5, 6]), seconds=PATIENCE), place.owners()
        assert wait_for(lambda: place.owners() == {"prober-1": 16}, seconds=PATIENCE)
        for group in groups:
            assert place.turns(group, (HEALTHY, None))


def test_a_prober_that_was_overtaken_writes_nothing(place: Place, serve: Callable[..., Machine]) -> None:
    machine = serve()
    group = place.group(check(port=machine.port), machine)
    first = probes.range_of(group.id)
    with place.world.db.read() as connection:
        claimed = work.claim(connection, PROBES, first, owner="dead", seconds=30)
        assert claimed is not None
        _, (target,) = probes.list_targets(connection, RANGES)
        place.world.sql("UPDATE tsg_work SET until = now() - interval '1 second' WHERE subject = :id", id=first)
    with probing(place):
        assert place.turns(group, (HEALTHY, None)), "another took it over"
        finding = Finding(target, UNHEALTHY, "of long ago")
        with pytest.raises(ClaimLost):
            place.world.db.transact(lambda connection: probes.mark_found(connection, claimed, [finding], actor="dead"))
        assert place.health(group) == [(HEALTHY, None)]


def test_a_prober_whose_claims_were_taken_begins_anew(place: Place, serve: Callable[..., Machine]) -> None:
    machine = serve()
    group = place.group(check(port=machine.port), machine)
    with probing(place):
        assert place.turns(group, (HEALTHY, None))
        place.world.sql("UPDATE tsg_work SET token = token + 1, owner = 'other', until = now() - interval '1 second' WHERE kind = 'probes'")
        place.world.sql("UPDATE tsg_instances SET probe = 'unhealthy' WHERE group_id = :id", id=group.id)
        assert place.turns(group, (HEALTHY, None))


def test_an_instance_that_probes_find_unhealthy_is_replaced(place: Place, serve: Callable[..., Machine]) -> None:
    world = place.world
    for network, subnet in ((DEFAULT_NETWORK, "127.30.0.0/16"), (PRIVATE_NETWORK, "127.31.0.0/16")):
        world.sim.cloud.add_network(dataclasses.replace(world.sim.cloud.networks[network], subnet=subnet))
    group = world.make_group(5, template=world.make_template(networks=[DEFAULT_NETWORK, PRIVATE_NETWORK]))
    world.settle()
    before = world.ids(group)
    addresses = {machine.id: [nic.ip for nic in machine.nics] for machine in world.machines(group)}
    played = {before[0]: serve(address=addresses[before[0]][1])}
    port = played[before[0]].port
    played |= {machine: serve(port, addresses[machine][1]) for machine in before[1:]}
    place.change(group, check(port=port, network=PRIVATE_NETWORK))
    with probing(place):
        assert place.turns(group, *[(HEALTHY, None)] * 5)
        played[before[0]].answer = b"HTTP/1.1 503 Busy\r\n\r\n"
        assert wait_for(lambda: UNHEALTHY in dict(place.health(group)), seconds=PATIENCE)
        world.worker.run(world.account.id)
        assert before[0] not in world.ids(group, "running"), "the group was due"
        world.settle()
    assert len(world.ids(group, "running")) == 5
    assert set(before) - set(world.ids(group)) == {before[0]}


def test_a_health_check_that_ends_leaves_nothing_behind(place: Place, serve: Callable[..., Machine]) -> None:
    machine = serve()
    group = place.group(check(port=machine.port), machine, probe=UNHEALTHY)
    place.world.set_up(group, health_check=None)
    assert place.health(group) == [(None, None)]


def test_an_installation_without_health_checks_claims_nothing(place: Place, serve: Callable[..., Machine]) -> None:
    machine = serve()
    group = place.group(None, machine)
    with probing(place):
        place.change(group, check(port=machine.port))
        assert place.turns(group, (HEALTHY, None))
        place.change(group, None)
        assert wait_for(lambda: place.world.sql("SELECT 1 FROM tsg_work WHERE kind = 'prober'") == [], seconds=PATIENCE)
    before = len(machine.requests)
    other = place.group(None, machine)
    assert place.health(other) == [(None, None)]
    assert len(machine.requests) == before


def test_all_group_ids_are_in_one_range_each() -> None:
    for _ in range(100):
        group_id = str(uuid.uuid4())
        (first,) = [one for one in RANGES if one <= group_id <= one[0] + "f" * 7 + "-ffff-ffff-ffff-ffffffffffff"]
        assert probes.range_of(group_id) == first
