"""The main job, where one can watch it: a group comes up, grows, loses machines, shrinks and goes. Each step is checked."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from dev.client import Tsg
from dev.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_NETWORK, DEFAULT_PACKAGE

#: Seconds that a step may take before the tour fails.
PATIENCE = 120.0
#: Seconds between looks while waiting.
LOOK = 0.5

Machines = list[dict[str, Any]]


class TourFailed(Exception):
    """A step did not end as it should."""


def tour(tsg: Tsg, cloud: Callable[..., Any]) -> None:
    """Take the tour. `cloud(method, path, body)` asks the simulator of CloudAPI. Raises `TourFailed`."""
    started = time.monotonic()
    suffix = format(int(time.time()), "x")
    _say("POST /v1/tsg/templates")
    spec = {
        "template_name": f"tour-{suffix}",
        "package": DEFAULT_PACKAGE,
        "image_id": DEFAULT_IMAGE,
        "networks": [DEFAULT_NETWORK],
        "firewall_enabled": True,
        "userdata": "#!/bin/sh\necho hello from the tour\n",
        "metadata": {"purpose": "tour"},
        "tags": {"role": "web"},
    }
    template = tsg.ok("POST", "/templates", spec, status=201)
    _done(f"template {template['id']}")

    _say("POST /v1/tsg/groups with capacity 5")
    body = {"group_name": f"tour-{suffix}", "template_id": template["id"], "capacity": 5}
    group = tsg.ok("POST", "/groups", body, status=201)
    _done(f"group {group['id']}")
    path = f"/groups/{group['id']}"
    look = lambda: tsg.ok("GET", f"{path}/instances")  # noqa: E731
    first = _watch("5 instances come up", look, lambda machines: _all_run(machines, 5))
    _check_machine(first[0], group, spec)

    _say("PUT /v1/tsg/groups/<id>/increment by 3")
    tsg.ok("PUT", f"{path}/increment", {"instance_count": 3, "max_instance": 20}, status=202)
    _done("accepted")
    eight = _watch("3 more come up", look, lambda machines: _all_run(machines, 8))
    _expect({machine["id"] for machine in first} <= {machine["id"] for machine in eight}, "the first five are still there")

    _say("two machines die behind the service's back")
    killed = set(cloud("POST", "/machines/kill", {"count": 2, "tag": {"tsg.group": group["id"]}})["killed"])
    _done(", ".join(machine_id[:8] for machine_id in killed))
    healed = _watch(
        "they are replaced",
        look,
        lambda machines: _all_run(machines, 8) and not killed & {machine["id"] for machine in machines},
    )
    _expect(len({machine["id"] for machine in healed} - {machine["id"] for machine in eight}) == 2, "two of the eight are new")

    _say("PUT /v1/tsg/groups/<id> with capacity 2")
    tsg.ok("PUT", path, {**body, "capacity": 2})
    _done("accepted")
    two = _watch("6 instances go", look, lambda machines: _all_run(machines, 2))
    youngest = sorted(healed, key=lambda machine: machine["created"])[-2:]
    _expect({m["created"] for m in two} == {m["created"] for m in youngest}, "the oldest went first")

    _say("DELETE /v1/tsg/groups/<id>")
    tsg.ok("DELETE", path, status=204)
    _done("accepted; the name is free")
    _expect(tsg("GET", path).status_code == 404, "the group is not found any more")

    def left() -> Machines:
        state = cloud("GET", "/state")
        return [m for m in state["machines"] if m["tags"].get("tsg.group") == group["id"] and m["state"] != "deleted"]

    _watch("its instances go, to the last one", left, lambda machines: not machines)
    tsg.ok("DELETE", f"/templates/{template['id']}", status=204)
    _say("DELETE /v1/tsg/templates/<id>")
    _done("gone")
    print(f"tour: done in {time.monotonic() - started:.0f} s, everything as it should be", flush=True)


def _all_run(machines: Machines, count: int) -> bool:
    return len(machines) == count and all(machine["state"] == "running" for machine in machines)


def _check_machine(machine: dict[str, Any], group: dict[str, Any], spec: dict[str, Any]) -> None:
    tags = machine["tags"]
    _expect(tags["tsg.name"] == group["group_name"] and tags["tsg.group"] == group["id"], "machines carry their group's name and id")
    _expect(tags["role"] == "web" and tags["tsg.template"] == group["template_id"], "and the template's tags")
    _expect(machine["metadata"]["user-data"] == spec["userdata"] and machine["metadata"]["purpose"] == "tour", "and its metadata")
    _expect(machine["firewall_enabled"] is True, "and its firewall")
    _expect(machine["networks"] == spec["networks"], "and its networks")
    _expect(machine["name"] == f"tsg-{group['template_id'][:8]}-{machine['id'][:8]}", f"and are named like {machine['name']}")


def _watch(what: str, look: Callable[[], Machines], done: Callable[[Machines], bool]) -> Machines:
    """Look until it is done, saying what is to be seen each time that changes."""
    started = time.monotonic()
    said = ""
    while True:
        machines = look()
        counts = Counter(machine["state"] for machine in machines)
        seen = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"
        if seen != said:
            print(f"  {time.monotonic() - started:5.1f} s  {what}: {seen}", flush=True)
            said = seen
        if done(machines):
            return machines
        if time.monotonic() - started > PATIENCE:
            raise TourFailed(f"{what}: still {seen} after {PATIENCE:.0f} s")
        time.sleep(LOOK)


def _say(what: str) -> None:
    print(f"tour: {what}", flush=True)


def _done(what: str) -> None:
    print(f"           {what}", flush=True)


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise TourFailed(f"not so: {what}")
    print(f"       ok  {what}", file=sys.stdout, flush=True)
