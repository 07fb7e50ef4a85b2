"""Groups and their Nomad jobs, against the simulator of Nomad over real HTTP."""

import http.server
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from dev.processes import free_port, wait_for
from dev.sim.nomad.simulator import Simulator as NomadSimulator
from shared.clients import nomad as nomad_client
from shared.clients.access import NomadAccess
from shared.clients.nomad import Denied, Nomad, Rejected, Unavailable
from shared.state import jobs, leases, overview, status
from shared.state.groups import Group
from shared.state.work import NOMAD_JOB, claim
from tests.integration.conftest import World
from tsg_workers.reconcilers.jobspec import Shape
from tsg_workers.reconcilers.nomad_jobs import NomadJobReconciler, _without_credentials
from tsg_workers.runner import Runner

SHAPE = Shape(
    datacenter="us-east-1", role="automater", driver="raw_exec", command="/bin/true", image="", artifact="", config="", cpu=100, memory=128
)


#: Seconds between checks of a group that says nothing of it.
INTERVAL = 300


def statuses(work: "Submitting", job_id: str) -> list[str]:
    """The states of a job's runs."""
    return [child["Status"] for child in work.nomad.children(job_id)]


@pytest.fixture
def nomad() -> Iterator[NomadSimulator]:
    with NomadSimulator() as simulator:
        yield simulator


class SignIn(http.server.BaseHTTPRequestHandler):
    """A page for people, in the place of an answer."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        page = b"<html>Sign in</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Submitting:
    """A runner of Nomad jobs, and what is to be seen of its work."""

    def __init__(self, world: World, address: str, shape: Shape = SHAPE, token: str = "") -> None:
        self.world = world
        self.address = address
        self.nomad = Nomad(NomadAccess(address, token=token))
        self.runner = Runner(world.db, NomadJobReconciler(world.db, self.nomad, shape, grace=60, actor="test"), owner="test")

    def job_id(self, group: Group) -> str:
        return self.world.sql("SELECT job_id FROM tsg_group_state WHERE group_id = :id", id=group.id)[0][0]

    def job(self, job_id: str) -> Any:
        """The job as Nomad has it; None when it has none."""
        answer = requests.get(f"{self.address}/v1/job/{quote(job_id, safe='')}", timeout=30)
        return answer.json() if answer.ok else None

    def row(self, group: Group) -> Any:
        return self.world.sql(
            "SELECT job_generation, generation, w.failures, w.due_at > now() AS later FROM tsg_group_state s"
            " JOIN tsg_work w ON w.kind = 'nomad_job' AND w.subject = s.group_id WHERE group_id = :id",
            id=group.id,
        )[0]

    def told(self, group: Group) -> list[tuple[str, str]]:
        rows = self.world.sql(
            "SELECT kind, description FROM tsg_activities WHERE group_id = :id AND kind LIKE 'TSG_JOB%' ORDER BY at", id=group.id
        )
        return [(kind, description) for kind, description in rows]


def test_a_group_is_submitted_and_run_once_for_each_change(world: World, nomad: NomadSimulator) -> None:
    work = Submitting(world, nomad.url)
    group = world.make_group(3)
    for _ in range(3):
        work.runner.run(group.id)
    counted = nomad.cluster.counters.to_json()["by_job"][work.job_id(group)]
    assert (counted["registers"], counted["changes"], counted["forces"]) == (3, 1, 1)
    came(world, group)
    world.resize(group, 5)
    work.runner.run(group.id)
    counted = nomad.cluster.counters.to_json()["by_job"][work.job_id(group)]
    assert (counted["changes"], counted["forces"]) == (1, 2), "another capacity is no other job"
    assert tuple(work.row(group)) == (2, 2, 0, True)
    assert [kind for kind, _ in work.told(group)] == ["TSG_JOB_SUBMIT"] * 2


def test_changes_before_a_run_has_come_are_left_to_that_run(world: World, nomad: NomadSimulator) -> None:
    """On a busy node, one run for each change would pile up."""
    work = Submitting(world, nomad.url)
    group = world.make_group(3)
    work.runner.run(group.id)
    forced_at = world.group_row(group).job_forced_at
    for capacity in (5, 6):
        world.resize(group, capacity)
        work.runner.run(group.id)
    assert tuple(work.row(group)) == (3, 3, 0, True)
    assert work.told(group)[-1] == ("TSG_JOB_SUBMIT", f"the run of job {work.job_id(group)} that is to come is for generation 3 too")
    assert world.group_row(group).job_forced_at == forced_at, "it is missed as soon as if nothing had been changed"
    passed(work, group, 75)
    world.resize(group, 7)
    work.runner.run(group.id)
    came(world, group)
    world.resize(group, 8)
    work.runner.run(group.id)
    assert nomad.cluster.counters.to_json()["by_job"][work.job_id(group)]["forces"] == 3


def test_a_job_that_was_removed_or_edited_is_put_right_without_a_run(world: World, nomad: NomadSimulator) -> None:
    work = Submitting(world, nomad.url)
    group = world.make_group(1)
    work.runner.run(group.id)
    job_id = work.job_id(group)
    work.nomad.deregister(job_id)
    work.runner.run(group.id)
    right = work.job(job_id)
    assert right is not None
    work.nomad.register({**right, "Meta": {"group_id": "another"}})
    work.runner.run(group.id)
    assert work.job(job_id)["Meta"]["group_id"] == group.id
    assert nomad.cluster.counters.to_json()["by_job"][job_id]["forces"] == 1


def test_the_job_of_an_emptied_group_goes_with_its_runs(world: World, nomad: NomadSimulator) -> None:
    work = Submitting(world, nomad.url)
    group = world.make_group(0)
    work.runner.run(group.id)
    job_id = work.job_id(group)
    assert wait_for(lambda: statuses(work, job_id) == ["dead"], seconds=10)
    world.delete(group)
    world.settle()
    work.runner.run(group.id)
    assert work.job(job_id) is None
    assert work.nomad.children(job_id) == []
    assert work.job_id(group) is None
    assert work.told(group)[-1] == ("TSG_JOB_REMOVE", f"job {job_id} was removed")


def test_a_run_under_way_is_let_finish_before_the_job_is_forgotten(world: World, nomad: NomadSimulator, tmp_path: Path) -> None:
    done = tmp_path / "done"
    program = tmp_path / "scale"
    program.write_text(f"#!/bin/sh\nwhile [ ! -e {done} ]; do sleep 0.05; done\n")
    program.chmod(0o755)
    work = Submitting(world, nomad.url, SHAPE._replace(command=str(program)))
    group = world.make_group(0)
    work.runner.run(group.id)
    job_id = work.job_id(group)
    assert wait_for(lambda: statuses(work, job_id) == ["running"], seconds=10)
    world.delete(group)
    world.settle()
    work.runner.run(group.id)
    assert work.job(job_id) is None, "it starts no more runs"
    assert statuses(work, job_id) == ["running"]
    assert work.job_id(group) == job_id
    done.touch()
    assert wait_for(lambda: statuses(work, job_id) == ["dead"], seconds=10)
    work.runner.run(group.id)
    assert work.job_id(group) is None
    assert statuses(work, job_id) == []


def test_a_group_of_a_reused_name_has_a_job_of_its_own(world: World, nomad: NomadSimulator) -> None:
    work = Submitting(world, nomad.url)
    old = world.make_group(0, name="phoenix")
    work.runner.run(old.id)
    world.delete(old)
    new = world.make_group(0, name="phoenix")
    work.runner.run(new.id)
    assert work.job_id(new) == f"{work.job_id(old)}_{new.id[:8]}"
    assert work.job(work.job_id(new))["Meta"]["group_id"] == new.id
    assert work.job(work.job_id(old))["Meta"]["group_id"] == old.id


def test_a_refused_token_is_told_once_and_tried_again_later(world: World) -> None:
    with NomadSimulator(token="secret") as nomad:
        work = Submitting(world, nomad.url, token="wrong")
        group = world.make_group(1)
        work.runner.run(group.id)
        work.runner.run(group.id)
        ((kind, description),) = work.told(group)
        assert kind == "TSG_JOB_SUBMIT_ERROR"
        assert "403" in description
        assert "Permission denied" in description
        assert "wrong" not in description
        assert tuple(work.row(group)) == (0, 1, 2, True)
        with pytest.raises(Denied):
            work.nomad.validate({"ID": "x"})
        Submitting(world, nomad.url, token="secret").runner.run(group.id)
        assert tuple(work.row(group)) == (1, 1, 0, True)


def test_an_invalid_job_is_told_in_nomads_words(world: World, nomad: NomadSimulator) -> None:
    work = Submitting(world, nomad.url, SHAPE._replace(datacenter=""))
    group = world.make_group(1)
    nomad.knobs.turn({"refuse_validate": "Task group scale validation failed"})
    work.runner.run(group.id)
    assert work.told(group) == [("TSG_JOB_SUBMIT_ERROR", "Task group scale validation failed; Job datacenter must be non-empty string")]
    assert work.job(work.job_id(group)) is None


def test_a_datacenter_without_a_node_is_told(world: World, nomad: NomadSimulator) -> None:
    work = Submitting(world, nomad.url, SHAPE._replace(datacenter="mars"))
    group = world.make_group(1)
    work.runner.run(group.id)
    assert ("TSG_JOB_SUBMIT_ERROR", "Nomad has no node for the job: no node in datacenter mars") in work.told(group)
    assert tuple(work.row(group)) == (1, 1, 0, True)


def passed(work: Submitting, group: Group, seconds: int) -> None:
    """So much time has passed since a run was started, and since the last one came."""
    earlier = ", ".join(f"{column} = {column} - interval '{seconds} s'" for column in ("job_forced_at", "job_ran_at"))
    work.world.sql(f"UPDATE tsg_group_state SET {earlier} WHERE group_id = :id", id=group.id)


def came(world: World, group: Group) -> None:
    with world.db.read() as connection:
        jobs.mark_run(connection, group.id)


def error(world: World, group: Group) -> str | None:
    """What is wrong with the job: the same in the group's status, among all jobs, and in what is counted."""
    with world.db.read() as connection:
        of_group = status.find(connection, group.id)
        (job,) = [job for job in overview.list_jobs(connection, limit=10_000) if job.group_id == group.id]
        assert of_group is not None
        assert of_group.last_error == job.error
        assert (jobs.count_failing(connection) > 0) or job.error is None
    return job.error


def is_a_workers(world: World, group: Group) -> bool:
    """Is the group told to workers at once, though Nomad would have a minute?"""
    world.sql("UPDATE tsg_group_state SET check_at = now() WHERE group_id = :id", id=group.id)
    with world.db.read() as connection:
        return world.account.id in leases.claim_due(connection, limit=100_000, late=60)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("/nowhere/tsg-scale", 'Driver Failure: .*binary "/nowhere/tsg-scale" could not be found'),
        ("/bin/false", "Terminated: Exit Code: 1"),
    ],
)
def test_a_run_that_fails_is_told_and_workers_take_over(world: World, nomad: NomadSimulator, command: str, why: str) -> None:
    work = Submitting(world, nomad.url, SHAPE._replace(command=command))
    group = world.make_group(1)
    work.runner.run(group.id)
    assert wait_for(lambda: statuses(work, work.job_id(group)) == ["dead"], seconds=10)
    work.runner.run(group.id)
    assert error(world, group) is None, "the run has its ten seconds to come to the group"
    passed(work, group, 11)
    for _ in range(2):
        work.runner.run(group.id)
    told = error(world, group)
    assert re.fullmatch(f"Nomad could not run the job: {why}", told or ""), told
    assert work.told(group)[1:] == [("TSG_JOB_RUN_ERROR", told)], "once"
    assert is_a_workers(world, group)
    came(world, group)
    assert error(world, group) is None
    assert not is_a_workers(world, group)
    work.runner.run(group.id)
    assert tuple(work.row(group)) == (1, 1, 0, True)


@pytest.mark.parametrize(
    ("changes", "fail_runs", "why"),
    [
        ({"artifact": "http://me:secret@127.0.0.1:9/tsg.tar.gz"}, None, "Failed Artifact Download: .*"),
        ({"driver": "exec", "command": "/opt/tsg/bin/tsg-scale"}, None, "Driver Failure: .*could not be found"),
        ({}, "Failed to pull `tsg:1`: no such host", "Driver Failure: Failed to pull `tsg:1`: no such host"),
    ],
)
def test_whatever_a_run_lacks_is_told(
    world: World, nomad: NomadSimulator, changes: dict[str, str], fail_runs: str | None, why: str
) -> None:
    nomad.knobs.turn({"fail_runs": fail_runs})
    work = Submitting(world, nomad.url, SHAPE._replace(**changes))
    group = world.make_group(1)
    work.runner.run(group.id)
    assert wait_for(lambda: statuses(work, work.job_id(group)) == ["dead"], seconds=10)
    passed(work, group, 11)
    work.runner.run(group.id)
    told = error(world, group) or ""
    assert re.fullmatch(f"Nomad could not run the job: {why}", told), told
    assert "secret" not in told


def test_a_run_that_came_and_did_not_settle_the_group_is_no_failure_of_nomad(world: World, nomad: NomadSimulator) -> None:
    work = Submitting(world, nomad.url, SHAPE._replace(command="/bin/false"))
    group = world.make_group(1)
    work.runner.run(group.id)
    came(world, group)
    passed(work, group, INTERVAL - 1)
    work.runner.run(group.id)
    assert error(world, group) is None


def test_runs_that_stop_coming_are_missed_after_an_interval(world: World, nomad: NomadSimulator) -> None:
    work = Submitting(world, nomad.url)
    group = world.make_group(1)
    work.runner.run(group.id)
    came(world, group)
    passed(work, group, INTERVAL + 15)
    work.runner.run(group.id)
    assert error(world, group) is None, "the newest may have been started this moment"
    passed(work, group, 60)
    work.runner.run(group.id)
    assert re.fullmatch(r"no run of the job has come to the group for \d+ s: the newest is dead", error(world, group) or "")


def test_a_job_that_nomad_never_runs_is_told(world: World, nomad: NomadSimulator) -> None:
    nomad.knobs.turn({"lose_runs": True})
    work = Submitting(world, nomad.url)
    group = world.make_group(1)
    work.runner.run(group.id)
    passed(work, group, 61)
    work.runner.run(group.id)
    assert re.fullmatch(r"no run of the job has come to the group for \d+ s: Nomad has started none", error(world, group) or "")


def test_without_a_node_of_the_role_workers_take_over_at_once(world: World, nomad: NomadSimulator) -> None:
    work = Submitting(world, nomad.url, SHAPE._replace(role="nobody's"))
    group = world.make_group(1)
    work.runner.run(group.id)
    no_node = "Nomad has no node for the job: 1 filtered by ${meta.role} = nobody's"
    assert error(world, group) == no_node
    assert is_a_workers(world, group)
    passed(work, group, 11)
    work.runner.run(group.id)
    assert error(world, group) == no_node
    assert [kind for kind, _ in work.told(group)] == ["TSG_JOB_SUBMIT", "TSG_JOB_SUBMIT_ERROR"]


def test_a_job_from_before_runs_were_noted_is_counted_from_its_next_look(world: World, nomad: NomadSimulator) -> None:
    work = Submitting(world, nomad.url)
    group = world.make_group(1)
    work.runner.run(group.id)
    world.sql("UPDATE tsg_group_state SET job_forced_at = NULL WHERE group_id = :id", id=group.id)
    work.runner.run(group.id)
    passed(work, group, 61)
    work.runner.run(group.id)
    assert error(world, group) is not None


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ('download "https://me:secret@example.com/tsg.tar.gz?key=secret": 404', 'download "https://example.com/tsg.tar.gz": 404'),
        ("s3::https://example.com/tsg?aws_access_key_secret=secret failed", "s3::https://example.com/tsg failed"),
        ("Exit Code: 2", "Exit Code: 2"),
    ],
)
def test_no_credential_of_an_artifact_is_told(told: str, kept: str) -> None:
    assert _without_credentials(told) == kept


def test_a_nomad_that_is_away_or_leaderless_is_waited_for(world: World, nomad: NomadSimulator) -> None:
    away = Submitting(world, f"http://127.0.0.1:{free_port()}")
    group = world.make_group(1)
    away.runner.run(group.id)
    assert tuple(away.row(group)) == (0, 1, 1, True)
    assert (error(world, group) or "").startswith("Nomad can't be reached: ConnectionError")
    assert is_a_workers(world, group)
    work = Submitting(world, nomad.url)
    nomad.knobs.turn({"no_leader": True})
    with pytest.raises(Unavailable):
        work.nomad.leader()
    work.runner.run(group.id)
    assert tuple(work.row(group)) == (0, 1, 2, True)
    nomad.knobs.turn({"no_leader": False})
    back = Submitting(world, nomad.url)
    back.runner.run(group.id)
    assert tuple(back.row(group)) == (1, 1, 0, True)


def test_one_finds_a_nomad_away_for_all_and_each_is_tried_again_within_a_minute(world: World, nomad: NomadSimulator) -> None:
    groups = [world.make_group(1) for _ in range(5)]
    with world.db.read() as connection:
        jobs.insert_missing(connection)
    world.sql("UPDATE tsg_work SET failures = 12 WHERE kind = 'nomad_job'")
    nomad.knobs.turn({"no_leader": True})
    work = Submitting(world, nomad.url)
    for group in groups:
        work.runner.run(group.id)
    assert nomad.cluster.counters.to_json()["requests"] == 1
    rows = world.sql(
        "SELECT failures, due_at - now() FROM tsg_work WHERE kind = 'nomad_job' AND subject IN"
        " (SELECT group_id FROM tsg_group_state WHERE account_id = :id)",
        id=world.account.id,
    )
    assert [failures for failures, _ in rows] == [13] * 5
    assert all(timedelta(seconds=25) < wait <= timedelta(seconds=60) for _, wait in rows)


def test_two_at_once_are_one(world: World, nomad: NomadSimulator) -> None:
    work = Submitting(world, nomad.url)
    group = world.make_group(1)
    with world.db.read() as connection:
        assert claim(connection, NOMAD_JOB, group.id, owner="another", seconds=10) is not None
    work.runner.run(group.id)
    assert work.job_id(group) is None, "another has the group's job in hand"


def test_a_submission_that_was_overtaken_does_not_bring_a_removed_job_back(world: World, nomad: NomadSimulator) -> None:
    """As where Nomad keeps one actor waiting for longer than its claim holds."""
    group = world.make_group(0)
    work = Submitting(world, nomad.url)
    work.runner.run(group.id)
    job_id = work.job_id(group)
    came(world, group)
    world.resize(group, 1)

    class Slow(Nomad):
        def plan(self, job: Any) -> Any:
            planned = super().plan(job)
            world.delete(group)
            world.settle()
            world.sql("UPDATE tsg_work SET until = now() - interval '1 second' WHERE subject = :id", id=group.id)
            assert wait_for(lambda: "running" not in statuses(work, job_id), seconds=10)
            work.runner.run(group.id)
            assert work.job(job_id) is None
            return planned

    slow = NomadJobReconciler(world.db, Slow(NomadAccess(nomad.url)), SHAPE, grace=60, actor="slow")
    Runner(world.db, slow, owner="slow").run(group.id)
    assert work.job(job_id) is None
    assert work.job_id(group) is None
    assert [kind for kind, _ in work.told(group)] == ["TSG_JOB_SUBMIT", "TSG_JOB_REMOVE"]


def test_something_else_at_nomads_address_is_told_and_waited_for(world: World, nomad: NomadSimulator) -> None:
    group = world.make_group(1)
    with http.server.HTTPServer(("127.0.0.1", 0), SignIn) as server:
        server.timeout = 20
        elsewhere = Submitting(world, f"http://127.0.0.1:{server.server_port}")
        with ThreadPoolExecutor(1) as pool:
            answered = pool.submit(server.handle_request)
            elsewhere.runner.run(group.id)
            answered.result()
    assert [description for _, description in elsewhere.told(group)] == ["Nomad answered something that is not JSON: is this its address?"]
    assert elsewhere.row(group).failures == 1
    Submitting(world, nomad.url).runner.run(group.id)
    assert elsewhere.row(group).job_generation == 1


class Flood(http.server.BaseHTTPRequestHandler):
    """Answers with more than is asked for."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'"' + b" " * 1_000_000)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_an_answer_of_nomad_is_kept_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nomad_client, "MAX_ANSWER_BYTES", 100_000)
    with http.server.HTTPServer(("127.0.0.1", 0), Flood) as server, ThreadPoolExecutor(1) as pool:
        server.timeout = 20
        pool.submit(server.handle_request)
        with pytest.raises(Unavailable, match="more than 100000 bytes"):
            Nomad(NomadAccess(f"http://127.0.0.1:{server.server_port}")).leader()


def test_unknown_jobs_are_refused_where_they_must_be_and_gone_where_they_may(nomad: NomadSimulator) -> None:
    client = Nomad(NomadAccess(nomad.url))
    assert client.children("nobody's") == []
    client.deregister("nobody's")
    with pytest.raises(Rejected, match="not found"):
        client.force("nobody's")
    client.close()
