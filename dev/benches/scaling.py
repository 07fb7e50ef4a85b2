"""How long instances take to come, and how soon a wake-up is answered: on a whole stack, in real time."""

import itertools
import random
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dev.benches.report import Figure
from dev.percentile import percentile
from dev.processes import wait_or_fail
from dev.services import scratch
from dev.stack import Stack
from shared.clients.queue import CONVERGE, make_broker, send

#: Requests a second: CloudAPI's throttle, which the service keeps to by itself.
RATE = 10.0
#: Seconds that the simulator takes for a deletion.
DELETING = 0.5
NO_BUDGET = {"TSG_CLOUDAPI_RATE": "100000", "TSG_CLOUDAPI_BURST": "100000"}
#: Instances of the one large group.
LARGE = 1000

_names = itertools.count(1)


class Tenant:
    """An account of its own in a stack, with a budget of its own."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.name = f"tenant-{next(_names)}"
        stack.add_account(self.name)
        self.tsg = stack.client(self.name)
        # The first request of an account also makes its management key.
        self.template = self.tsg.make_template()

    def make_group(self, capacity: int) -> str:
        body = {"group_name": f"group-{next(_names)}", "template_id": self.template, "capacity": capacity}
        return str(self.tsg.ok("POST", "/groups", body, status=201)["id"])

    def resize(self, group: str, capacity: int) -> None:
        shown = self.tsg.ok("GET", f"/groups/{group}")
        body = {"group_name": shown["group_name"], "template_id": self.template, "capacity": capacity}
        self.tsg.ok("PUT", f"/groups/{group}", body)

    def wait_for_settled(self, group: str, *, seconds: float) -> float:
        """When the answer came that says so."""
        until = time.time() + seconds
        while not self.tsg.ok("GET", f"/groups/{group}/status?wait=45")["settled"]:
            if time.time() > until:
                raise TimeoutError(f"the group is not settled after {seconds:.0f} s")
        return time.time()

    def machines(self) -> list[dict[str, Any]]:
        return [machine for machine in self.stack.cloud("GET", "/machines?live=true") if machine["account"] == self.name]

    def wait_for_running(self, count: int, *, seconds: float) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def all_run() -> bool:
            found[:] = [machine for machine in self.machines() if machine["state"] == "running" and not machine["destroying"]]
            return len(found) == count

        wait_or_fail(f"{count} machines run", all_run, seconds=seconds)
        return found


@contextmanager
def running_stack(settings: Mapping[str, str], *, workers: int = 2, feeds: int = 0) -> Iterator[Stack]:
    with scratch() as directory, Stack(directory, workers=workers, feeds=feeds, settings={"TSG_DRAIN_SECONDS": "0", **settings}) as stack:
        yield stack


def time_of(machine: Mapping[str, Any], event: str) -> float:
    """When it was first in this state, by the clock of the cloud, which is ours."""
    return float(next(moment for moment, what in machine["life"] if what == event))


def capacity(*, quick: bool) -> Iterator[Figure]:
    """Seconds from POST to the last of N running."""
    budgeted = [(1, 1, 1.0), (10, 1, 1.0)] if quick else [(1, 1, 1.0), (10, 1, 5.0), (100, 1, 1.0), (100, 1, 5.0), (100, 1, 40.0)]
    unlimited = [(100, 1, 1.0)] if quick else [(10, 1, 1.0), (100, 1, 5.0), (1000, 10, 5.0)]
    with running_stack({}) as stack:
        _await_workers(stack)
        for case in budgeted:
            yield _grow(stack, *case, budget=True)
    with running_stack(NO_BUDGET) as stack:
        stack.knobs(throttle=False)
        _await_workers(stack)
        for case in unlimited:
            yield _grow(stack, *case, budget=False)
    if not quick:
        for feeds in (0, 1):
            with running_stack({"TSG_FEED": "auto", "TSG_MAX_CAPACITY": str(LARGE)}, feeds=feeds) as stack:
                yield from _in_one_group(stack, LARGE, 5.0, ", with a changefeed" if feeds else "")


def _await_workers(stack: Stack) -> None:
    """A stack has started before its workers have."""
    tenant = Tenant(stack)
    tenant.make_group(1)
    tenant.wait_for_running(1, seconds=60)


def _grow(stack: Stack, count: int, groups: int, provision: float, *, budget: bool) -> Figure:
    stack.knobs(provision_seconds=provision)
    tenant = Tenant(stack)
    before = stack.cloud("GET", "/counters")["requests"]
    began = time.time()
    for _ in range(groups):
        tenant.make_group(count // groups)
    machines = tenant.wait_for_running(count, seconds=provision + count / RATE + 60)
    took = max(time_of(machine, "running") for machine in machines) - began
    calls = stack.cloud("GET", "/counters")["requests"] - before
    limit = provision + (count / RATE if budget else 0.0)
    allowed = "10 requests/s" if budget else "no budget"
    what = f"0 -> {count:,}" + (f" over {groups} groups" if groups > 1 else "") + f", provisioning {provision:g} s, {allowed}"
    return Figure(what, took, "s", limit, {"CloudAPI calls": float(calls)})


def _in_one_group(stack: Stack, count: int, provision: float, how: str) -> Iterator[Figure]:
    """One instance becomes `count`, and those become one again; and how late `status?wait` says that the last has come, or gone."""
    stack.knobs(provision_seconds=provision)
    tenant = Tenant(stack)
    group = tenant.make_group(1)
    tenant.wait_for_settled(group, seconds=60)
    for before, after, alone, event in ((1, count, provision, "running"), (count, 1, DELETING, "deleted")):
        began, calls = time.time(), stack.cloud("GET", "/counters")["requests"]
        tenant.resize(group, after)
        told = tenant.wait_for_settled(group, seconds=120 + 2 * count / RATE)
        last = max(time_of(machine, event) for machine in stack.cloud("GET", "/machines") if machine["state"] == event)
        calls = stack.cloud("GET", "/counters")["requests"] - calls
        what = f"{before:,} -> {after:,} in one group{how}"
        more = {"CloudAPI calls": float(calls)}
        yield Figure(f"{what}, 10 requests/s", last - began, "s", alone + abs(after - before) / RATE, more)
        yield Figure(f"{what}: the answer that says so, after the last", told - last, "s", 1.0)


def queue(*, quick: bool) -> Iterator[Figure]:
    """Milliseconds from a wake-up to the end of a turn that finds nothing to do: a little more than to its beginning."""
    wake_ups = 40 if quick else 150
    for workers in (1, 4):
        with running_stack({}, workers=workers) as stack:
            tenant = Tenant(stack)
            ((account_id,),) = stack.sql("SELECT id::text FROM tsg_accounts WHERE account_name = %s", tenant.name)
            broker = make_broker(stack.valkey.url)
            try:
                late = [_wake(stack, broker, account_id) for _ in range(wake_ups + 3)][3:]
            finally:
                broker.close()
        what = f"wake-up to converge, p99, {workers} worker{'s' * (workers > 1)}"
        yield Figure(what, percentile(late, 0.99), "ms", 100.0, {"p50 ms": statistics.median(late)})


def _wake(stack: Stack, broker: Any, account_id: str) -> float:
    time.sleep(random.uniform(0.02, 0.12))  # at any moment of a worker's pause
    sent_at = time.time()
    send(broker, CONVERGE, account_id)
    answered: list[float] = []

    def is_answered() -> bool:
        query = (
            "SELECT extract(epoch FROM budget_at)::float8 FROM tsg_accounts a JOIN tsg_work w ON w.kind = 'account' AND w.subject = a.id"
            " WHERE a.id = %s AND w.until IS NULL"
        )
        answered[:] = [at for (at,) in stack.sql(query, account_id) if at is not None and at > sent_at]
        return bool(answered)

    wait_or_fail("a worker answers the wake-up", is_answered, seconds=30, longest_pause=0.05)
    return (answered[0] - sent_at) * 1000
