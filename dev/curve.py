"""python -m dev.curve: plays a day of load to a group that scales itself, and draws docs/autoscaling.svg.

A real PostgreSQL and Valkey, a simulated cloud and CMON over real HTTP and TLS, the service's own reconcilers. The day's time goes by in
steps: whatever stands in rows and in the cloud is put back by a step before each look.
"""

import math
import sys
import uuid
from datetime import timedelta
from itertools import pairwise
from typing import NamedTuple

from sqlalchemy import Connection, text

from dev.database import managed_account, new_database
from dev.processes import TOP
from dev.services import Postgres, Valkey, scratch
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE
from dev.sim.cloudapi.machine import Machine
from dev.sim.cloudapi.simulator import Simulator
from dev.sim.cmon.simulator import Simulator as CmonSimulator
from shared import log
from shared.clients import keys
from shared.clients.access import Timeouts, Trust
from shared.clients.cloudapi import CloudAPI
from shared.clients.cmon import Cmon, make_certificate
from shared.clients.keys import Sealer
from shared.clients.samples import Samples
from shared.measures.cmon import CmonSource
from shared.measures.gather import Gatherer
from shared.measures.sources import list_members
from shared.plan.limits import Limits
from shared.spec import policy_settings
from shared.spec.policy import from_memory, to_memory
from shared.spec.spec import Spec
from shared.state import decisions, groups, policies, templates
from shared.state.changes import Asker
from shared.state.groups import Wish
from shared.store.db import Database
from tsg_workers.reconcilers.groups import GroupReconciler, Pace
from tsg_workers.reconcilers.policies import PolicyReconciler
from tsg_workers.runner import Runner

STEP, DAY = 120, 86_400
LEAST, MOST, TARGET = 2, 20, 60.0
#: Seconds that a machine takes to come up, as one of Triton's does.
BOOT = 90.0
#: When CMON is away.
AWAY = (15.0, 16.0)
LEGEND = f"blue: capacity; dashed: what the load needs at a CPU of {TARGET:g} %; red: CMON is away"
PICTURE = TOP / "docs" / "autoscaling.svg"
_TIMES = {
    "tsg_instances": ("state_since", "launched_at", "gone_at", "ran_at", "running_since"),
    "tsg_group_state": ("check_at", "launch_at"),
    "tsg_policies": ("out_until", "in_until", "ran_until"),
}


class Point(NamedTuple):
    """One look: the hour, the load in instances at the target, the capacity, and what was decided."""

    hour: float
    needed: float
    capacity: int
    running: int
    result: str


def load_at(hour: float) -> float:
    """Per cent of all instances together: quiet, a spike, a double spike, decay."""
    spikes = ((9.0, 0.7, 500.0), (12.5, 0.5, 420.0), (14.0, 0.8, 640.0))
    decay = 520.0 * math.exp(-(hour - 18.0) / 2.0) if hour >= 18.0 else 0.0
    return 110.0 + sum(height * math.exp(-(((hour - at) / width) ** 2)) for at, width, height in spikes) + decay


def main() -> int:
    log.configure("ERROR", "json")
    with scratch() as directory, Postgres(directory / "postgres", durable=False) as postgres, Valkey(directory / "valkey") as valkey:
        began = 1_795_737_600.0
        with (
            new_database(postgres, "curve") as database,
            Simulator(now=lambda: began, throttle=False, provision_seconds=BOOT, delete_seconds=5.0) as cloud,
            CmonSimulator(cloud.cloud, directory) as cmon,
        ):
            points = play(database, cloud, cmon, valkey.url)
    PICTURE.write_text(drawn(points))
    steps = [(one, other) for one, other in pairwise(points) if one.capacity != other.capacity]
    grown = [other.capacity / max(LEAST, math.ceil(other.needed)) for one, other in steps if other.capacity > one.capacity]
    turns = sum((a.capacity < b.capacity) != (c.capacity < d.capacity) for (a, b), (c, d) in pairwise(steps))
    print(f"{len(points)} looks, {len(steps)} changes, {turns} turns; growth to {max(grown, default=1.0):.2f} of what was needed, at most")
    return 0


def play(database: Database, cloud: Simulator, cmon: CmonSimulator, redis_url: str) -> list[Point]:
    """The whole day."""
    pair, sealer = keys.generate(), Sealer([b"k" * 32])
    triton = cloud.cloud.add_account("curve", [f"{pair.public_line} tsg"], uuid=str(uuid.uuid4()))

    def enrol(connection: Connection) -> tuple[str, str]:
        account = managed_account(connection, "curve", triton.id, pair, sealer)
        template = templates.create(connection, account.id, Spec("web", {"package": DEFAULT_PACKAGE, "image_id": DEFAULT_IMAGE}))
        wish = Wish("web", template.id, LEAST, None, {"min_capacity": LEAST, "max_capacity": MOST})
        return account.id, groups.insert_group(connection, account.id, wish, interval=300, request_id=None).id

    account_id, group_id = database.transact(enrol)
    told = {"policy_name": "cpu", "kind": "target", "metric": {"source": "cmon", "measure": "cpu"}, "target": TARGET}
    settings = policy_settings.TargetSettings.model_validate(told)
    database.transact(lambda connection: policies.insert_policy(connection, Asker(account_id, group_id, None), settings, token_hash=None))
    samples, hour = Samples(redis_url), [0.0]

    def cpu(_machine: Machine) -> float:
        running = sum(one.state == "running" for one in cloud.cloud.all_machines())
        return min(100.0, load_at(hour[0]) / max(1, running))

    cmon.load.cpu = cpu
    connection = Cmon(cmon.url, make_certificate("curve", pair), Timeouts(5, 5), Trust(cmon.authorities))
    gatherer = Gatherer({"cmon": CmonSource(samples, lambda _group: connection, lambda _group: 1.0)}, list_members(database))
    clouds = CloudAPI(cloud.url, Timeouts(5, 30))
    pace = Pace(rate=10_000, burst=10_000, lease_seconds=30, limits=Limits(provision_timeout=300, launch_grace=60))
    converge = Runner(database, GroupReconciler(database, clouds, sealer, pace, owner="curve"), owner="curve")
    reconciler = PolicyReconciler(
        database, lambda group, wanted: gatherer.measure(group, wanted, patience=20.0), lambda *_: None, interval=15, max_capacity=100
    )
    decide = Runner(database, reconciler, owner="curve")
    points = []
    for step in range(DAY // STEP):
        hour[0] = step * STEP / 3600
        cmon.down = AWAY[0] <= hour[0] < AWAY[1]
        decide.run(group_id)
        converge.run(account_id)
        points.append(look(database, cloud, group_id, hour[0]))
        put_back(database, cloud, samples, group_id)
    gatherer.close()
    clouds.close()
    return points


def look(database: Database, cloud: Simulator, group_id: str, hour: float) -> Point:
    with database.read() as connection:
        scaled = policies.find_scaled(connection, group_id)
        last = decisions.list_last(connection, [group_id])
    running = sum(one.state == "running" for one in cloud.cloud.all_machines())
    return Point(hour, load_at(hour) / TARGET, scaled.capacity if scaled else 0, running, last[0].result if last else "")


def put_back(database: Database, cloud: Simulator, samples: Samples, group_id: str) -> None:
    """A step of time goes by."""
    cloud.cloud.advance(STEP)
    with database.read() as connection:
        for table, columns in _TIMES.items():
            values = ", ".join(f"{column} = {column} - interval '{STEP} seconds'" for column in columns)
            connection.execute(text(f"UPDATE {table} SET {values}"))
        connection.execute(text("UPDATE tsg_group_state SET check_at = now() WHERE check_at IS NOT NULL"))
        for policy_id, memory in connection.execute(text("SELECT id, memory FROM tsg_policies WHERE memory IS NOT NULL")).all():
            progress = from_memory(memory)
            moved = progress._replace(history=tuple((at - timedelta(seconds=STEP), number) for at, number in progress.history))
            connection.execute(
                text("UPDATE tsg_policies SET memory = :memory WHERE id = :id"), {"memory": to_memory(moved), "id": policy_id}
            )
    _, kept = samples.get(group_id)
    samples.put(group_id, {one: sample._replace(at=sample.at - STEP) for one, sample in kept.items()}, [])


def drawn(points: list[Point]) -> str:
    """The day as a picture: what the load needs, the capacity, and when CMON was away."""
    wide, high, left, top = 920, 300, 40, 20

    def x(hour: float) -> float:
        return left + hour / 24 * wide

    def y(count: float) -> float:
        return top + high - count / (MOST + 2) * high

    def line(values: list[tuple[float, float]]) -> str:
        return " ".join(f"{x(hour):.1f},{y(count):.1f}" for hour, count in values)

    stairs: list[tuple[float, float]] = []
    for one in points:
        if stairs:
            stairs.append((one.hour, stairs[-1][1]))
        stairs.append((one.hour, one.capacity))
    grid = [f'<line x1="{left}" x2="{left + wide}" y1="{y(n):.1f}" y2="{y(n):.1f}" stroke="#ddd"/>' for n in range(0, MOST + 1, 5)]
    labels = [f'<text x="{left - 8}" y="{y(n) + 4:.1f}" text-anchor="end">{n}</text>' for n in range(0, MOST + 1, 5)]
    labels += [f'<text x="{x(hour):.1f}" y="{top + high + 18}" text-anchor="middle">{hour}:00</text>' for hour in range(0, 25, 3)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + wide + 20} {top + high + 50}"',
            ' font-family="sans-serif" font-size="12">',
            "<!-- Made by python -m dev.curve. -->",
            '<rect width="100%" height="100%" fill="white"/>',
            f'<rect x="{x(AWAY[0]):.1f}" y="{top}" width="{x(AWAY[1]) - x(AWAY[0]):.1f}" height="{high}" fill="#f6d9d5"/>',
            *grid,
            *labels,
            f'<polyline points="{line([(one.hour, one.needed) for one in points])}" fill="none" stroke="#888" stroke-dasharray="4 3"/>',
            f'<polyline points="{line(stairs)}" fill="none" stroke="#06c" stroke-width="2"/>',
            f'<text x="{left + 8}" y="{top + high + 38}">{LEGEND}</text>',
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
