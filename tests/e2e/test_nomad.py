"""Nomad runs the scaling: the simulator of it, or a real agent (`dev/test --nomad ADDR`)."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import requests

from dev.processes import Child
from tests.e2e.conftest import REAL_NOMAD, Service, doomed, dying, workers_asleep

pytestmark = pytest.mark.stack("nomad")

only_simulated = pytest.mark.skipif(bool(REAL_NOMAD), reason="turns the simulator's knobs, or kills it")


def job_of(service: Service, group: dict[str, object]) -> str:
    ((job_id,),) = service.stack.sql("SELECT job_id FROM tsg_group_state WHERE group_id = %s", group["id"])
    return job_id


def nomad(service: Service) -> Child:
    return service.stack.processes["nomad"]


def test_a_group_lives_and_goes_by_its_job(calm: Service) -> None:
    group = calm.make_group(5)
    calm.settles(group, 5)
    assert job_of(calm, group).startswith(f"{group['group_name']}_")
    calm.resize(group, 2)
    calm.settles(group, 2)
    killed = calm.stack.cloud("POST", "/machines/kill", {"count": 1, "tag": {"tsg.group": group["id"]}})["killed"]
    calm.wait("the killed machine is replaced", lambda: calm.running(group) == 2)
    assert not set(killed) & {machine["id"] for machine in calm.machines(group)}
    calm.tsg.ok("DELETE", f"/groups/{group['id']}", status=204)
    calm.wait("no machine and no job is left", lambda: not calm.machines(group) and not calm.jobs())
    kinds = [kind for kind, status, _ in calm.activities(group) if status == "success"]
    assert kinds.count("TSG_INSTANCE_LAUNCH") == 6
    assert kinds.count("TSG_JOB_SUBMIT") == 3, "one for each generation"
    assert kinds[-1] == "TSG_JOB_REMOVE"
    actors = calm.stack.sql("SELECT DISTINCT actor FROM tsg_activities WHERE kind = 'TSG_INSTANCE_LAUNCH'")
    workers = {str(child.pid) for name, child in calm.stack.processes.items() if name.startswith("worker")}
    assert not {actor.rpartition(":")[2] for (actor,) in actors} & workers, "a worker launched in Nomad's place"


def test_no_job_holds_a_secret(calm: Service) -> None:
    group = calm.make_group(1)
    calm.settles(group, 1)
    stored = "".join(
        requests.get(f"{calm.stack.nomad_url}/v1/job/{requests.utils.quote(stub['ID'], safe='')}", timeout=30).text for stub in calm.jobs()
    )
    assert group["id"] in stored
    secrets = [calm.stack.environment[name] for name in ("TSG_SECRET_KEYS", "TSG_DATABASE_URL", "TSG_REDIS_URL")]
    secrets += [material for (material,) in calm.stack.sql("SELECT material FROM tsg_keys")]
    for secret in [*secrets, "PRIVATE KEY", "Signature"]:
        assert secret not in stored
        assert json.dumps(secret)[1:-1] not in stored


@only_simulated
def test_a_burst_of_groups_is_a_job_and_a_run_each_and_leaves_nothing(calm: Service) -> None:
    template = calm.make_template()
    groups = [calm.make_group(1, template_id=template) for _ in range(5)]
    for group in groups:
        calm.settles(group, 1)
    calm.wait("every job was submitted", lambda: all(job_of(calm, group) for group in groups))
    counters = requests.get(f"{calm.stack.nomad_url}/--sim/counters", timeout=30).json()
    assert [counters["by_job"][job_of(calm, group)]["forces"] for group in groups] == [1] * len(groups)
    assert calm.counters()["creates_accepted"] == len(groups)
    for group in groups:
        calm.tsg.ok("DELETE", f"/groups/{group['id']}", status=204)
    calm.wait("no job is left", lambda: not calm.jobs(), seconds=120)
    assert not [machine for group in groups for machine in calm.machines(group)]


def test_a_name_used_again_gets_a_job_of_its_own_while_the_old_one_is_going(calm: Service) -> None:
    calm.stack.knobs(delete_seconds=6)
    template = calm.make_template()
    old = calm.make_group(2, template_id=template, group_name="phoenix")
    calm.settles(old, 2)
    calm.tsg.ok("DELETE", f"/groups/{old['id']}", status=204)
    new = calm.make_group(2, template_id=template, group_name="phoenix")
    calm.settles(new, 2)
    calm.wait("the old job is gone", lambda: calm.is_emptied(old) and job_of(calm, old) is None)
    assert any(stub["ID"] == job_of(calm, new) for stub in calm.jobs())
    assert calm.counters()["creates_accepted"] == 4
    assert len(calm.machines(new)) == 2


def test_a_job_that_somebody_removed_or_edited_is_put_right(calm: Service) -> None:
    group = calm.make_group(1)
    calm.settles(group, 1)
    job_id = job_of(calm, group)
    url = f"{calm.stack.nomad_url}/v1/job/{job_id}"
    spec = requests.get(url, timeout=30).json()
    requests.delete(url, params={"purge": "true"}, timeout=30).raise_for_status()
    calm.wait("the job is there again", lambda: requests.get(url, timeout=30).status_code == 200)
    edited = {**spec, "Meta": {"group_id": "somebody else's"}}
    requests.put(f"{calm.stack.nomad_url}/v1/jobs", json={"Job": edited}, timeout=30).raise_for_status()
    calm.wait("the job is as it was", lambda: requests.get(url, timeout=30).json()["Meta"]["group_id"] == group["id"])


@only_simulated
def test_without_nomad_posts_are_answered_and_workers_scale(calm: Service) -> None:
    stack = calm.stack
    nomad(calm).kill()
    del stack.processes["nomad"]
    started = time.monotonic()
    group = calm.make_group(3)
    assert time.monotonic() - started < 5, "the answer waited for Nomad"
    calm.settles(group, 3, seconds=45)  # and not a minute later for each step, as for a Nomad that is late
    assert any(kind == "TSG_JOB_SUBMIT_ERROR" and "can't be reached" in told for kind, _, told in calm.activities(group))
    stack.start_nomad()
    calm.wait("the job is submitted", lambda: job_of(calm, group) in {stub["ID"] for stub in calm.jobs()})
    calm.settles(group, 3)
    assert calm.counters()["creates_accepted"] == 3


@only_simulated
def test_nomad_killed_in_the_middle_and_its_run_with_it(calm: Service) -> None:
    group = calm.make_group(40)
    calm.wait("some machines are there", lambda: len(calm.machines(group)) >= 5)
    nomad(calm).kill()
    calm.stack.start_nomad()
    calm.settles(group, 40)
    assert calm.counters()["creates_accepted"] == 40


@only_simulated
def test_workers_killed_at_any_step_of_submitting_are_made_good(calm: Service) -> None:
    template = calm.make_template()
    with workers_asleep(calm):
        groups = [calm.make_group(1, template_id=template) for _ in range(4)]
        steps = [
            "after shared.state.jobs:get",
            "after shared.clients.nomad:Nomad.register",
            "after shared.clients.nomad:Nomad.force",
            "before shared.state.jobs:mark_submitted",
        ]
        dying(calm, {step: doomed(calm, step, "tsg-worker") for step in steps})
    for group in groups:
        calm.settles(group, 1)
    assert calm.counters()["creates_accepted"] == 4

    def each_has_its_job() -> bool:
        return {job_of(calm, group) for group in groups} == {stub["ID"] for stub in calm.jobs() if not stub.get("ParentID")}

    # One run looks at the whole account: groups may be well before their own jobs are there.
    calm.wait("each has its job, and no other is there", each_has_its_job)


@only_simulated
def test_a_killed_tsg_scale_is_made_good(calm: Service) -> None:
    group = calm.make_group(40)
    calm.wait("some machines are there", lambda: len(calm.machines(group)) >= 5)
    ((owner,),) = calm.stack.sql("SELECT owner FROM tsg_work WHERE kind = 'account' AND owner IS NOT NULL")
    pid = int(owner.rpartition(":")[2])
    assert "tsg-scale" in Path(f"/proc/{pid}/cmdline").read_text(), "the lease is another program's"
    os.kill(pid, signal.SIGKILL)
    calm.settles(group, 40)
    assert calm.counters()["creates_accepted"] == 40


@only_simulated
def test_a_job_that_nomad_refuses_is_told_in_nomads_words(calm: Service) -> None:
    requests.patch(f"{calm.stack.nomad_url}/--sim/knobs", json={"refuse_validate": "no such driver here"}, timeout=30).raise_for_status()
    group = calm.make_group(1)
    calm.wait("the refusal is told", lambda: any("no such driver here" in text for *_, text in calm.activities(group)))
    requests.patch(f"{calm.stack.nomad_url}/--sim/knobs", json={"refuse_validate": None}, timeout=30).raise_for_status()
    calm.settles(group, 1)
    calm.wait("the job is submitted once Nomad takes it", lambda: bool(calm.jobs()))
