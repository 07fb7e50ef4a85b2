"""What a user comes for, on the whole service."""

import subprocess
from pathlib import Path

from tests.e2e.conftest import Service

ROOT = Path(__file__).parents[2]


def test_the_tour_of_dev_run_ends_well() -> None:
    done = subprocess.run(
        [ROOT / "dev" / "run", "--once", "--provision-seconds", "1"], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "everything as it should be" in done.stdout


def test_fifty_increments_at_once_are_fifty_instances(service: Service) -> None:
    group = service.make_group(0)
    path = f"/groups/{group['id']}/increment"
    body = {"instance_count": 1, "max_instance": 100}
    assert service.together(50, lambda tsg, _number: tsg("PUT", path, body).status_code) == [202] * 50
    assert service.tsg.ok("GET", f"/groups/{group['id']}")["capacity"] == 50
    service.settles(group, 50)
    assert service.counters()["creates_accepted"] == 50


def test_one_of_twenty_creates_of_a_name_wins(service: Service) -> None:
    body = {"group_name": "wanted-by-all", "template_id": service.make_template(), "capacity": 1}
    statuses = service.together(20, lambda tsg, _number: tsg("POST", "/groups", body).status_code)
    assert sorted(statuses) == [201] + [409] * 19
    (group,) = service.tsg.ok("GET", "/groups")
    service.settles(group, 1)


def test_a_group_made_again_under_its_name_has_nothing_of_the_old_one(service: Service) -> None:
    service.knobs(delete_seconds=4)
    template = service.make_template()
    old = service.make_group(6, template_id=template, group_name="phoenix")
    service.settles(old, 6)
    service.tsg.ok("DELETE", f"/groups/{old['id']}", status=204)
    new = service.make_group(4, template_id=template, group_name="phoenix")
    service.wait("the old machines are going still", lambda: any(m["state"] == "stopping" for m in service.machines(old)))
    service.settles(new, 4)
    service.wait("the old group is empty", lambda: not service.machines(old) and service.is_emptied(old))
    assert service.counters()["creates_accepted"] == 10
    assert len(service.tsg.ok("GET", f"/groups/{new['id']}/instances")) == 4


def test_instances_are_the_groups_own_and_as_cloudapi_tells_them(service: Service) -> None:
    template = service.make_template()
    one, other = (service.make_group(2, template_id=template) for _ in range(2))
    service.settles(one, 2)
    service.settles(other, 2)
    told = service.tsg.ok("GET", f"/groups/{one['id']}/instances")
    assert {machine["id"] for machine in told} == {machine["id"] for machine in service.machines(one)}
    assert all(machine["tags"]["tsg.name"] == one["group_name"] and machine["nics"] for machine in told)


def test_a_deleted_group_leaves_nothing(service: Service) -> None:
    group = service.make_group(3)
    service.tsg.ok("DELETE", f"/groups/{group['id']}", status=204)
    service.wait("the group is empty", lambda: service.is_emptied(group) and not service.machines(group))
