"""`tsg-admin groups` and `tsg-admin jobs`, as an operator runs them."""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import redis

from dev.processes import free_port
from dev.services import Valkey
from shared.cli import admin as program
from shared.cli.admin import named
from shared.spec.rollout_settings import RolloutSettings
from shared.state import rollouts
from tests.conftest import run_here
from tests.integration.conftest import World

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def admin(world: World, valkey: Valkey) -> Run:
    """Runs tsg-admin on the world's database, with these settings besides."""
    url = world.db.engine.url.render_as_string(hide_password=False)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TSG_", "NOMAD_"))}

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environ = {**clean, "TSG_DATABASE_URL": url, "TSG_REDIS_URL": valkey.url, "TSG_TRITON_URL": world.sim.url, **settings}
        return run_here(program.main, arguments, environ)

    return run


def told(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_groups_are_listed_with_what_they_wait_for(world: World, admin: Run) -> None:
    settled, new = world.make_group(2), world.make_group(5)
    world.sql("UPDATE tsg_group_state SET check_at = NULL WHERE group_id = :id", id=new.id)
    world.settle()
    lines = told(admin("groups", "list", "--account", world.login, "--json"))
    assert [(line["name"], line["desired"], line["running"], line["reason"]) for line in lines] == sorted(
        [(settled.name, 2, 2, "Settled"), (new.name, 5, 0, "Provisioning")]
    )
    waiting = admin("groups", "list", "--account", world.triton.id, "--reason", "Provisioning")
    header, line = waiting.stdout.splitlines()
    assert header.split() == ["ACCOUNT", "NAME", "ID", "RUNNING", "REASON", "SINCE", "FAILURES"]
    assert line.split()[:5] == [world.login, new.name, new.id, "0/5", "Provisioning"]


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "Größe €"), ("latin-1", "Größe \\u20ac"), ("ascii", "Gr\\xf6\\xdfe \\u20ac")])
def test_a_terminal_of_any_encoding_shows_a_group(world: World, admin: Run, encoding: str, shown: str) -> None:
    group = world.make_group(1)
    world.sim.knobs.turn({"refuse_next_creates": 1, "refuse_status": 409, "refuse_message": "Größe € \x1b[2J\u0090"})
    world.converge()
    url = world.db.engine.url.render_as_string(hide_password=False)
    environ = {**os.environ, "TSG_DATABASE_URL": url, "PYTHONIOENCODING": encoding}
    for options in ([], ["--json"]):
        command = [sys.executable, "-c", "import shared.cli.admin; raise SystemExit(shared.cli.admin.main())"]
        done = subprocess.run([*command, "groups", "explain", group.id, *options], env=environ, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode(encoding)
        if options:
            assert "Größe € \x1b[2J\u0090" in json.loads(text)["last_error"]
        else:
            assert f"{shown} \\x1b[2J\\x90" in text


def test_the_rollouts_of_a_group_are_shown_with_it(world: World, admin: Run) -> None:
    group, template = world.make_group(2), world.make_template()
    made = world.db.transact(
        lambda connection: rollouts.insert_rollout(
            connection, world.account.id, group.id, template_id=template.id, settings=RolloutSettings(), request_id=None
        )
    )
    shown = admin("groups", "show", group.id).stdout
    assert f"{made.id}: Pending" in shown
    assert [made.id, template.id, "Pending", "0", "%"] == shown.splitlines()[-1].split()[2:7]
    (found,) = told(admin("groups", "show", group.id, "--json"))["rollouts"]
    assert (found["id"], found["counts"]["wanted"], found["settings"]["max_surge"]) == (made.id, 2, "25%")


def test_a_group_is_explained_by_its_status_and_what_was_done(world: World, admin: Run) -> None:
    group = world.make_group(2)
    world.sim.knobs.turn({"refuse_next_creates": 2, "refuse_status": 403, "refuse_code": "QuotaExceeded", "refuse_message": "over quota"})
    world.converge()
    explained = told(admin("groups", "explain", group.name, "--json"))
    assert (explained["group_id"], explained["account_name"], explained["desired"], explained["running"]) == (group.id, world.login, 2, 0)
    assert (explained["reason"], explained["stuck"], explained["settled"]) == ("QuotaExceeded", True, False)
    assert "TSG_INSTANCE_LAUNCH_ERROR" in {activity["kind"] for activity in explained["activities"]}
    text = admin("groups", "explain", group.id).stdout
    assert "waits for QuotaExceeded, since 20" in " ".join(text.split())
    assert "0 of 2 run" in text
    assert "over quota" in text
    shown = admin("groups", "show", group.id).stdout
    assert text.startswith(shown.rstrip())


def test_a_group_is_looked_at_when_the_operator_says_so(world: World, admin: Run, valkey: Valkey) -> None:
    group = world.make_group(1)
    world.settle()
    assert world.group_row(group).check_at > world.sql("SELECT now()")[0][0]
    with redis.Redis.from_url(valkey.url) as client:
        before = int(client.llen("dramatiq:converge"))
        assert told(admin("groups", "converge", group.name, "--json")) == {"id": group.id, "woken": True}
        assert int(client.llen("dramatiq:converge")) == before + 1
        client.delete("dramatiq:converge", "dramatiq:converge.msgs")
    assert world.group_row(group).check_at <= world.sql("SELECT now()")[0][0]
    away = admin("groups", "converge", group.name, TSG_REDIS_URL=f"redis://127.0.0.1:{free_port()}")
    assert away.returncode == 0
    assert "Redis cannot be reached; the scheduler sends the wake-up" in away.stdout


def test_a_job_is_submitted_anew(world: World, admin: Run, valkey: Valkey) -> None:
    group = world.make_group(1)
    world.sql("UPDATE tsg_group_state SET job_id = :id, job_generation = 1 WHERE group_id = :id", id=group.id)
    world.sql("INSERT INTO tsg_work (kind, subject, failures) VALUES ('nomad_job', :id, 3)", id=group.id)
    nomad = {"TSG_SCALER": "nomad"}
    (job,) = [job for job in told(admin("jobs", "list", "--json", **nomad)) if job["group_id"] == group.id]
    assert (job["account"], job["job_id"], job["generation"], job["job_generation"], job["failures"]) == (world.login, group.id, 1, 1, 3)
    assert told(admin("jobs", "resubmit", group.id, "--json", **nomad)) == {"id": group.id, "woken": True}
    (work,) = world.sql(
        "SELECT failures, due_at IS NOT NULL AS is_due FROM tsg_work WHERE kind = 'nomad_job' AND subject = :id", id=group.id
    )
    assert (world.group_row(group).job_generation, work.failures, work.is_due) == (0, 0, True)
    with redis.Redis.from_url(valkey.url) as client:
        client.delete("dramatiq:submit_job", "dramatiq:submit_job.msgs")
    refused = admin("jobs", "resubmit", group.id)
    assert refused.returncode == 4
    assert "TSG_SCALER is worker" in refused.stderr


def test_what_is_not_there_in_the_way_or_away_has_its_exit_code(world: World, admin: Run, tmp_path: Path) -> None:
    unknown = admin("groups", "show", str(uuid.uuid4()))
    assert unknown.returncode == 3
    assert unknown.stderr.startswith("tsg-admin: there is no group ")
    group, other = world.make_group(1), world.make_group(1)
    world.sql("UPDATE tsg_groups SET archived = true WHERE id = :id", id=other.id)
    assert admin("groups", "show", other.name).returncode == 3, "a deleted group's name is another's"
    assert admin("groups", "show", other.id).returncode == 0, "and its id is its own"
    other_account = world.db.transact(lambda connection: program.accounts.insert_account(connection, "other", str(uuid.uuid4())))
    world.sql(
        "UPDATE tsg_groups SET archived = false, name = :name, account_id = :id WHERE id = :group",
        name=group.name,
        id=other_account.id,
        group=other.id,
    )
    several = admin("groups", "show", group.name)
    assert several.returncode == 4
    assert {group.id, other.id} <= set(several.stderr.replace(",", " ").split())
    assert admin("groups", "show").returncode == 2
    assert admin("groups", "list", TSG_LOG_LEVEL="LOUD").returncode == 2
    away = admin("groups", "list", TSG_DATABASE_URL=f"postgresql://postgres@/tsg?host={tmp_path}")
    assert away.returncode == 75
    assert "Traceback" not in away.stderr


@pytest.mark.parametrize(
    "words",
    [
        *(["accounts", "add", "login", wrong] for wrong in ("login", "", "{d82a1f04-b9f6-4075-998f-af20e3d49de6}", "d82a1f04")),
        *(["accounts", "add", wrong, "d82a1f04-b9f6-4075-998f-af20e3d49de6"] for wrong in ("", "ab", "a b c", "a/b/c")),
        *([noun, "list", "--limit", wrong] for noun in ("groups", "jobs") for wrong in ("-1", "0", "x", "9" * 5000)),
    ],
)
def test_a_word_that_makes_no_sense_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(words)
    assert ended.value.code == 2
    assert re.search(r"error: argument .*: '.*' is no ", capsys.readouterr().err)


def test_every_verb_tells_its_exit_codes_and_takes_json() -> None:
    def verbs(parser: Any) -> list[Any]:
        found = [choice for action in parser._actions for choice in (action.choices.values() if isinstance(action.choices, dict) else ())]
        return [verb for choice in found for verb in verbs(choice)] or [parser]

    every = verbs(program._parser())
    assert len(every) > 12
    for verb in every:
        assert "75 something cannot be" in verb.format_help().replace("\n", " ")
        assert "--json" in verb.format_help()


def test_a_database_that_is_not_there_is_told_and_not_waited_for_without_end() -> None:
    """Without a setting it is the CockroachDB of 2018, whose kind has to be found out."""
    port = str(free_port())
    with mock.patch.object(named, "PATIENCE", 0):
        away = run_here(program.main, ["accounts", "list"], {"TSG_CRDB_PORT": port})
    assert away.returncode == 75
    assert "TSG_DATABASE_URL" in away.stderr
    assert port in away.stderr
