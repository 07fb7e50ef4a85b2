"""The whole service as real processes, for tests that break it."""

import itertools
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from dev.client import Tsg
from dev.faults import killed
from dev.processes import Child, wait_for
from dev.services import scratch
from dev.stack import TRITON_UUID, Stack

#: Seconds that anything may take to come right.
PATIENCE = 90

#: A real agent to run the Nomad tests against: `dev/test --nomad ADDR`.
REAL_NOMAD = os.environ.get("TSG_TEST_NOMAD_ADDR", "")

#: Seconds between looks while waiting: each look costs the simulator and the database as much as a worker's does.
LOOK = 0.25

SETTINGS = {
    # What is written is searched for secrets.
    "TSG_LOG_LEVEL": "DEBUG",
    # What a killed worker was about to ask for is asked for again after this: short, since the simulator answers at once.
    "TSG_LAUNCH_GRACE": "5",
    "TSG_LOG_FORMAT": "json",
}

#: The stacks that tests share, by what their marker `stack` says: who scales, and settings besides. Each costs as much as many tests.
STACKS: dict[str, tuple[str, dict[str, str]]] = {
    "workers": ("worker", {}),
    # So long does a dead holder's lease stand in the way of the next.
    "often killed": ("worker", {"TSG_LEASE_SECONDS": "5", "TSG_NOTIFY_HTTP": "true", "TSG_NOTIFY_PRIVATE": "true"}),
    "nomad": ("nomad", {}),
}


class Service:
    """A stack, one of its accounts, and sentences about what is to be seen."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.tsg = stack.client()
        self._run = uuid.uuid4().hex[:8]
        self._names = itertools.count(1)

    def make_template(self, **fields: Any) -> str:
        return self.tsg.make_template(f"template-{self._run}-{next(self._names)}", **fields)

    def make_group(self, capacity: int, **fields: Any) -> dict[str, Any]:
        template = fields.pop("template_id", None) or self.make_template()
        body = {"group_name": f"group-{self._run}-{next(self._names)}", "template_id": template, "capacity": capacity, **fields}
        return self.tsg.ok("POST", "/groups", body, status=201)

    def resize(self, group: dict[str, Any], capacity: int) -> None:
        body = {"group_name": group["group_name"], "template_id": group["template_id"], "capacity": capacity}
        self.tsg.ok("PUT", f"/groups/{group['id']}", body)

    def machines(self, group: dict[str, Any]) -> list[dict[str, Any]]:
        """The group's machines in the cloud itself, whatever CloudAPI would say of them; not those that are deleted."""
        return self.stack.machines_of(group["id"])

    def running(self, group: dict[str, Any]) -> int:
        return sum(machine["state"] == "running" for machine in self.machines(group))

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs of this stack's account that Nomad has, runs included."""
        stubs = requests.get(f"{self.stack.nomad_url}/v1/jobs", timeout=30).json()
        return [stub for stub in stubs if TRITON_UUID in stub["ID"]]

    def runs(self) -> list[dict[str, Any]]:
        """The runs among them."""
        return [stub for stub in self.jobs() if stub.get("ParentID")]

    def activities(self, group: dict[str, Any]) -> list[tuple[str, str, str]]:
        """Kind, status and description of all that was done for a group, in order."""
        return self.stack.sql("SELECT kind, status, description FROM tsg_activities WHERE group_id = %s ORDER BY at", group["id"])

    def counters(self) -> dict[str, Any]:
        return self.stack.cloud("GET", "/counters")

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        assert wait_for(condition, seconds=seconds, longest_pause=LOOK), f"not in {seconds} s: {what}"

    def settles(self, group: dict[str, Any], capacity: int, seconds: float = PATIENCE) -> None:
        """So many machines run, none else is there, and the service has seen it."""

        def all_run() -> bool:
            states = [machine["state"] for machine in self.machines(group)]
            return states == ["running"] * capacity and self.is_settled(group)

        self.wait(f"{capacity} machines run, and no other is there", all_run, seconds)

    def is_settled(self, group: dict[str, Any]) -> bool:
        """Has a worker seen the newest state of the group, and left it until its next check?"""
        rows = self.stack.sql(
            "SELECT observed_generation = generation AND (check_at IS NULL OR check_at > now() + interval '5 seconds')"
            " FROM tsg_group_state s WHERE group_id = %s AND NOT EXISTS (SELECT 1 FROM tsg_instances i WHERE i.group_id = s.group_id"
            " AND i.gone_at IS NULL AND i.state <> 'running')",
            group["id"],
        )
        return bool(rows and rows[0][0])

    def is_emptied(self, group: dict[str, Any]) -> bool:
        rows = self.stack.sql("SELECT emptied_at IS NOT NULL FROM tsg_group_state WHERE group_id = %s", group["id"])
        return bool(rows[0][0])

    def together(self, count: int, request: Callable[[Tsg, int], int]) -> list[int]:
        """The same request so many times at once; the statuses."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda number: request(self.stack.client(), number), range(count)))


class Owner:
    """An account of its own, with one group."""

    def __init__(self, service: Service, capacity: int, **group: Any) -> None:
        self.service = service
        self.name = f"owner-{uuid.uuid4().hex[:8]}"
        service.stack.add_account(self.name)
        self.tsg = service.stack.client(self.name)
        body = {"group_name": "g", "template_id": self.template("first"), "capacity": capacity, **group}
        self.group = self.tsg.ok("POST", "/groups", body, status=201)

    def template(self, name: str, **fields: Any) -> str:
        return self.tsg.make_template(name, **fields)


@contextmanager
def workers_asleep(service: Service) -> Iterator[None]:
    """Wake-ups are sent, and none of the stack's workers answers."""
    workers = [child for name, child in service.stack.processes.items() if name.startswith("worker")]
    for child in workers:
        child.send(signal.SIGSTOP)
    try:
        yield
    finally:
        for child in workers:
            child.send(signal.SIGCONT)


def doomed(service: Service, fault: str, program: str, *arguments: str) -> Child:
    """A program of the service that is killed at the fault."""
    log = service.stack.directory / "log" / f"doomed-{uuid.uuid4().hex[:8]}.log"
    environment = {**os.environ, **service.stack.environment, **killed(fault)}
    return Child([Path(sys.executable).parent / program, *arguments], log=log, env=environment)


def dying(service: Service, programs: dict[str, Child]) -> None:
    """Each has come to the step at which it is killed."""
    for fault, program in programs.items():
        service.wait(f"killed {fault}", lambda program=program: program.status is not None)
    assert {fault: program.status for fault, program in programs.items()} == dict.fromkeys(programs, -signal.SIGKILL)


def stack_of(item: pytest.Item) -> str:
    marker = item.get_closest_marker("stack")
    assert marker, f"{item.nodeid} does not say which stack it shares"
    return str(marker.args[0])


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, those that share a stack run in one."""
    for item in items:
        if "calm" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(stack_of(item)))


@pytest.fixture(scope="package")
def stacks(cluster: Path) -> Iterator[Callable[[str], Stack]]:
    """The stack of a name, started unless it is the one that is up; one at a time."""
    with ExitStack() as up:
        found: dict[str, Stack] = {}

        def named(name: str) -> Stack:
            if name not in found:
                found.clear()
                up.close()
                scaler, besides = STACKS[name]
                found[name] = up.enter_context(started(scaler, {**SETTINGS, **besides}, cluster))
            return found[name]

        yield named


@pytest.fixture
def calm(request: pytest.FixtureRequest, stacks: Callable[[str], Stack]) -> Iterator[Service]:
    """A stack that others have used and will use: what a test broke is mended after it, and its groups go."""
    stack = stacks(stack_of(request.node))
    service = Service(stack)
    stack.cloud("POST", "/counters/reset")
    knobs = stack.cloud("GET", "/knobs")
    yield service
    stack.restart_the_dead()
    service.stack.knobs(**knobs)
    for group in service.tsg.ok("GET", "/groups"):
        service.tsg.ok("DELETE", f"/groups/{group['id']}", status=204)
    service.wait("all groups are gone", lambda: not service.stack.sql("SELECT 1 FROM tsg_group_state WHERE emptied_at IS NULL"))


@contextmanager
def started(scaler: str, settings: Mapping[str, str], cluster: Path, *, feeds: int = 0) -> Iterator[Stack]:
    nomad = {"NOMAD_ADDR": REAL_NOMAD} if scaler == "nomad" and REAL_NOMAD else {}
    with (
        scratch() as directory,
        Stack(
            directory,
            provision_seconds=1.0,
            durable=False,
            scaler=scaler,
            feeds=feeds,
            real_nomad=False,
            settings={**settings, **nomad},
            copy_of=cluster,
        ) as stack,
    ):
        yield stack
