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


def test_fifty_increments_at_once_are_fifty_instances(calm: Service) -> None:
    group = calm.make_group(0)
    path = f"/groups/{group['id']}/increment"
    body = {"instance_count": 1, "max_instance": 100}
    assert calm.together(50, lambda tsg, _number: tsg("PUT", path, body).status_code) == [202] * 50
    assert calm.tsg.ok("GET", f"/groups/{group['id']}")["capacity"] == 50
    calm.settles(group, 50)
    assert calm.counters()["creates_accepted"] == 50


def test_one_of_twenty_creates_of_a_name_wins(calm: Service) -> None:
    body = {"group_name": "wanted-by-all", "template_id": calm.make_template(), "capacity": 1}
    statuses = calm.together(20, lambda tsg, _number: tsg("POST", "/groups", body).status_code)
    assert sorted(statuses) == [201] + [409] * 19
    (group,) = calm.tsg.ok("GET", "/groups")
    calm.settles(group, 1)


def test_a_group_made_again_under_its_name_has_nothing_of_the_old_one(calm: Service) -> None:
    calm.knobs(delete_seconds=4)
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
