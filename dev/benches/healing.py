"""How soon a dead machine is replaced, and a change said to be done: with the changefeed, without it, and with one that misbehaves."""

import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dev.benches.report import Figure
from dev.benches.scaling import Tenant, running_stack, time_of
from dev.percentile import percentile
from dev.processes import wait_for, wait_or_fail
from dev.sim.cloudapi.knobs import Knobs
from dev.stack import Stack

#: Seconds between checks: the least that a group may have, and what is usual.
INTERVAL, USUAL_INTERVAL = 10, 300
ACCOUNTS, GROUPS, INSTANCES = 4, 10, 2
#: Seconds within which a feed should bring about a replacement.
SOON = 3.0
ON = {"TSG_FEED": "auto", "TSG_HEALTH_CHECK_INTERVAL": str(INTERVAL)}
#: The knobs that the cases below turn, as they are without them.
USUAL = {name: value for name, value in Knobs().to_json().items() if name.startswith("feed_")}
CASES: Mapping[str, Mapping[str, Any]] = {
    "up": {},
    "lying": {"feed_lie": True},
    "5 s late": {"feed_late_seconds": 5.0},
    "doubled": {"feed_double": True},
    "shuffled": {"feed_shuffle": True},
    "mute from the connect on": {"feed_mute": True},
}


def heal(*, quick: bool) -> Iterator[Figure]:
    """Seconds from a machine's death until CloudAPI is asked for another: p95. The limit is 3 s with a feed, the interval without."""
    kills = 20 if quick else ACCOUNTS * GROUPS
    with running_stack({**ON, "TSG_FEED": "off"}) as stack:
        yield _healed(_Fleet(stack), "no tsg-feed", kills, float(INTERVAL))
    with running_stack(ON, feeds=1) as stack:
        fleet = _Fleet(stack)
        for name, knobs in CASES.items():
            fleet.wait_for_trust()
            stack.knobs(**USUAL | knobs)
            if knobs.get("feed_mute"):
                stack.cloud("POST", "/changefeed/cut")
                fleet.wait_for("watched")
                fleet.wait_for_connections()
            late = knobs.get("feed_late_seconds", 0.0)
            yield _healed(fleet, f"feed {name}", kills, float(INTERVAL) if knobs.get("feed_mute") else SOON + late)
            stack.knobs(**USUAL)
            fleet.wait_for_whole()
        fleet.wait_for_trust()
        stack.knobs(feed_mute=True)
        yield _healed(fleet, "feed turns mute while it is trusted", kills, float(INTERVAL))
        stack.knobs(**USUAL)
        fleet.wait_for_whole()
        stack.processes["feed-1"].kill()
        yield _healed(fleet, "tsg-feed was killed just now", kills, float(INTERVAL))


class _Fleet:
    """Some accounts with groups at rest."""

    def __init__(self, stack: Stack, accounts: int = ACCOUNTS, groups: int = GROUPS, instances: int = INSTANCES) -> None:
        self.stack = stack
        self._instances = instances
        stack.knobs(provision_seconds=1.0)
        self.tenants = [Tenant(stack) for _ in range(accounts)]
        self.groups = [tenant.make_group(instances) for tenant in self.tenants for _ in range(groups)]
        self.wait_for_whole()

    def wait_for_whole(self) -> None:
        def is_whole() -> bool:
            live = [machine for machine in self.stack.cloud("GET", "/machines?live=true") if machine["state"] == "running"]
            settled = "SELECT count(*) FROM tsg_group_state WHERE reason = 'Settled' AND check_at > now()"
            return len(live) == len(self.groups) * self._instances and self.stack.sql(settled)[0][0] == len(self.groups)

        wait_or_fail("the groups settle", is_whole, seconds=180)

    def wait_for(self, state: str) -> None:
        query = "SELECT count(*) FROM tsg_feeds WHERE state = %s"
        wait_or_fail(f"the feeds are {state}", lambda: self.stack.sql(query, state)[0][0] == len(self.tenants), seconds=60)

    def wait_for_connections(self) -> None:
        wait_or_fail("the feeds connect", lambda: self.stack.cloud("GET", "/changefeed")["connections"] == len(self.tenants), seconds=60)

    def wait_for_trust(self) -> None:
        """Have each account launch something, if it must prove itself."""
        trusted = "SELECT count(*) FROM tsg_feeds WHERE state = 'trusted'"
        if not wait_for(lambda: self.stack.sql(trusted)[0][0] == len(self.tenants), seconds=5, longest_pause=0.25):
            # Another connection: a mute one is told of what follows, too, and this one is not doubted.
            self.stack.processes["feed-1"].stop()
            self.stack.start_process("feed-1", "tsg-feed")
            self.wait_for_connections()
            for tenant in self.tenants:
                self.stack.cloud("POST", "/machines/kill", {"account": tenant.name, "count": 1})
            self.wait_for("trusted")
            self.wait_for_whole()

    def kill_and_wait(self, kills: int) -> list[float]:
        """One machine each of so many groups dies, at any moment; seconds until CloudAPI was asked for each replacement."""
        died = {}
        for group in random.sample(self.groups, kills):
            victim = next(machine for machine in self.stack.machines_of(group) if machine["state"] == "running")
            died[group] = time.time()
            self.stack.cloud("POST", f"/machines/{victim['id']}/kill")
            time.sleep(random.uniform(0, 2 * 1.5 * INTERVAL / kills))
        asked: dict[str, float] = {}

        def all_asked() -> bool:
            for machine in self.stack.cloud("GET", "/machines"):
                group, made = machine["tags"].get("tsg.group"), time_of(machine, "provisioning")
                if group in died and made > died[group]:
                    asked.setdefault(group, made - died[group])
            return len(asked) == kills

        wait_or_fail("all that died are replaced", all_asked, seconds=180, longest_pause=0.5)
        return list(asked.values())


def _healed(fleet: _Fleet, what: str, kills: int, limit: float) -> Figure:
    before = fleet.stack.cloud("GET", "/counters")["requests"]
    took = fleet.kill_and_wait(kills)
    calls = fleet.stack.cloud("GET", "/counters")["requests"] - before
    fleet.wait_for_whole()
    more = {"p50 s": statistics.median(took), "worst s": max(took), "CloudAPI calls": float(calls)}
    return Figure(f"{what}: {kills} of {len(fleet.groups) * INSTANCES} machines die", percentile(took, 0.95), "s", limit, more)


def quiet(*, quick: bool) -> Iterator[Figure]:
    """CloudAPI's lists in an hour of settled groups, at the usual interval: measured at the shortest, and scaled."""
    groups, tenants, seconds = (100, 5, 45) if quick else (1_000, 20, 90)
    without = None
    for feeds, patience in ((0, "1"), (1, "1"), (1, "4")):
        with running_stack({**ON, "TSG_FEED_INTERVAL": patience}, feeds=feeds) as stack:
            stack.knobs(provision_seconds=1.0)
            fleet = _Fleet(stack, tenants, groups // tenants, 1)
            if feeds:
                fleet.wait_for("trusted")
            # The checks that were written before it was trusted.
            time.sleep(2 * INTERVAL)
            before = stack.cloud("GET", "/counters")["lists"]
            time.sleep(seconds)
            calls = (stack.cloud("GET", "/counters")["lists"] - before) * 3600 / seconds * INTERVAL / USUAL_INTERVAL
        what = f"with a trusted feed, TSG_FEED_INTERVAL={patience}" if feeds else "no tsg-feed"
        yield Figure(f"{groups:,} settled groups in {tenants} accounts, {what}", calls, "lists an hour", without)
        without = without or calls


def settle(*, quick: bool) -> Iterator[Figure]:
    """Seconds from the last machine's running to the answer of `status?wait`, p95. The limit is 0.5 s after VMAPI can have noticed."""
    rounds = 8 if quick else 25
    for feeds, poll in ((0, 2.0), (1, 2.0), (1, 0.05)):
        with running_stack({**ON, "TSG_FEED": "auto"}, feeds=feeds) as stack:
            stack.knobs(provision_seconds=20.0 if not quick else 6.0, feed_poll_seconds=poll)
            tenants = [Tenant(stack) for _ in range(rounds)]
            if feeds:
                for tenant in tenants:
                    tenant.make_group(0)
                watched = "SELECT count(*) FROM tsg_feeds WHERE state IN ('watched', 'trusted')"
                wait_or_fail("the accounts are watched", lambda: stack.sql(watched)[0][0] == rounds, seconds=60)  # noqa: B023
            late = list(_told_late(stack, tenants))
            what = f"told by a feed that takes changes up every {poll:g} s" if feeds else "no tsg-feed"
            yield Figure(f"POST to settled, {what}", percentile(late, 0.95), "s after", 0.5 + poll, {"p50 s": statistics.median(late)})


def _told_late(stack: Stack, tenants: Sequence[Tenant]) -> Iterator[float]:
    def one(tenant: Tenant) -> float:
        time.sleep(random.uniform(0, 10))
        group = tenant.make_group(1)
        told = tenant.wait_for_settled(group, seconds=120)
        (machine,) = stack.machines_of(group)
        return told - time_of(machine, "running")

    with ThreadPoolExecutor(len(tenants)) as pool:
        yield from pool.map(one, tenants)
