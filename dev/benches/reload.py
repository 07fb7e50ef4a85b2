"""A reload of a whole group: how long it takes, and what was there at each moment of it, as the cloud itself saw it."""

import math
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

from dev.benches.report import Figure
from dev.benches.scaling import Tenant, running_stack
from dev.stack import Stack

#: Seconds between two looks at the cloud, and that an instance takes to boot.
LOOK_EVERY, BOOT = 0.1, 5.0
#: Seconds after which a reload is given up, as a multiple of what it has to take.
PATIENCE = 10


class Case(NamedTuple):
    members: int
    surge: str
    unavailable: str


CASES = [Case(50, "20%", "0%"), Case(50, "0%", "20%"), Case(50, "10%", "10%")]
QUICK = [Case(10, "20%", "0%")]


class Sampler:
    """Looks at an account's machines again and again, in a thread, while it is a context."""

    def __init__(self, stack: Stack, account: str) -> None:
        self._stack = stack
        self._account = account
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="sampler")
        #: Of each look: how many run, how many are there and not about to go, and how many are there at all.
        self.looks: list[tuple[int, int, int]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + LOOK_EVERY, time.monotonic())
            there = [one for one in self._stack.cloud("GET", "/machines?live=true") if one["account"] == self._account]
            staying = [one for one in there if not one["destroying"] and one["state"] != "failed"]
            self.looks.append((sum(one["state"] == "running" for one in staying), len(staying), len(there)))


def bench(*, quick: bool) -> Iterator[Figure]:
    """Seconds from POST to the rollout's end, beside its waves of booting; and the least and the most that were there meanwhile."""
    with running_stack({}) as stack:
        stack.knobs(provision_seconds=BOOT)
        for case in QUICK if quick else CASES:
            yield from _reload(stack, case)


def _reload(stack: Stack, case: Case) -> Iterator[Figure]:
    tenant = Tenant(stack)
    group_id = tenant.make_group(case.members)
    old = {machine["id"] for machine in tenant.wait_for_running(case.members, seconds=BOOT + case.members + 60)}
    tenant.tsg.ok("GET", f"/groups/{group_id}/status?wait=60")
    most = case.members + math.ceil(_share(case.surge) * case.members)
    least = case.members - math.floor(_share(case.unavailable) * case.members)
    waves = math.ceil(case.members / (most - least))
    settings = {"max_surge": case.surge, "max_unavailable": case.unavailable, "bake_seconds": 0, "skip_matching": False, "in_place": False}
    began = time.monotonic()
    with Sampler(stack, tenant.name) as sampler:
        rollout = tenant.tsg.ok("POST", f"/groups/{group_id}/rollouts", settings, status=201)
        ended = _ended(tenant, f"/groups/{group_id}/rollouts/{rollout['id']}", until=began + PATIENCE * waves * BOOT)
        took = time.monotonic() - began
    left = old & {machine["id"] for machine in tenant.machines() if not machine["destroying"]}
    if ended["state"] != "Successful" or left:
        raise RuntimeError(f"the rollout ended {ended['state']} ({ended.get('message')}); {len(left)} old members are left")
    running, staying, there = zip(*sampler.looks, strict=True)
    name = f"{case.members} members, surge {case.surge}, unavailable {case.unavailable}"
    yield Figure(f"{name}: time", took, "s", waves * BOOT, {"looks": float(len(sampler.looks)), "waves": float(waves)})
    yield Figure(f"{name}: least available", float(min(running)), "members", float(least))
    more = {"most with those that go": float(max(there))}
    yield Figure(f"{name}: most members", float(max(staying)), "members", float(most), more)


def _ended(tenant: Tenant, path: str, *, until: float) -> dict[str, Any]:
    while time.monotonic() < until:
        found: dict[str, Any] = tenant.tsg.ok("GET", f"{path}?wait=20")
        if found["ended_at"] is not None or found["state"] == "Paused":
            return found
    raise TimeoutError(f"the rollout has not ended: {tenant.tsg.ok('GET', path)}")


def _share(percent: str) -> float:
    return int(percent.removesuffix("%")) / 100
