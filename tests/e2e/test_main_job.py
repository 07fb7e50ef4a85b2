"""What a user comes for, on the whole service."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import Service

pytestmark = pytest.mark.stack("workers")

ROOT = Path(__file__).parents[2]


def test_the_tour_of_dev_run_ends_well() -> None:
    done = subprocess.run(
        [ROOT / "dev" / "run", "--once", "--provision-seconds", "1"], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "everything as it should be" in done.stdout


def test_fifty_increments_at_once_are_fifty_instances(calm: Service) -> None:
    group = calm.make_group(0)
    path = f"/groups/{group['id']}/increment"
    body = {"instance_count": 1, "max_instance": 100}
    assert calm.together(50, lambda tsg, _number: tsg("PUT", path, body).status_code) == [202] * 50
    assert calm.tsg.ok("GET", f"/groups/{group['id']}")["capacity"] == 50
    calm.settles(group, 50)
    assert calm.counters()["creates_accepted"] == 50


def test_a_group_made_again_under_its_name_has_nothing_of_the_old_one(calm: Service) -> None:
    calm.stack.knobs(delete_seconds=4)
    template = calm.make_template()
    old = calm.make_group(6, template_id=template, group_name="phoenix")
    calm.settles(old, 6)
    calm.tsg.ok("DELETE", f"/groups/{old['id']}", status=204)
    new = calm.make_group(4, template_id=template, group_name="phoenix")
    calm.wait("the old machines are going still", lambda: any(m["state"] == "stopping" for m in calm.machines(old)))
    calm.settles(new, 4)
    calm.wait("the old group is empty", lambda: not calm.machines(old) and calm.is_emptied(old))
    assert calm.counters()["creates_accepted"] == 10
    assert len(calm.tsg.ok("GET", f"/groups/{new['id']}/instances")) == 4


def test_instances_are_the_groups_own_and_as_cloudapi_tells_them(calm: Service) -> None:
    template = calm.make_template()
    one, other = (calm.make_group(2, template_id=template) for _ in range(2))
    calm.settles(one, 2)
    calm.settles(other, 2)
    told = calm.tsg.ok("GET", f"/groups/{one['id']}/instances")
    assert {machine["id"] for machine in told} == {machine["id"] for machine in calm.machines(one)}
    assert all(machine["tags"]["tsg.name"] == one["group_name"] and machine["nics"] for machine in told)


def test_a_deleted_group_leaves_nothing(calm: Service) -> None:
    group = calm.make_group(3)
    calm.tsg.ok("DELETE", f"/groups/{group['id']}", status=204)
    calm.wait("the group is empty", lambda: calm.is_emptied(group) and not calm.machines(group))


def log_lines(service: Service, *processes: str) -> list[dict[str, Any]]:
    """What these processes have logged as JSON, or all of ours."""
    names = processes or [name for name in service.stack.processes if name != "cloudapi"]
    told = [line for name in names for line in service.stack.processes[name].tail(100_000).splitlines() if line.startswith("{")]
    return [json.loads(line) for line in told]


def test_one_search_follows_a_request_to_its_machines(calm: Service) -> None:
    body = {"group_name": "followed", "template_id": calm.make_template(), "capacity": 2}
    made = calm.tsg("POST", "/groups", body)
    calm.settles(made.json(), 2)
    found = [line for line in log_lines(calm) if line.get("request_id") == made.headers["X-Request-Id"]]
    assert [line["path"] for line in found if line["event"] == "request"] == ["/v1/tsg/groups"]
    launched = {line["machine_id"] for line in found if line["event"] == "instance_launched"}
    assert launched == {machine["id"] for machine in calm.machines(made.json())}


def counted(service: Service, process: str) -> dict[tuple[str, str], float]:
    """A process's metrics, as Prometheus reads them: name and the values of its labels -> value."""
    urls: list[str] = []

    def is_monitored() -> bool:
        urls[:] = [line["monitor_url"] for line in log_lines(service, process) if line["event"] == "monitoring"]
        return bool(urls)

    service.wait(f"{process} is monitored", is_monitored)
    families = text_string_to_metric_families(requests.get(f"{urls[-1]}/metrics", timeout=30).text)
    return {(sample.name, " ".join(sample.labels.values())): sample.value for family in families for sample in family.samples}


def test_what_is_done_is_counted_in_every_process(calm: Service) -> None:
    workers = [name for name in calm.stack.processes if name.startswith("worker")]

    def launched() -> float:
        return sum(counted(calm, name).get(("tsg_launches_total", "launched"), 0.0) for name in workers)

    before, asked_before = launched(), counted(calm, "api")
    group = calm.make_group(3)
    calm.settles(group, 3)
    for number in range(20):
        calm.tsg("GET", f"/groups/{group['id']}")
        requests.get(f"{calm.stack.url}/no/such/{number}", timeout=30)
    assert launched() - before == 3
    asked = counted(calm, "api")
    grown = {name: value - asked_before.get(name, 0.0) for name, value in asked.items() if value != asked_before.get(name, 0.0)}
    assert grown["tsg_http_requests_total", "GET /v1/tsg/groups/{group_id} 200"] == 20
    assert grown["tsg_http_requests_total", "GET other 404"] == 20
    assert grown["tsg_http_request_seconds_count", "/v1/tsg/groups/{group_id}"] == 20
    assert grown["tsg_authentications_total", "accepted"] >= 22
    assert not [labels for _, labels in asked if group["id"] in labels or "/no/such" in labels]
    worked = [counted(calm, name) for name in workers]
    assert sum(one["tsg_pass_seconds_count", ""] for one in worked) >= 1
    assert sum(one.get(("tsg_cloudapi_requests_total", "CreateMachine 201"), 0.0) for one in worked) >= 3
    assert sum(one.get(("tsg_group_checks_total", "Settled"), 0.0) for one in worked) >= 1
    clock = counted(calm, "clock")
    assert clock["tsg_clock_ticks_total", "done"] >= 1
    assert ("tsg_oldest_unhandled_change_seconds", "") in clock
    assert ("tsg_oldest_unhandled_change_seconds", "") not in worked[0], "who does not read the state does not tell it"
