"""What is broken, how, and for how long. Two lanes run beside each other: the service's own parts, and the cloud it works on.

Each draws from its own dice alone, so that the same seed breaks the same things in the same order.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psycopg2
import requests

from dev.processes import Child
from dev.sim.cloudapi.knobs import Knobs
from dev.soaking.users import GROUPS
from dev.soaking.world import World

#: Knobs of CloudAPI at rest.
CALM = Knobs(provision_seconds=1.0, provision_jitter=1.0, latency_seconds=0.02).to_json()

Fault = Callable[[World, random.Random], None]


class Lane:
    """One fault after the other."""

    def __init__(self, world: World, faults: tuple[Fault, ...], dice: random.Random, *, pause: tuple[float, float] = (0.5, 3.0)) -> None:
        """`pause`: seconds before each, from the least to the most."""
        self._world = world
        self._faults = faults
        self._dice = dice
        self._pause = pause

    def run(self, count: int) -> None:
        lied = False
        for _ in range(count):
            pause = self._dice.uniform(*self._pause)
            fault = self._dice.choice(self._faults)
            if fault in LIES and lied:
                continue  # two lies in a row would hide a machine for longer than the grace of a launch
            lied = lied or fault in LIES
            time.sleep(pause)
            self._break(fault)

    def run_until(self, end: float) -> None:
        """Begin no fault after this moment, in seconds since 1970."""
        while (pause := self._dice.uniform(*self._pause)) + time.time() < end:
            time.sleep(pause)
            self._break(self._dice.choice(self._faults))

    def _break(self, fault: Fault) -> None:
        name, findings = fault.__name__, self._world.findings
        findings.faults[name] += 1
        findings.say(f"fault: {name}")
        self._world.disturbed()
        fault(self._world, self._dice)
        self._world.disturbed()
        findings.say(f"fault over: {name}")


# Our own parts


def _workers(world: World) -> list[str]:
    return sorted(name for name in world.stack.processes if name.startswith("worker"))


def _killed(world: World, names: Sequence[str], seconds: float) -> None:
    """Kill programs, and start them again after so long."""
    for name in names:
        world.stack.processes[name].kill()
    time.sleep(seconds)
    for name in names:
        world.stack.start_again(name)


def worker_killed(world: World, dice: random.Random) -> None:
    _killed(world, [dice.choice(_workers(world))], dice.uniform(0, 4))


def all_workers_killed(world: World, dice: random.Random) -> None:
    _killed(world, _workers(world), dice.uniform(0, 2))


def worker_frozen_past_its_lease(world: World, dice: random.Random) -> None:
    child, pause = world.stack.processes[dice.choice(_workers(world))], dice.uniform(11, 16)
    child.send(signal.SIGSTOP)
    time.sleep(pause)
    child.send(signal.SIGCONT)


def api_killed(world: World, dice: random.Random) -> None:
    pause = dice.uniform(0, 1)
    _killed(world, [dice.choice(sorted(name for name in world.stack.processes if name.startswith("api")))], pause)


def clock_killed(world: World, dice: random.Random) -> None:
    _killed(world, ["clock"], dice.uniform(0, 5))


def feed_killed(world: World, dice: random.Random) -> None:
    _killed(world, [dice.choice(["feed-1", "feed-2"])], dice.uniform(0, 15))


def redis_away(world: World, dice: random.Random) -> None:
    pause = dice.uniform(1, 5)
    world.stack.valkey.stop()
    time.sleep(pause)
    world.stack.valkey.start()


def redis_crashed(world: World, _dice: random.Random) -> None:
    world.stack.valkey.kill()
    world.stack.valkey.start()


def redis_flushed(world: World, _dice: random.Random) -> None:
    world.stack.valkey.flush()


def database_restarted(world: World, _dice: random.Random) -> None:
    world.goes_away("database")
    world.stack.postgres.restart()
    world.is_back("database")


def database_crashed(world: World, dice: random.Random) -> None:
    pause = dice.uniform(0, 4)
    world.goes_away("database")
    world.stack.postgres.kill()
    time.sleep(pause)
    world.stack.postgres.start()
    world.is_back("database")


def database_connections_cut(world: World, dice: random.Random) -> None:
    world.goes_away("database")
    for pause in [dice.uniform(0, 1) for _ in range(4)]:
        with suppress(psycopg2.Error):
            world.stack.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tsg' AND pid <> pg_backend_pid()")
        time.sleep(pause)
    world.is_back("database")


def nomad_killed(world: World, dice: random.Random) -> None:
    _killed(world, ["nomad"], dice.uniform(0, 5))


def nomad_without_a_leader(world: World, dice: random.Random) -> None:
    pause = dice.uniform(2, 8)
    world.nomad("PATCH", "/--sim/knobs", {"no_leader": True})
    time.sleep(pause)
    world.nomad("PATCH", "/--sim/knobs", {"no_leader": False})


def scale_killed(world: World, dice: random.Random) -> None:
    """Whatever run holds a lease just then."""
    children = {child.pid for child in world.stack.processes.values()}
    for pause in [dice.uniform(0, 1) for _ in range(6)]:
        with suppress(psycopg2.Error):
            for (owner,) in world.stack.sql("SELECT owner FROM tsg_work WHERE kind = 'account' AND owner IS NOT NULL"):
                pid = int(owner.rpartition(":")[2])
                if pid not in children and _is_scale(pid):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        time.sleep(pause)


def _is_scale(pid: int) -> bool:
    with suppress(OSError):
        return b"tsg-scale" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


# The cloud


def turned(world: World, seconds: float, **knobs: object) -> None:
    """Turn knobs, for a while."""
    world.stack.knobs(**knobs)
    time.sleep(seconds)
    world.stack.knobs(**{name: CALM[name] for name in knobs})


def _cloud_turned(world: World, seconds: float, **knobs: object) -> None:
    """The same, with knobs that let CloudAPI fail."""
    world.goes_away("cloudapi")
    turned(world, seconds, **knobs)
    world.is_back("cloudapi")


def cloud_errors(world: World, dice: random.Random) -> None:
    status, share = dice.choice([500, 503, 504, 429]), dice.choice([0.2, 0.5, 1.0])
    _cloud_turned(world, dice.uniform(2, 8), error_status=status, error_share=share)


def cloud_down(world: World, dice: random.Random) -> None:
    _cloud_turned(world, dice.uniform(2, 8), down=True)


def cloud_read_only(world: World, dice: random.Random) -> None:
    _cloud_turned(world, dice.uniform(2, 8), read_only=True)


def cloud_slow(world: World, dice: random.Random) -> None:
    _cloud_turned(world, dice.uniform(4, 10), latency_seconds=dice.uniform(0.5, 2.0))


def cloud_hangs(world: World, dice: random.Random) -> None:
    """The deed is done; its answer comes after the client's patience."""
    _cloud_turned(world, dice.uniform(4, 8), hang_seconds=7.0)


def cloud_speaks_nonsense(world: World, dice: random.Random) -> None:
    _cloud_turned(world, dice.uniform(2, 6), bad_json=True)


def answers_lost(world: World, dice: random.Random) -> None:
    status, endpoints = dice.choice([None, None, 500, 504]), dice.choice([["CreateMachine"], ["CreateMachine", "DeleteMachine"]])
    share = dice.choice([0.3, 1.0])
    _cloud_turned(world, dice.uniform(3, 8), lost_answer_share=share, lost_answer_status=status, lost_answer_endpoints=endpoints)


def lists_empty(world: World, dice: random.Random) -> None:
    _cloud_turned(world, dice.uniform(3, 12), empty_lists=True)


def lists_cut_short(world: World, dice: random.Random) -> None:
    _cloud_turned(world, dice.uniform(3, 12), truncate_lists=dice.randint(1, 20))


def lists_late(world: World, dice: random.Random) -> None:
    _cloud_turned(world, dice.uniform(3, 12), stale_list_seconds=dice.uniform(1, 6))


def feed_mute(world: World, dice: random.Random) -> None:
    """New connections are told nothing; now and then the old ones, too."""
    pause, is_cut = dice.uniform(5, 40), dice.random() < 0.5
    world.stack.knobs(feed_mute=True)
    if is_cut:
        world.stack.cloud("POST", "/changefeed/cut")
    time.sleep(pause)
    world.stack.knobs(feed_mute=False)


def feed_untruthful(world: World, dice: random.Random) -> None:
    """Messages are false, late, doubled, out of order, or missing."""
    knobs = {"feed_lie": True, "feed_late_seconds": 5.0, "feed_shuffle": True, "feed_double": True, "feed_lose_share": 0.5}
    chosen = dice.sample(sorted(knobs), dice.randint(1, 3))
    turned(world, dice.uniform(3, 12), **{name: knobs[name] for name in chosen})


def feed_closed(world: World, dice: random.Random) -> None:
    """VMAPI or CloudAPI is restarted, and perhaps comes back without a changefeed."""
    how, pause, is_offered = dice.choice(["restart", "cut"]), dice.uniform(0, 5), dice.random() < 0.7
    world.stack.knobs(feed_offered=is_offered)
    world.stack.cloud("POST", f"/changefeed/{how}", {"seconds": pause} if how == "restart" else None)
    time.sleep(pause)
    world.stack.knobs(feed_offered=True)


def datacenter_full(world: World, dice: random.Random) -> None:
    _cloud_turned(world, dice.uniform(3, 8), capacity=dice.randint(0, 20))


def creates_refused(world: World, dice: random.Random) -> None:
    world.stack.knobs(refuse_next_creates=dice.randint(1, 10))


def launches_fail(world: World, dice: random.Random) -> None:
    world.stack.knobs(fail_next_creates=dice.randint(1, 6))


def launches_stick(world: World, dice: random.Random) -> None:
    world.stack.knobs(stick_next_creates=dice.randint(1, 3))


def machines_harmed(world: World, dice: random.Random) -> None:
    """Some machines of a group are killed, stopped, broken, or fail, behind the service's back."""
    account, name = dice.choice(sorted(world.accounts)), dice.choice(GROUPS)
    deed, most = dice.choice(["kill", "kill", "stop", "fail", "break"]), dice.randint(1, 6)
    group = world.accounts[account].groups.get(name)
    if group is None:
        return
    running = [row["id"] for row in world.machines(live=True) if row["tags"].get("tsg.group") == group.id and row["state"] == "running"]
    for machine_id in running[:most]:
        with suppress(requests.HTTPError):
            world.stack.cloud("POST", f"/machines/{machine_id}/{deed}")
    world.findings.say(f"{deed}: {len(running[:most])} machines of {account}'s {name}")


LIES = (lists_empty, lists_cut_short, lists_late)

OURS = (
    worker_killed,
    worker_killed,
    all_workers_killed,
    worker_frozen_past_its_lease,
    api_killed,
    clock_killed,
    feed_killed,
    redis_away,
    redis_crashed,
    redis_flushed,
    database_restarted,
    database_crashed,
    database_connections_cut,
)
NOMADS = (nomad_killed, nomad_without_a_leader, scale_killed, scale_killed)
CLOUDS = (
    cloud_errors,
    cloud_errors,
    cloud_down,
    cloud_read_only,
    cloud_slow,
    cloud_hangs,
    cloud_speaks_nonsense,
    answers_lost,
    answers_lost,
    *LIES,
    datacenter_full,
    creates_refused,
    launches_fail,
    launches_stick,
    feed_mute,
    feed_untruthful,
    feed_closed,
    *[machines_harmed] * 4,
)


def ended(children: dict[str, Child]) -> list[str]:
    """Children that ended though nobody ended them."""
    return [f"{name} ended by itself with status {child.status}" for name, child in children.items() if child.status is not None]
