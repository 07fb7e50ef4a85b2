"""The Nomad simulator, over real HTTP and with real processes."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from dev.sim.common.wanted import Unwanted
from dev.sim.nomad.simulator import Simulator

ROOT = Path(__file__).parents[2]
SECOND = 1_000_000_000
#: A minute that a `*/2` schedule meets.
NOON = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC).timestamp()
NEVER = "0 0 1 1 *"


def a_job(job_id="g1", *, script="true", spec=NEVER, driver="raw_exec", command="/bin/sh", **fields):
    """What the service submits for a group."""
    task = {"Name": "scale", "Driver": driver, "Config": {"command": command, "args": ["-c", script]}}
    return {
        "ID": job_id,
        "Type": "batch",
        "Datacenters": ["us-east-1"],
        "Periodic": {"Spec": spec, "ProhibitOverlap": True, "TimeZone": "UTC"},
        "Constraints": [
            {"Operand": "distinct_hosts", "RTarget": "true"},
            {"LTarget": "${meta.role}", "Operand": "=", "RTarget": "automater"},
        ],
        "TaskGroups": [{"Name": "scale", "Tasks": [task]}],
    } | fields


def with_task(job, **fields):
    (group,) = job["TaskGroups"]
    return job | {"TaskGroups": [group | {"Tasks": [group["Tasks"][0] | fields]}]}


@dataclass
class Client:
    """Somebody who speaks to Nomad, and may look at the simulator to know when something has happened."""

    sim: Simulator
    token: str | None = None

    def call(self, method, path, body=None, **kwargs):
        headers = {"X-Nomad-Token": self.token} if self.token else {}
        return requests.request(method, self.sim.url + path, json=body, headers=headers, timeout=kwargs.pop("timeout", 10), **kwargs)

    def ok(self, method, path, body=None):
        answer = self.call(method, path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def register(self, job):
        return self.ok("PUT", "/v1/jobs", {"Job": job})["JobModifyIndex"]

    def force(self, job_id="g1"):
        return self.call("PUT", f"/v1/job/{quote(job_id, safe='')}/periodic/force")

    def run(self, job):
        """Registered and forced: the child's id."""
        self.register(job)
        before = set(self.children(job["ID"]))
        assert self.force(job["ID"]).status_code == 200
        (child,) = set(self.children(job["ID"])) - before
        return child

    def listed(self, prefix=""):
        return self.ok("GET", f"/v1/jobs?prefix={quote(prefix)}")

    def children(self, job_id="g1"):
        return [row["ID"] for row in self.listed(job_id) if row["ParentID"] == job_id]

    def status(self, child):
        (row,) = self.listed(child)
        return row["Status"]

    def delete(self, job_id, query="?purge=true"):
        return self.call("DELETE", f"/v1/job/{quote(job_id, safe='')}{query}")

    def allocations(self, job_id):
        return self.ok("GET", f"/v1/job/{quote(job_id, safe='')}/allocations?all=true")

    def ended(self, child):
        """The one allocation of a run, once it has ended."""
        cluster = self.sim.cluster
        assert cluster.wait_until(lambda: cluster.runs[child].over, seconds=20)
        (row,) = self.allocations(child)
        return row

    def advance(self, seconds):
        self.ok("POST", "/--sim/clock/advance", {"seconds": seconds})

    def counted(self, job_id="g1"):
        return self.ok("GET", "/--sim/counters")["by_job"][job_id]


@pytest.fixture
def sim():
    """A cluster whose time stands still until the test moves it."""
    with Simulator(now=lambda: NOON, node_env={"TSG_URL": "http://tsg"}) as simulator:
        yield simulator


@pytest.fixture
def nomad(sim):
    return Client(sim)


@pytest.fixture
def wire(tmp_path):
    """A pipe by name: what a task writes to it can be waited for, and so can the task's end."""
    os.mkfifo(tmp_path / "wire")
    fd = os.open(tmp_path / "wire", os.O_RDONLY | os.O_NONBLOCK)
    yield Wire(tmp_path / "wire", fd)
    os.close(fd)


@dataclass
class Wire:
    path: Path
    fd: int

    def __str__(self):
        return str(self.path)

    def heard(self):
        """The next bytes; empty when everybody who held the other end is gone."""
        ready, _, _ = select.select([self.fd], [], [], 20)
        assert ready, "nothing was written, and somebody still could"
        return os.read(self.fd, 1000).decode()

    def waiting(self, more=""):
        """A script that says `up` and then waits for ever."""
        return f"exec 3>{self.path}; {more} echo up >&3; while :; do sleep 0.05; done"


def told(allocation):
    """The events of the task: what happened, and in which words."""
    return [(event["Type"], event["DisplayMessage"]) for event in allocation["TaskStates"]["scale"]["Events"]]


# Jobs


@pytest.mark.parametrize(
    ("job", "error"),
    [
        (a_job(""), "Missing job ID"),
        (a_job("a b"), "Job ID contains a space"),
        (a_job(Type="service"), 'Invalid job type: "service"'),
        (a_job(Datacenters=[]), "Missing job datacenters"),
        (a_job(Datacenters=[""]), "Job datacenter must be non-empty string"),
        (a_job(TaskGroups=[]), "Missing job task groups"),
        (a_job(driver=""), "Missing task driver"),
        (a_job(command=""), "Missing required argument: command"),
        (a_job(spec="* * *"), 'Invalid cron spec "* * *"'),
        (a_job(Periodic=None), "Invalid cron spec"),
    ],
)
def test_an_invalid_job_is_told_of_with_200_by_validate_and_500_by_register(nomad, job, error):
    (told,) = nomad.ok("PUT", "/v1/validate/job", {"Job": job})["ValidationErrors"]
    assert told.startswith(error)
    answer = nomad.call("PUT", "/v1/jobs", {"Job": job})
    assert (answer.status_code, error in answer.text) == (500, True)
    assert nomad.listed() == []


def test_a_valid_job_is_kept_as_it_is_and_changed_in_place(nomad, wire):
    assert nomad.ok("PUT", "/v1/validate/job", {"Job": a_job()})["ValidationErrors"] is None
    child = nomad.run(a_job(script=wire.waiting()))
    assert wire.heard() == "up\n"
    first = nomad.ok("GET", "/v1/job/g1")
    assert nomad.register(a_job(script=wire.waiting())) == first["JobModifyIndex"], "an identical one changes nothing"
    assert nomad.register(first) == first["JobModifyIndex"], "nor one as it was read"
    assert nomad.register(a_job()) > first["JobModifyIndex"]
    assert nomad.status(child) == "running", "a run under way goes on"
    assert nomad.counted() == {"registers": 4, "changes": 2, "forces": 1, "launches": 0, "skips": 0, "deregisters": 0}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/validate/job", "/v1/job/g1/plan"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"Job": null}', b'{"Job": 7}'])
def test_a_body_that_is_no_request_is_a_400_in_plain_text(nomad, path, body):
    answer = requests.put(nomad.sim.url + path, data=body, timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "text/plain; charset=utf-8")


@pytest.mark.parametrize("job_id", ["we/ird", "ünï", 'q"uote', "g_d82a1f04-b9f6-4075-998f-af20e3d49de6"])
def test_a_job_is_found_by_its_encoded_id(nomad, job_id):
    nomad.register(a_job(job_id))
    assert nomad.ok("GET", f"/v1/job/{quote(job_id, safe='')}")["ID"] == job_id


def test_what_is_not_there(nomad):
    assert nomad.call("GET", "/v1/job/none").status_code == 404
    assert (nomad.force("none").status_code, nomad.force("none").text) == (500, "job not found")
    assert nomad.delete("none").status_code == 200
    assert nomad.allocations("none") == []
    assert nomad.delete("none", "").status_code == 400
    assert nomad.call("POST", "/v1/job/none").status_code == 405


# Runs


def test_a_task_finds_its_nodes_environment_and_nomads_and_its_child_stays_listed(nomad, monkeypatch, wire):
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    names = '"$TSG_URL|$NOMAD_JOB_PARENT_ID|${NOMAD_ALLOC_ID:+an id}|$SECRET_OF_OURS|$OWN"'
    child = nomad.run(with_task(a_job(script=f"echo {names} >{wire}"), Env={"OWN": "mine"}))
    assert wire.heard() == "http://tsg|g1|an id||mine\n"
    assert nomad.ended(child)["ClientStatus"] == "complete"
    assert nomad.status(child) == "dead"
    assert child == f"g1/periodic-{NOON:.0f}"


@pytest.mark.parametrize(
    ("job", "event"),
    [
        (a_job(script="exit 3"), ("Terminated", "Exit Code: 3")),
        (a_job(script="kill -9 $$"), ("Terminated", "Exit Code: 137")),
        (a_job(command="/nowhere/tsg-scale"), ("Driver Failure", '.*binary "/nowhere/tsg-scale" could not be found')),
        (
            a_job(driver="exec", command=sys.executable),
            None if sys.executable.startswith("/usr/") else ("Driver Failure", ".*not be found"),
        ),
        (
            with_task(a_job(), Artifacts=[{"GetterSource": "http://127.0.0.1:9/x"}]),
            ("Failed Artifact Download", "failed to .*127.0.0.1:9/x.*"),
        ),
    ],
)
def test_a_run_that_fails_tells_how(nomad, job, event):
    row = nomad.ended(nomad.run(job))
    if event is not None:
        assert (row["ClientStatus"], row["TaskStates"]["scale"]["Failed"]) == ("failed", True)
        *_, (kind, message), last = told(row)
        assert kind == event[0]
        assert re.fullmatch(event[1], message, re.DOTALL)
        assert last == ("Not Restarting", "Policy allows no restarts")


def test_what_a_task_left_running_ends_with_it(nomad, wire):
    child = nomad.run(a_job(script=f"exec 3>{wire}; sleep 1000 & echo up >&3"))
    assert wire.heard() == "up\n"
    assert nomad.ended(child)["ClientStatus"] == "complete"
    assert wire.heard() == ""


def test_a_purged_parent_is_gone_and_its_running_child_is_not(nomad, wire):
    child = nomad.run(a_job(script=wire.waiting(more="trap 'echo bye >&3; exit' INT;")))
    assert wire.heard() == "up\n"
    nomad.delete("g1")
    assert [row["ID"] for row in nomad.listed()] == [child]
    nomad.delete(child)
    assert nomad.listed() == []
    assert wire.heard() == "bye\n"


def test_a_child_that_does_not_listen_is_killed_after_its_kill_timeout(nomad, wire):
    child = nomad.run(with_task(a_job(script=wire.waiting(more="trap '' INT;")), KillTimeout=SECOND // 10))
    assert wire.heard() == "up\n"
    nomad.delete(child)
    assert wire.heard() == ""


@pytest.mark.parametrize(
    ("job", "available", "filtered"),
    [
        (a_job(Datacenters=["mars"]), {"mars": 0}, None),
        (a_job(Constraints=[{"LTarget": "${meta.role}", "Operand": "=", "RTarget": "x"}]), {"us-east-1": 1}, {"${meta.role} = x": 1}),
        (a_job(driver="docker"), {"us-east-1": 1}, {"missing drivers": 1}),
    ],
)
def test_a_run_without_a_node_waits_and_holds_back_the_schedule(nomad, job, available, filtered):
    job["Periodic"]["Spec"] = "*/2 * * * *"
    metrics = nomad.ok("PUT", "/v1/job/g1/plan", {"Job": job, "Diff": False})["FailedTGAllocs"]["scale"]
    assert (metrics["NodesAvailable"], metrics["ConstraintFiltered"]) == (available, filtered)
    assert nomad.listed() == [], "a plan changes nothing"
    child = nomad.run(job)
    assert (nomad.status(child), nomad.allocations(child)) == ("pending", [])
    nomad.advance(120)
    assert nomad.counted()["skips"] == 1
    assert nomad.ok("PUT", "/v1/job/g1/plan", {"Job": a_job()})["FailedTGAllocs"] is None


# The schedule


def test_a_job_is_launched_when_its_time_has_come_and_not_before(nomad):
    nomad.register(a_job(spec="*/2 * * * *"))
    nomad.advance(119)
    assert nomad.children() == []
    nomad.advance(1)
    assert nomad.children() == [f"g1/periodic-{NOON + 120:.0f}"]
    nomad.ended(nomad.children()[0])
    nomad.advance(3600)
    assert len(nomad.children()) == 2, "a long pause is made good by one launch"


def test_a_launch_is_skipped_while_a_child_runs_and_a_force_is_not(nomad, wire):
    nomad.run(a_job(script=wire.waiting(), spec="*/2 * * * *"))
    assert wire.heard() == "up\n"
    nomad.advance(120)
    assert (nomad.counted()["skips"], nomad.counted()["launches"]) == (1, 0)
    nomad.force()
    assert len(nomad.children()) == 2


@pytest.mark.parametrize(("spec", "seconds"), [("15-59/20 * * * * * *", 15), ("30 12 * * * 2026", 1800), ("0 13 * * *", 3600)])
def test_a_line_has_5_fields_or_6_with_the_year_or_7_with_the_seconds(nomad, spec, seconds):
    nomad.register(a_job(spec=spec))
    nomad.advance(seconds - 1)
    assert nomad.children() == []
    nomad.advance(1)
    assert len(nomad.children()) == 1


def test_a_run_that_has_been_over_for_hours_is_forgotten(nomad):
    child = nomad.run(a_job(spec="*/2 * * * *"))
    nomad.ended(child)
    nomad.advance(5 * 3600)
    assert child not in nomad.children()


def test_the_clock_itself_launches_without_being_told():
    with Simulator() as sim:
        Client(sim).register(a_job(spec="* * * * * * *"))
        assert sim.cluster.wait_until(lambda: bool(sim.cluster.runs), seconds=20)


# Knobs


def test_runs_fail_or_get_lost_as_the_knobs_say(nomad):
    nomad.sim.knobs.turn({"fail_runs": "no such image"})
    row = nomad.ended(nomad.run(a_job()))
    assert told(row)[-2] == ("Driver Failure", "no such image")
    nomad.sim.knobs.turn({"fail_runs": None, "lose_runs": True})
    assert nomad.force().status_code == 200
    assert len(nomad.children()) == 1


def test_a_token_is_asked_for_everywhere_but_of_who_asks_for_the_leader():
    with Simulator(token="secret") as sim:
        stranger, friend = Client(sim), Client(sim, "secret")
        assert stranger.call("GET", "/v1/jobs").status_code == 403
        assert stranger.ok("GET", "/v1/status/leader") == "127.0.0.1:4647"
        assert friend.listed() == []


def test_without_a_leader_nothing_is_done_and_nothing_launched(nomad):
    nomad.register(a_job(spec="*/2 * * * *"))
    nomad.sim.knobs.turn({"no_leader": True})
    for path in ("/v1/jobs", "/v1/status/leader"):
        answer = nomad.call("GET", path)
        assert (answer.status_code, answer.text) == (500, "No cluster leader")
    nomad.advance(600)
    nomad.sim.knobs.turn({"no_leader": False})
    nomad.advance(1)
    assert len(nomad.children()) == 1


def test_down_closes_every_connection(nomad):
    nomad.sim.knobs.turn({"down": True})
    with pytest.raises(requests.ConnectionError):
        nomad.call("GET", "/v1/jobs")


def test_a_share_of_the_calls_fails_and_has_done_nothing(nomad):
    nomad.sim.knobs.turn({"error_share": 1.0, "error_endpoints": ["RegisterJob"], "error_status": 503})
    assert nomad.call("PUT", "/v1/jobs", {"Job": a_job()}).status_code == 503
    assert nomad.listed() == []


def test_a_hanging_call_has_done_its_deed(nomad):
    nomad.sim.knobs.turn({"hang_seconds": 30.0, "hang_endpoints": ["RegisterJob"]})
    with pytest.raises(requests.ReadTimeout):
        nomad.call("PUT", "/v1/jobs", {"Job": a_job()}, timeout=0.5)
    assert [row["ID"] for row in nomad.listed()] == ["g1"]


def test_every_job_is_invalid_for_the_reason_that_was_set(nomad):
    nomad.ok("PATCH", "/--sim/knobs", {"refuse_validate": "not today"})
    assert nomad.ok("PUT", "/v1/validate/job", {"Job": a_job()})["ValidationErrors"] == ["not today"]
    with pytest.raises(Unwanted, match="is not a knob"):
        nomad.sim.knobs.turn({"nothing": 1})


def test_the_state_shows_jobs_and_runs(nomad):
    child = nomad.run(a_job())
    nomad.ended(child)
    state = nomad.ok("GET", "/--sim/state")
    assert [job["ID"] for job in state["jobs"]] == ["g1"]
    assert [(row["JobID"], row["ClientStatus"]) for row in state["allocations"]] == [(child, "complete")]


def test_a_launch_that_was_missed_while_it_was_gone_is_made_good(tmp_path):
    with Simulator(now=lambda: NOON, state=tmp_path / "state") as sim:
        Client(sim).register(a_job(spec="*/2 * * * *"))
    with Simulator(now=lambda: NOON + 3600, state=tmp_path / "state") as sim:
        assert sim.cluster.wait_until(lambda: len(sim.cluster.runs) == 1)


# The program


@contextlib.contextmanager
def program(*args):
    command = [sys.executable, "-m", "dev.sim.nomad", *args]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().removeprefix("nomad simulator listening on ").strip()
        finally:
            process.kill()


def ask(url, method, path, body=None):
    answer = requests.request(method, url + path, json=body, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_program_says_where_it_listens_runs_tasks_and_stops_cleanly(tmp_path, wire):
    (tmp_path / "node.env").write_text("# the node's\n\nGREETING=hello = you\n")
    args = ("--datacenter", "eu-1", "--role", "x", "--node-env", str(tmp_path / "node.env"))
    with program(*args) as (process, url):
        job = a_job(script=wire.waiting(more='echo "$GREETING" >&3;'), Datacenters=["eu-1"], Constraints=None)
        ask(url, "PUT", "/v1/jobs", {"Job": job})
        ask(url, "PUT", "/v1/job/g1/periodic/force")
        assert wire.heard().startswith("hello = you\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    while wire.heard():
        pass


def test_a_task_does_not_outlive_a_simulator_that_was_killed_and_jobs_do(tmp_path, wire):
    state = str(tmp_path / "state")
    with program("--state", state) as (process, url):
        ask(url, "PUT", "/v1/jobs", {"Job": a_job(script=wire.waiting())})
        ask(url, "PUT", "/v1/job/g1/periodic/force")
        assert wire.heard() == "up\n"
        process.kill()
        assert wire.heard() == ""
    with program("--state", state) as (_, url):
        (parent, child) = ask(url, "GET", "/v1/jobs")
        assert (parent["Status"], child["Status"]) == ("running", "dead")
        (row,) = ask(url, "GET", f"/v1/job/{quote(child['ID'], safe='')}/allocations")
        assert row["ClientStatus"] == "lost"


def test_a_node_environment_that_can_not_be_read_ends_the_program(tmp_path):
    (tmp_path / "bad").write_text("no equals sign\n")
    for name in ("bad", "absent"):
        command = [sys.executable, "-m", "dev.sim.nomad", "--node-env", str(tmp_path / name)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
        assert result.returncode == 1
        assert f"--node-env {tmp_path / name}" in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_other_loopback_addresses_will_do(host):
    with Simulator(host) as simulator:
        assert requests.get(simulator.url + "/v1/status/leader", timeout=5).status_code == 200


def test_two_simulators_do_not_share_a_port(sim):
    with pytest.raises(OSError, match="in use"):
        Simulator(port=int(sim.url.rpartition(":")[2]))
