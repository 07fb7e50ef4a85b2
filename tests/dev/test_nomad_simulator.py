"""The Nomad simulator, over real HTTP and with real processes, held against what was measured of a real agent."""

import base64
import contextlib
import os
import select
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
import requests

from dev.sim.common.wanted import Unwanted
from dev.sim.nomad.cron import Cron, CronError
from dev.sim.nomad.knobs import Knobs
from dev.sim.nomad.simulator import Simulator
from dev.sim.nomad.validate import duration

ROOT = Path(__file__).parents[2]
SECOND = 1_000_000_000
#: A minute that a `*/2` schedule meets.
NOON = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC).timestamp()
NEVER = "0 0 1 1 * 2099"
NO_ONE = "00000000-0000-0000-0000-000000000000"


def a_job(job_id="g1", *, script="true", spec=NEVER, **fields):
    """What a service-groups server submits for a group."""
    return {
        "ID": job_id,
        "Type": "batch",
        "Datacenters": ["us-east-1"],
        "Periodic": {"Spec": spec, "ProhibitOverlap": True},
        "Constraints": [
            {"Operand": "distinct_hosts", "RTarget": "true"},
            {"LTarget": "${meta.role}", "Operand": "=", "RTarget": "automater"},
        ],
        "TaskGroups": [
            {
                "Name": "scale",
                "RestartPolicy": {"Attempts": 0, "Interval": 60 * SECOND, "Delay": 0, "Mode": "fail"},
                "ReschedulePolicy": {"Attempts": 0},
                "Tasks": [
                    {
                        "Name": "healthy",
                        "Driver": "raw_exec",
                        "Config": {"command": "/bin/sh", "args": ["-c", script]},
                        "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1},
                    }
                ],
            }
        ],
    } | fields


def with_group(job, **fields):
    return job | {"TaskGroups": [job["TaskGroups"][0] | fields]}


def with_task(job, **fields):
    return with_group(job, Tasks=[job["TaskGroups"][0]["Tasks"][0] | fields])


@dataclass
class Client:
    """Somebody who speaks to Nomad, and may look at the simulator to know when something has happened."""

    sim: Simulator
    token: str | None = None

    def call(self, method, path, body=None, **kwargs):
        headers = {"X-Nomad-Token": self.token} if self.token else {}
        return requests.request(method, self.sim.url + path, json=body, headers=headers, timeout=kwargs.pop("timeout", 10), **kwargs)

    def get(self, path, **kwargs):
        return self.call("GET", path, **kwargs)

    def put(self, path, body=None, **kwargs):
        return self.call("PUT", path, body, **kwargs)

    def register(self, job, **fields):
        return self.put("/v1/jobs", {"Job": job} | fields)

    def registered(self, job, **fields):
        answer = self.register(job, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()["JobModifyIndex"]

    def validation_errors(self, job):
        answer = self.put("/v1/validate/job", {"Job": job})
        assert answer.status_code == 200, answer.text
        return answer.json()["ValidationErrors"]

    def force(self, job_id="g1"):
        return self.put(f"/v1/job/{quote(job_id, safe='')}/periodic/force")

    def forced(self, job_id="g1"):
        """The id of the child."""
        before = set(self.children(job_id))
        answer = self.force(job_id)
        assert answer.status_code == 200, answer.text
        (child,) = set(self.children(job_id)) - before
        return child

    def runs(self, job):
        """Registered and forced: the child's id."""
        self.registered(job)
        return self.forced(job["ID"])

    def listed(self, prefix=""):
        return self.get(f"/v1/jobs?prefix={quote(prefix)}").json()

    def children(self, job_id="g1"):
        return [row["ID"] for row in self.listed(job_id) if row["ParentID"] == job_id]

    def job(self, job_id):
        return self.get(f"/v1/job/{quote(job_id, safe='')}").json()

    def delete(self, job_id, query="?purge=true"):
        return self.call("DELETE", f"/v1/job/{quote(job_id, safe='')}{query}")

    def allocations(self, job_id):
        return self.get(f"/v1/job/{quote(job_id, safe='')}/allocations?all=true").json()

    def allocation(self, job_id, *states):
        """The one allocation, once it is in one of these states."""
        cluster = self.sim.cluster
        wanted = states or ("complete", "failed", "lost")
        assert cluster.wait_until(lambda: any(row["ClientStatus"] in wanted for row in cluster.list_allocations(job_id)), seconds=20)
        (row,) = self.allocations(job_id)
        return row

    def task(self, job_id, *states):
        return self.allocation(job_id, *states)["TaskStates"]["healthy"]

    def output(self, job_id, kind="stdout"):
        row = self.allocation(job_id)
        return self.get(f"/v1/client/fs/logs/{row['ID']}?task=healthy&type={kind}&plain=true").text

    def status(self, job_id):
        return self.job(job_id)["Status"]


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


def event_kinds(task):
    return [event["Type"] for event in task["Events"]]


# Validate and register


def test_a_valid_job_has_no_validation_errors(nomad):
    assert nomad.put("/v1/validate/job", {"Job": a_job()}).json() == {
        "DriverConfigValidated": True,
        "Error": "",
        "ValidationErrors": None,
        "Warnings": "",
    }


@pytest.mark.parametrize(
    ("job", "error"),
    [
        (a_job("a b"), "Job ID contains a space"),
        (a_job("a\0b"), "Job ID contains a null character"),
        (a_job(""), "Missing job ID"),
        (a_job(Datacenters=[]), "Missing job datacenters"),
        (a_job(Datacenters=[""]), "Job datacenter must be non-empty string"),
        (a_job(Priority=101), "Job priority must be between [1, 100]"),
        (a_job(Type="service"), 'Periodic can only be used with "batch" scheduler'),
        (a_job(TaskGroups=[]), "Missing job task groups"),
        (a_job(spec="* * *"), 'Invalid cron spec "* * *": missing field(s)'),
        (a_job(Periodic={"Spec": "* * * * *", "TimeZone": "Mars/X"}), 'Invalid time zone "Mars/X": unknown time zone Mars/X'),
        (a_job(Constraints=[{"LTarget": "a", "Operand": "~", "RTarget": "b"}]), 'Unknown constraint type "~"'),
        (with_group(a_job(), Tasks=[]), "Missing tasks for task group"),
        (with_group(a_job(), RestartPolicy={"Mode": "delay", "Attempts": 0}), 'Restart policy "delay" with 0 attempts is ambiguous'),
        (with_task(a_job(), Name="a/b"), "Task name cannot include slashes"),
        (with_task(a_job(), Driver=""), "Missing task driver"),
        (with_task(a_job(), Resources={"CPU": 0}), "minimum CPU value is 1; got 0"),
        (with_task(a_job(), LogConfig={}, KillTimeout=-1), "KillTimeout must be a positive value"),
    ],
)
def test_an_invalid_job_is_told_of_with_200_by_validate_and_500_by_register(nomad, job, error):
    errors = nomad.validation_errors(job)
    assert error in "\n".join(errors)
    answer = nomad.register(job)
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, "text/plain; charset=utf-8")
    assert error in answer.text
    assert "occurred:\n\t* " in answer.text
    assert nomad.listed() == []


def test_a_disabled_schedule_is_not_looked_at(nomad):
    assert nomad.validation_errors(a_job(Periodic={"Enabled": False, "Spec": "nonsense"})) is None


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/validate/job", "/v1/job/g1/plan"])
@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{nope", "invalid character 'n' looking for beginning of object key string"),
        ("", "Request body is empty"),
        ("{}", "Job must be specified"),
        ('{"Job": {"ID": "g1", "Priority": "high"}}', "json: cannot unmarshal string into Go struct field Job.Job.Priority of type int"),
        (
            '{"Job": {"ID": "g1", "TaskGroups": [{"Tasks": [{"KillTimeout": "5s"}]}]}}',
            "json: cannot unmarshal string into Go struct field Task.Job.TaskGroups.Tasks.KillTimeout of type time.Duration",
        ),
    ],
)
def test_a_body_that_is_no_request_is_a_400_in_plain_text(nomad, path, body, text):
    answer = nomad.call("PUT", path, data=body)
    assert (answer.status_code, answer.text, answer.headers["Content-Type"]) == (400, text, "text/plain; charset=utf-8")


def test_an_identical_job_registered_again_changes_nothing(nomad):
    first = nomad.registered(a_job())
    assert nomad.registered(a_job()) == first
    assert nomad.registered(a_job(Priority=50)) == first  # the default, said aloud
    assert nomad.job("g1")["Version"] == 0
    counted = nomad.sim.cluster.counters.to_json()["by_job"]["g1"]
    assert (counted["registers"], counted["changes"]) == (3, 1)


def test_a_changed_job_is_updated_in_place_and_its_running_child_goes_on(nomad, wire):
    first = nomad.registered(a_job(script=wire.waiting()))
    child = nomad.forced()
    wire.heard()
    assert nomad.registered(a_job(script="true")) > first
    assert nomad.job("g1")["Version"] == 1
    assert nomad.allocation(child, "running")["DesiredStatus"] == "run"


def test_the_answers_of_register_and_read_have_nomads_shape(nomad):
    answer = nomad.register(a_job())
    index = answer.json()["JobModifyIndex"]
    assert answer.json() == {
        "EvalID": "",
        "EvalCreateIndex": 0,
        "JobModifyIndex": index,
        "Index": index,
        "Warnings": "",
        "KnownLeader": False,
        "LastContact": 0,
    }
    job = nomad.job("g1")
    assert (job["Status"], job["Name"], job["Namespace"], job["JobModifyIndex"]) == ("running", "g1", "default", index)
    assert job["Periodic"] == {"Enabled": True, "Spec": NEVER, "SpecType": "cron", "ProhibitOverlap": True, "TimeZone": "UTC"}
    assert job["TaskGroups"][0]["Tasks"][0]["Resources"]["CPU"] == 100


def test_a_field_that_nomad_does_not_know_is_dropped(nomad):
    first = nomad.registered(a_job())
    assert nomad.registered(a_job(Colour="red")) == first
    assert "Colour" not in nomad.job("g1")


@pytest.mark.parametrize(
    ("exists", "index", "text"),
    [
        (False, 7, "Enforcing job modify index 7: job does not exist"),
        (True, 0, "Enforcing job modify index 0: job already exists"),
        (True, 7, "Enforcing job modify index 7: job exists with conflicting job modify index: {}"),
    ],
)
def test_an_enforced_index_that_does_not_match_is_a_500(nomad, exists, index, text):
    now = nomad.registered(a_job()) if exists else 0
    answer = nomad.register(a_job(Priority=60), EnforceIndex=True, JobModifyIndex=index)
    assert (answer.status_code, answer.text) == (500, text.format(now))


def test_an_enforced_index_that_matches_lets_the_change_through(nomad):
    index = nomad.registered(a_job(), EnforceIndex=True, JobModifyIndex=0)
    assert nomad.registered(a_job(Priority=60), EnforceIndex=True, JobModifyIndex=index) > index


def test_of_many_who_create_a_job_at_once_one_does(nomad):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: nomad.register(a_job(), EnforceIndex=True, JobModifyIndex=0).status_code, range(8)))
    assert sorted(answers) == [200] + [500] * 7


def test_a_job_may_not_stop_being_periodic(nomad):
    nomad.registered(a_job())
    answer = nomad.register(a_job(Periodic=None))
    assert (answer.status_code, answer.text) == (500, "cannot update periodic job to being non-periodic")


def test_post_will_do_for_put_and_delete_for_neither(nomad):
    assert nomad.call("POST", "/v1/jobs", {"Job": a_job()}).status_code == 200
    answer = nomad.call("DELETE", "/v1/jobs")
    assert (answer.status_code, answer.text) == (405, "Invalid method")


@pytest.mark.parametrize("job_id", ["a%20b", "we/ird", "ünï", 'q"uote', "g_d82a1f04-b9f6-4075-998f-af20e3d49de6"])
def test_a_job_is_found_by_its_encoded_id(nomad, job_id):
    nomad.registered(a_job(job_id))
    assert nomad.job(job_id)["ID"] == job_id


def test_a_list_is_of_one_prefix_with_children_and_in_order(nomad):
    for job_id in ("g2", "g1", "h1"):
        nomad.registered(a_job(job_id))
    child = nomad.forced("g1")
    rows = nomad.listed("g")
    assert [row["ID"] for row in rows] == ["g1", child, "g2"]
    assert [(row["ParentID"], row["Periodic"], row["Type"]) for row in rows[:2]] == [("", True, "batch"), ("g1", False, "batch")]
    assert nomad.listed("nobody") == []


def test_what_is_not_there(nomad):
    answers = {
        "read": nomad.get("/v1/job/none"),
        "force": nomad.force("none"),
        "allocations": nomad.get("/v1/job/none/allocations"),
        "path": nomad.get("/v1/nowhere"),
        "allocation": nomad.get(f"/v1/allocation/{NO_ONE}"),
    }
    assert {name: (answer.status_code, answer.text) for name, answer in answers.items()} == {
        "read": (404, "job not found"),
        "force": (500, "job not found"),
        "allocations": (200, "[]"),
        "path": (404, ""),
        "allocation": (404, "alloc not found"),
    }


# Forcing, and what a task finds


def test_a_forced_child_runs_and_stays_listed_as_dead(nomad):
    child = nomad.runs(a_job(script="echo out; echo err >&2"))
    assert child == f"g1/periodic-{int(NOON)}"
    assert nomad.output(child) == "out\n"
    assert nomad.output(child, "stderr") == "err\n"
    row = nomad.allocation(child)
    assert (row["ClientStatus"], row["DesiredStatus"], row["JobID"]) == ("complete", "run", child)
    assert nomad.status(child) == "dead"
    assert nomad.children() == [child]
    (summary,) = [row["JobSummary"]["Children"] for row in nomad.listed() if row["ID"] == "g1"]
    assert summary == {"Pending": 0, "Running": 0, "Dead": 1}


def test_a_force_tells_its_evaluation(nomad):
    nomad.registered(a_job())
    answer = nomad.force().json()
    (row,) = nomad.get(f"/v1/job/{quote(nomad.children()[0], safe='')}/evaluations").json()
    assert (row["ID"], row["Status"], row["TriggeredBy"]) == (answer["EvalID"], "complete", "periodic-job")
    assert answer["EvalCreateIndex"] == answer["Index"] > 0


def test_a_job_forced_twice_in_a_second_has_two_children(nomad):
    nomad.registered(a_job())
    assert [nomad.forced(), nomad.forced()] == [f"g1/periodic-{int(NOON)}", f"g1/periodic-{int(NOON) + 1}"]


def test_a_child_can_not_be_forced(nomad):
    answer = nomad.force(nomad.runs(a_job()))
    assert (answer.status_code, answer.text) == (500, "can't force launch non-periodic job")


def test_a_task_finds_nomads_variables_its_nodes_environment_and_its_own(nomad):
    job = with_task(
        a_job(script="env", Meta={"group-id": "7"}), Env={"OWN": "${NOMAD_META_group_id} ${meta.role} ${nobody}", "TSG_URL": "x"}
    )
    child = nomad.runs(job)
    env = dict(line.split("=", 1) for line in nomad.output(child).splitlines())
    assert env["NOMAD_JOB_ID"] == env["NOMAD_JOB_NAME"] == child
    assert env["NOMAD_JOB_PARENT_ID"] == "g1"
    assert env["NOMAD_ALLOC_ID"] == nomad.allocation(child)["ID"]
    assert (env["NOMAD_DC"], env["NOMAD_TASK_NAME"], env["NOMAD_GROUP_NAME"]) == ("us-east-1", "healthy", "scale")
    assert env["NOMAD_META_group_id"] == env["NOMAD_META_GROUP_ID"] == "7"
    assert env["OWN"] == "7 automater ${nobody}"
    assert env["TSG_URL"] == "x"


def test_a_task_finds_its_nodes_environment_and_not_the_simulators(nomad, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_TEST", "1")
    child = nomad.runs(a_job(script="echo $TSG_URL; env"))
    assert nomad.output(child).startswith("http://tsg\n")
    assert "SECRET_OF_THE_TEST" not in nomad.output(child)


def test_a_task_leads_a_process_group_of_its_own(nomad):
    child = nomad.runs(a_job(script="ps -o pid=,pgid= -p $$"))
    pid, group = nomad.output(child).split()
    assert pid == group != str(os.getpgid(0))


def test_arguments_are_filled_in_and_an_unknown_name_fails_the_task(nomad):
    args = ["${NOMAD_JOB_PARENT_ID}", '${env["NOMAD_TASK_NAME"]}', "$${kept}", "$1"]
    assert nomad.output(nomad.runs(with_task(a_job(), Config={"command": "echo", "args": args}))) == "g1 healthy ${kept} $1\n"
    task = nomad.task(nomad.runs(with_task(a_job("g2"), Config={"command": "echo", "args": ["${nobody}"]})))
    assert task["Failed"]
    assert 'There is no variable named "nobody"' in task["Events"][2]["DisplayMessage"]


@pytest.mark.parametrize(("script", "code", "number"), [("exit 3", 3, 0), ("kill -9 $$", 137, 9)])
def test_a_failing_task_fails_its_allocation_and_tells_how(nomad, script, code, number):
    child = nomad.runs(a_job(script=script))
    row = nomad.allocation(child, "failed")
    task = row["TaskStates"]["healthy"]
    assert (task["State"], task["Failed"], row["ClientDescription"]) == ("dead", True, "Failed tasks")
    assert event_kinds(task) == ["Received", "Task Setup", "Started", "Terminated", "Not Restarting"]
    terminated = task["Events"][3]
    assert (terminated["ExitCode"], terminated["Signal"]) == (code, number)
    assert terminated["Details"] == {"exit_code": str(code), "signal": str(number), "oom_killed": "false"}
    assert task["Events"][4]["DisplayMessage"] == "Policy allows no restarts"


def test_a_program_that_is_not_there_is_a_driver_failure(nomad):
    task = nomad.task(nomad.runs(with_task(a_job(), Config={"command": "/no/such"})))
    assert event_kinds(task) == ["Received", "Task Setup", "Driver Failure", "Not Restarting"]
    assert task["StartedAt"] is None


def test_a_failing_task_is_restarted_as_often_as_its_policy_says(nomad):
    policy = {"Attempts": 2, "Interval": 60 * SECOND, "Delay": 1_000_000, "Mode": "fail"}
    child = nomad.runs(with_group(a_job(script="echo again; exit 4"), RestartPolicy=policy))
    task = nomad.task(child)
    assert (task["Restarts"], nomad.output(child)) == (2, "again\n" * 3)
    assert task["Events"][-1]["DisplayMessage"] == 'Exceeded allowed attempts 2 in interval 1m0s and mode is "fail"'


def test_a_task_that_succeeds_the_second_time_completes(nomad, tmp_path):
    policy = {"Attempts": 1, "Interval": 60 * SECOND, "Delay": 0, "Mode": "fail"}
    script = f"test -e {tmp_path}/been || {{ touch {tmp_path}/been; exit 1; }}"
    row = nomad.allocation(nomad.runs(with_group(a_job(script=script), RestartPolicy=policy)))
    assert (row["ClientStatus"], row["TaskStates"]["healthy"]["Restarts"]) == ("complete", 1)


def test_a_failed_allocation_is_placed_once_more_after_its_delay(nomad):
    child = nomad.runs(with_group(a_job(script="exit 1"), ReschedulePolicy=None))
    nomad.allocation(child, "failed")
    assert nomad.status(child) == "pending"
    nomad.sim.cluster.advance(5)
    cluster = nomad.sim.cluster
    assert cluster.wait_until(lambda: [row["ClientStatus"] for row in cluster.list_allocations(child)] == ["failed", "failed"])
    assert nomad.status(child) == "dead"


def test_what_a_task_left_running_ends_with_it(nomad, wire):
    nomad.runs(a_job(script=f"exec 3>{wire}; echo up >&3; (while :; do sleep 0.05; done) & exit 0"))
    assert wire.heard() == "up\n"
    assert wire.heard() == ""


def test_two_tasks_of_a_group_run_side_by_side_and_one_that_fails_ends_the_other(nomad, wire):
    job = a_job(script=wire.waiting())
    failing = job["TaskGroups"][0]["Tasks"][0] | {
        "Name": "other",
        "Config": {"command": "/bin/sh", "args": ["-c", f"read x <{wire}.go; exit 1"]},
    }
    os.mkfifo(f"{wire}.go")
    child = nomad.runs(with_group(job, Tasks=[*job["TaskGroups"][0]["Tasks"], failing]))
    assert wire.heard() == "up\n"
    Path(f"{wire}.go").write_text("\n")
    assert nomad.allocation(child, "failed")["TaskStates"]["other"]["Failed"]
    assert wire.heard() == ""


def test_a_group_of_none_has_a_child_that_is_dead_at_once(nomad):
    child = nomad.runs(with_group(a_job(), Count=0))
    assert (nomad.status(child), nomad.allocations(child)) == ("dead", [])


def test_a_batch_job_without_a_schedule_runs_when_it_is_registered(nomad):
    answer = nomad.register(a_job(Periodic=None, script="echo once")).json()
    assert answer["EvalID"]
    assert nomad.output("g1") == "once\n"
    assert nomad.register(a_job(Periodic=None, script="echo once")).json()["JobModifyIndex"] == answer["JobModifyIndex"]
    assert len(nomad.allocations("g1")) == 1


def test_an_allocation_is_pending_until_it_starts(nomad):
    nomad.sim.knobs.start_seconds = 60
    child = nomad.runs(a_job())
    row = nomad.allocation(child, "pending")
    assert (row["TaskStates"], nomad.status(child)) == (None, "running")


# Logs


def test_a_log_in_frames_and_from_an_offset(nomad):
    child = nomad.runs(a_job(script="printf hello"))
    path = f"/v1/client/fs/logs/{nomad.allocation(child)['ID']}?task=healthy&type=stdout"
    frame = nomad.get(path).json()
    assert (base64.b64decode(frame["Data"]), frame["File"], frame["Offset"]) == (b"hello", "alloc/logs/healthy.stdout.0", 5)
    assert nomad.get(f"{path}&plain=true&offset=2").text == "llo"
    assert nomad.get(f"{path}&plain=true&offset=2&origin=end").text == "lo"


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("type=stdout", 400, "must provide task name"),
        ("task=healthy", 400, "must provide log type (stdout/stderr)"),
        ("task=no&type=stdout", 400, 'unknown task name "no"'),
        ("task=healthy&type=stdout&plain=x", 400, 'failed to parse plain field to boolean: strconv.ParseBool: parsing "x": invalid syntax'),
    ],
)
def test_a_log_that_is_asked_for_wrongly(nomad, query, status, text):
    row = nomad.allocation(nomad.runs(a_job()))
    answer = nomad.get(f"/v1/client/fs/logs/{row['ID']}?{query}")
    assert (answer.status_code, answer.text) == (status, text)


def test_a_log_of_nothing(nomad):
    query = "?task=healthy&type=stdout&plain=true"
    unknown, wrong = nomad.get(f"/v1/client/fs/logs/{NO_ONE}{query}"), nomad.get(f"/v1/client/fs/logs/xyz{query}")
    assert (unknown.status_code, unknown.text) == (404, f'Unknown allocation "{NO_ONE}"')
    assert wrong.status_code == 500
    nomad.sim.knobs.start_seconds = 60
    row = nomad.allocation(nomad.runs(a_job()), "pending")
    early = nomad.get(f"/v1/client/fs/logs/{row['ID']}{query}")
    assert (early.status_code, early.text) == (404, 'task "healthy" not started yet. No logs available')


# Stopping


def test_a_purged_parent_is_gone_and_its_running_child_is_not(nomad, wire):
    child = nomad.runs(a_job(script=wire.waiting()))
    wire.heard()
    answer = nomad.delete("g1")
    assert (answer.status_code, answer.json()["EvalID"]) == (200, "")
    assert nomad.get("/v1/job/g1").status_code == 404
    assert nomad.force().status_code == 500
    assert [(row["ID"], row["Status"]) for row in nomad.listed()] == [(child, "running")]
    assert nomad.delete(child).status_code == 200
    assert wire.heard() == ""
    assert nomad.listed() == []


def test_a_stopped_child_is_asked_with_an_interrupt_and_may_finish(nomad, wire):
    child = nomad.runs(a_job(script=wire.waiting(more="trap 'echo bye >&3; exit 0' INT;")))
    assert wire.heard() == "up\n"
    nomad.delete(child, "")
    assert wire.heard() == "bye\n"
    row = nomad.allocation(child, "complete")
    assert (row["DesiredStatus"], row["DesiredDescription"]) == ("stop", "alloc not needed due to job update")
    assert event_kinds(row["TaskStates"]["healthy"])[3:] == ["Killing", "Terminated", "Killed"]
    assert (nomad.job(child)["Stop"], nomad.status(child)) == (True, "dead")


def test_a_child_that_does_not_listen_is_killed_after_its_kill_timeout(nomad, wire):
    job = with_task(a_job(script=wire.waiting(more="trap '' INT TERM;")), KillTimeout=200_000_000)
    child = nomad.runs(job)
    assert wire.heard() == "up\n"
    nomad.delete(child, "")
    assert wire.heard() == ""
    events = nomad.task(child)["Events"]
    assert events[3]["DisplayMessage"] == "Sent interrupt. Waiting 200ms before force killing"
    assert events[4]["DisplayMessage"] == "Exit Code: 137, Signal: 9"


@pytest.mark.parametrize("query", ["", "?purge=true"])
def test_the_end_of_an_unknown_job_is_a_200(nomad, query):
    answer = nomad.delete("none", query)
    assert (answer.status_code, bool(answer.json()["EvalID"])) == (200, True)


def test_a_job_that_was_stopped_is_not_launched_until_it_is_registered_again(nomad):
    nomad.registered(a_job(spec="*/2 * * * *"))
    nomad.delete("g1", "")
    assert (nomad.job("g1")["Stop"], nomad.status("g1")) == (True, "dead")
    nomad.sim.cluster.advance(120)
    answer = nomad.force()
    assert (answer.status_code, nomad.children()) == (500, [])
    assert answer.text == 'force launch for job "g1" failed: can\'t force run non-tracked job "g1" (default)'
    nomad.registered(a_job(spec="*/2 * * * *"))
    nomad.sim.cluster.advance(120)
    assert nomad.children() == [f"g1/periodic-{int(NOON) + 240}"]


# The schedule


def test_a_job_is_launched_when_its_time_has_come_and_not_before(nomad):
    nomad.registered(a_job(spec="*/2 * * * *"))
    nomad.sim.cluster.advance(119)
    assert nomad.children() == []
    nomad.sim.cluster.advance(1)
    assert nomad.children() == [f"g1/periodic-{int(NOON) + 120}"]


def test_a_launch_is_skipped_while_a_child_runs_and_a_force_is_not(nomad, wire):
    nomad.registered(a_job(spec="*/2 * * * *", script=wire.waiting()))
    first = nomad.forced()
    wire.heard()
    nomad.sim.cluster.advance(120)
    assert nomad.children() == [first]
    assert nomad.forced() != first
    assert nomad.sim.cluster.counters.to_json()["by_job"]["g1"]["skips"] == 1


def test_a_launch_may_overlap_where_the_job_allows_it(nomad, wire):
    nomad.registered(a_job(script=wire.waiting(), Periodic={"Spec": "*/2 * * * *"}))
    nomad.sim.cluster.advance(120)
    nomad.sim.cluster.advance(120)
    assert len(nomad.children()) == 2


def test_a_long_pause_is_made_good_by_one_launch(nomad):
    nomad.registered(a_job(spec="*/2 * * * *"))
    nomad.sim.cluster.advance(3600)
    assert len(nomad.children()) == 1


def test_what_has_been_over_for_hours_is_forgotten_with_its_directory(nomad):
    nomad.registered(a_job(spec="0 * * * *"))
    first = nomad.forced()
    nomad.allocation(first)
    (allocation,) = nomad.sim.cluster.allocations.values()
    nomad.sim.cluster.advance(3 * 3600)
    assert first in nomad.children()
    nomad.sim.cluster.advance(2 * 3600)
    assert first not in nomad.children()
    assert (nomad.allocations(first), allocation.directory.exists()) == ([], False)
    assert nomad.status("g1") == "running"


def test_the_clock_itself_launches_without_being_told():
    with Simulator() as sim:
        nomad = Client(sim)
        nomad.registered(a_job(spec="* * * * * * *"))
        assert sim.cluster.wait_until(lambda: len(sim.cluster.children("g1")) >= 1)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("*/2 * * * *", "2026-03-04T12:02:00"),
        ("0 0 1 1 *", "2027-01-01T00:00:00"),
        ("0 12 * * 1-5", "2026-03-05T12:00:00"),
        ("7/20 3 * * *", "2026-03-05T03:07:00"),
        ("1,5,,9 13 * * *", "2026-03-04T13:01:00"),
        ("0 0 * JUN,dec SUN", "2026-06-07T00:00:00"),
        ("0 0 * * 7", "2026-03-08T00:00:00"),
        ("0 0 * * MON-SUN", "2026-03-05T00:00:00"),
        ("0 0 13 * 5", "2026-03-06T00:00:00"),  # both restricted: either will do
        ("0 0 29 2 *", "2028-02-29T00:00:00"),
        ("0 0 1 1 * 2031", "2031-01-01T00:00:00"),
        ("30 10 0 1 1 * 2031", "2031-01-01T00:10:30"),
        ("*/5 * * * * * *", "2026-03-04T12:00:05"),
        ("@daily", "2026-03-05T00:00:00"),
        ("10-50/20 12 ? * *", "2026-03-04T12:10:00"),
        ("0 0 31 2 *", None),
        ("0 0 1 1 * 2020", None),
        ("5-2 * * * *", None),
    ],
)
def test_when_a_cron_expression_is_due(spec, expected):
    due = Cron(spec).next(datetime.fromtimestamp(NOON, UTC))
    assert (due and due.replace(tzinfo=None).isoformat()) == expected


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("* *", "missing field(s)"),
        ("61 * * * *", "syntax error in minute field: '61'"),
        ("* 24 * * *", "syntax error in hour field: '24'"),
        ("* * 0 * *", "syntax error in day-of-month field: '0'"),
        ("a * * * *", "syntax error in minute field: 'a'"),
        ("*/0 * * * *", "invalid interval */0"),
        ("*/60 * * * *", "invalid interval */60"),
    ],
)
def test_a_cron_expression_that_is_none(spec, text):
    with pytest.raises(CronError) as caught:
        Cron(spec)
    assert str(caught.value) == text


def test_a_schedule_keeps_to_the_clock_on_the_wall_of_its_zone():
    berlin = ZoneInfo("Europe/Berlin")
    winter = datetime(2026, 3, 28, 12, tzinfo=berlin)
    assert Cron("0 12 * * *").next(winter).astimezone(UTC) == datetime(2026, 3, 29, 10, tzinfo=UTC)
    assert Cron("30 2 29 3 *").next(winter).astimezone(UTC) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)  # 02:30 does not exist: 03:30


def test_a_launch_of_another_zone_comes_at_its_time(nomad):
    periodic = {"Spec": "0 8 * * *", "TimeZone": "America/New_York"}
    plan = nomad.put("/v1/job/g1/plan", {"Job": a_job(Periodic=periodic)}).json()
    assert plan["NextPeriodicLaunch"] == "2026-03-04T08:00:00-05:00"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (1, "1ns"),
        (0, "0s"),
        (1_500_000, "1.5ms"),
        (5 * SECOND, "5s"),
        (60 * SECOND, "1m0s"),
        (86400 * SECOND, "24h0m0s"),
        (90_500_000_000, "1m30.5s"),
    ],
)
def test_durations_are_written_as_go_does(nanoseconds, text):
    assert duration(nanoseconds) == text


# Placing


@pytest.mark.parametrize(
    ("job", "filtered", "available"),
    [
        (
            a_job(Constraints=[{"LTarget": "${meta.role}", "Operand": "=", "RTarget": "other"}]),
            {"${meta.role} = other": 1},
            {"us-east-1": 1},
        ),
        (a_job(Datacenters=["nowhere"]), None, {"nowhere": 0}),
        (with_group(a_job(), Count=2), {"distinct_hosts": 1}, {"us-east-1": 1}),
        (with_task(a_job(), Driver="docker"), {"missing drivers": 1}, {"us-east-1": 1}),
        (with_task(a_job(), Constraints=[{"LTarget": "${meta.rack}", "Operand": "is_set"}]), {"${meta.rack} is_set ": 1}, {"us-east-1": 1}),
    ],
)
def test_a_plan_tells_what_has_no_place(nomad, job, filtered, available):
    plan = nomad.put("/v1/job/g1/plan", {"Job": job, "Diff": True}).json()
    metrics = plan["FailedTGAllocs"]["scale"]
    assert (metrics["ConstraintFiltered"], metrics["NodesAvailable"]) == (filtered, available)
    assert plan["CreatedEvals"][0]["Status"] == "blocked"


def test_a_child_without_a_place_waits_and_holds_back_the_schedule(nomad):
    child = nomad.runs(a_job(Datacenters=["nowhere"], spec="*/2 * * * *"))
    assert (nomad.allocations(child), nomad.status(child)) == ([], "pending")
    nomad.sim.cluster.advance(120)
    assert nomad.children() == [child]
    nomad.delete(child)
    nomad.sim.cluster.advance(120)
    assert len(nomad.children()) == 1


@pytest.mark.parametrize(
    ("operand", "right", "fits"),
    [
        ("=", "automater", True),
        ("!=", "automater", False),
        ("regexp", "^auto", True),
        ("set_contains_any", "a,automater", True),
        ("set_contains", "a,automater", False),
        ("is_set", "", True),
        ("<", "b", True),
        ("version", ">= 1", False),
    ],
)
def test_the_operands_of_a_constraint(nomad, operand, right, fits):
    job = a_job(Constraints=[{"LTarget": "${meta.role}", "Operand": operand, "RTarget": right}])
    plan = nomad.put("/v1/job/g1/plan", {"Job": job}).json()
    assert (plan["FailedTGAllocs"] is None) == fits


# Plan


def test_a_plan_of_a_new_job_changes_nothing(nomad):
    plan = nomad.put("/v1/job/g1/plan", {"Job": a_job(spec="*/2 * * * *"), "Diff": True}).json()
    assert (plan["Diff"]["Type"], plan["JobModifyIndex"], plan["FailedTGAllocs"]) == ("Added", 0, None)
    assert plan["NextPeriodicLaunch"] == "2026-03-04T12:02:00Z"
    assert nomad.listed() == []


def test_a_plan_of_the_same_job_has_no_difference(nomad):
    index = nomad.registered(a_job())
    plan = nomad.put("/v1/job/g1/plan", {"Job": a_job(), "Diff": True}).json()
    assert (plan["Diff"]["Type"], plan["JobModifyIndex"]) == ("None", index)


def test_a_plan_shows_what_would_change(nomad):
    nomad.registered(a_job(Meta={"a": "1"}))
    changed = with_task(a_job(Meta={"a": "2"}, spec="1 * * * *", script="false"), Env={"X": "y"})
    diff = nomad.put("/v1/job/g1/plan", {"Job": changed, "Diff": True}).json()["Diff"]
    assert diff["Type"] == "Edited"
    assert [(row["Name"], row["Old"], row["New"]) for row in diff["Fields"]] == [("Meta[a]", "1", "2")]
    (periodic,) = diff["Objects"]
    assert [row["New"] for row in periodic["Fields"] if row["Type"] == "Edited"] == ["1 * * * *"]
    (task,) = diff["TaskGroups"][0]["Tasks"]
    assert [(row["Name"], row["Type"]) for row in task["Fields"]] == [("Env[X]", "Added")]
    assert [row["Type"] for row in task["Objects"][0]["Fields"]] == ["None", "Edited", "None"]


def test_a_plan_without_diff_and_of_another_job(nomad):
    assert nomad.put("/v1/job/g1/plan", {"Job": a_job()}).json()["Diff"] is None
    answer = nomad.put("/v1/job/g2/plan", {"Job": a_job()})
    assert (answer.status_code, answer.text) == (400, "Job ID does not match")


# Token, namespace, region


def test_a_token_is_asked_for_everywhere_but_at_the_health_checks():
    with Simulator(token="s3cret") as sim:
        for client in (Client(sim), Client(sim, "wrong")):
            answer = client.get("/v1/jobs")
            assert (answer.status_code, answer.text, answer.headers["Content-Type"]) == (
                403,
                "Permission denied",
                "text/plain; charset=utf-8",
            )
            assert client.get("/v1/status/leader").status_code == client.get("/v1/agent/health").status_code == 200
        assert Client(sim, "s3cret").get("/v1/jobs").status_code == 200


def test_there_is_one_namespace_and_one_region(nomad):
    nomad.registered(a_job())
    assert nomad.get("/v1/jobs?namespace=other").json() == []
    assert nomad.get("/v1/job/g1?namespace=other").status_code == 404
    assert nomad.get("/v1/jobs?region=other").text == "No path to region"
    assert nomad.register(a_job("g2", Namespace="other")).text == 'job "g2" is in nonexistent namespace "other"'
    assert nomad.get("/v1/jobs?namespace=default&region=global").status_code == 200


# Knobs


def test_down_closes_every_connection_and_the_tasks_go_on(nomad, wire):
    nomad.registered(a_job(spec="*/2 * * * *", script=wire.waiting()))
    nomad.sim.knobs.down = True
    for path in ("/v1/jobs", "/v1/status/leader", "/v1/nowhere"):
        with pytest.raises(requests.ConnectionError):
            nomad.get(path)
    nomad.sim.cluster.advance(120)
    assert wire.heard() == "up\n"
    nomad.sim.knobs.down = False
    assert nomad.get("/v1/status/leader").status_code == 200


def test_without_a_leader_there_is_nothing_but_ill_health_and_no_launch(nomad):
    nomad.registered(a_job(spec="*/2 * * * *"))
    nomad.sim.knobs.no_leader = True
    for answer in (nomad.get("/v1/status/leader"), nomad.register(a_job()), nomad.force(), nomad.get("/v1/jobs")):
        assert (answer.status_code, answer.text) == (500, "No cluster leader")
    health = nomad.get("/v1/agent/health")
    assert (health.status_code, health.headers["Content-Type"]) == (500, "text/plain; charset=utf-8")
    assert health.text == '{"client":{"message":"ok","ok":true},"server":{"message":"No cluster leader","ok":false}}'
    nomad.sim.cluster.advance(120)
    nomad.sim.knobs.no_leader = False
    nomad.sim.cluster.advance(0)
    assert len(nomad.children()) == 1


def test_a_healthy_agent_says_so(nomad):
    assert nomad.get("/v1/status/leader").json() == "127.0.0.1:4647"
    assert nomad.get("/v1/agent/health").json() == {"client": {"message": "ok", "ok": True}, "server": {"message": "ok", "ok": True}}


def test_a_share_of_the_calls_fails_and_has_done_nothing(nomad):
    nomad.sim.knobs.turn({"error_share": 1, "error_status": 503, "error_endpoints": ["RegisterJob"]})
    answer = nomad.register(a_job())
    assert (answer.status_code, answer.text) == (503, "the simulator was told to fail")
    assert nomad.listed() == []


def test_a_hanging_call_has_done_its_deed(nomad):
    nomad.sim.knobs.turn({"hang_seconds": 60, "hang_endpoints": ["RegisterJob"]})
    with pytest.raises(requests.Timeout):
        nomad.call("PUT", "/v1/jobs", {"Job": a_job()}, timeout=0.3)
    assert nomad.status("g1") == "running"


def test_latency_comes_before_the_deed(nomad):
    nomad.sim.knobs.latency_seconds = 60
    with pytest.raises(requests.Timeout):
        nomad.call("PUT", "/v1/jobs", {"Job": a_job()}, timeout=0.3)
    assert nomad.sim.cluster.jobs == {}


def test_every_job_is_invalid_for_the_reason_that_was_set(nomad):
    nomad.sim.knobs.refuse_validate = "no jobs today"
    assert nomad.validation_errors(a_job()) == ["no jobs today"]
    assert nomad.register(a_job()).text == "1 error occurred:\n\t* no jobs today\n\n"


def test_knobs_are_read_and_turned_by_http(nomad):
    assert nomad.get("/--sim/knobs").json() == Knobs().to_json()
    assert nomad.call("PATCH", "/--sim/knobs", {"down": True, "error_share": 0.5}).json()["down"] is True
    assert nomad.call("PATCH", "/--sim/knobs", {"down": False}).json()["error_share"] == 0.5


@pytest.mark.parametrize(
    "changes", [{"nothing": 1}, {"down": "yes"}, {"error_share": 2}, {"hang_endpoints": ["Nothing"]}, {"error_status": 200}]
)
def test_a_knob_that_is_none_is_refused_and_nothing_is_turned(nomad, changes):
    answer = nomad.call("PATCH", "/--sim/knobs", {"no_leader": True} | changes)
    assert (answer.status_code, nomad.sim.knobs.no_leader) == (400, False)
    assert next(iter(changes)) in answer.text
    with pytest.raises(Unwanted):
        Simulator(**changes)


# Looking inside


def test_the_calls_and_what_they_did_are_counted(nomad):
    nomad.registered(a_job(spec="*/2 * * * *"))
    nomad.allocation(nomad.forced())
    nomad.force("none")
    nomad.sim.cluster.advance(120)
    counters = nomad.get("/--sim/counters").json()
    assert counters["by_endpoint"]["RegisterJob"] == {"200": 1}
    assert counters["by_endpoint"]["ForceJob"] == {"200": 1, "500": 1}
    assert counters["by_job"]["g1"] == {"registers": 1, "changes": 1, "forces": 1, "launches": 1, "skips": 0, "deregisters": 0}
    reset = nomad.call("POST", "/--sim/counters/reset").json()
    assert (reset["requests"], reset["by_job"]) == (0, {})


def test_the_state_shows_jobs_children_and_allocations(nomad):
    child = nomad.runs(a_job(spec="*/2 * * * *"))
    nomad.allocation(child)
    state = nomad.get("/--sim/state").json()
    assert [(job["ID"], job["Children"], job["NextLaunch"]) for job in state["jobs"]] == [("g1", [child], NOON + 120), (child, [], None)]
    assert [row["JobID"] for row in state["allocations"]] == [child]
    assert (state["node"]["datacenter"], state["node"]["role"], state["now"]) == ("us-east-1", "automater", NOON)


def test_the_clock_is_put_forward_by_http(nomad):
    nomad.registered(a_job(spec="*/2 * * * *"))
    assert nomad.call("POST", "/--sim/clock/advance", {"seconds": 120}).json() == {"now": NOON + 120}
    assert len(nomad.children()) == 1
    assert nomad.call("POST", "/--sim/clock/advance", {"hours": 1}).status_code == 400


# Closing, and coming back


def test_closing_ends_the_tasks_and_removes_their_directories(wire):
    with Simulator() as sim:
        nomad = Client(sim)
        nomad.runs(with_task(a_job(script=wire.waiting()), KillTimeout=60 * SECOND))
        assert wire.heard() == "up\n"
        (allocation,) = sim.cluster.allocations.values()
        assert allocation.directory.exists()
    assert wire.heard() == ""
    assert not allocation.directory.exists()
    sim.close()  # twice is once


def test_jobs_and_what_became_of_them_outlive_the_simulator(tmp_path, wire):
    with Simulator(state=tmp_path / "state", now=lambda: NOON) as sim:
        nomad = Client(sim)
        index = nomad.registered(a_job(script="echo kept"))
        done = nomad.forced()
        nomad.allocation(done)
        running = nomad.runs(a_job("g2", script=wire.waiting()))
        wire.heard()
    with Simulator(state=tmp_path / "state", now=lambda: NOON) as sim:
        nomad = Client(sim)
        assert nomad.registered(a_job(script="echo kept")) == index
        assert nomad.output(done) == "kept\n"
        assert nomad.allocation(running)["ClientStatus"] == "lost"
        assert nomad.status(running) == "dead"
        assert nomad.registered(a_job("g3")) > index


def test_a_launch_that_was_missed_while_it_was_gone_is_made_good(tmp_path):
    with Simulator(state=tmp_path / "state", now=lambda: NOON) as sim:
        Client(sim).registered(a_job(spec="*/2 * * * *"))
    with Simulator(state=tmp_path / "state", now=lambda: NOON + 3600) as sim:
        assert sim.cluster.wait_until(lambda: len(sim.cluster.children("g1")) == 1)
        assert Client(sim).children() == [f"g1/periodic-{int(NOON) + 3600}"]


def test_a_state_file_that_can_not_be_read_leaves_nothing_behind(tmp_path):
    (tmp_path / "state").write_text("no JSON")
    with pytest.raises(ValueError, match="Expecting value"):
        Simulator(state=tmp_path / "state")


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
