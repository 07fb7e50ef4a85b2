"""`tsg` against the service itself, in this process: what it prints, and with which status it ends."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from dev.client import PROGRAMS
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, FABRIC_NETWORK
from shared.reasons import Reason
from tests.conftest import run_here
from tests.integration.api.service import PAIR, Caller, make_member
from tests.integration.api.test_explain import instances, looked_at
from tests.integration.api.test_instances_api import launch
from tsg_client.cli.main import main

Run = Callable[..., CompletedProcess[str]]


def environ_of(caller: Caller, home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "TRITON_PROFILE": "env",
        "TRITON_URL": caller.api.sim.url,
        "TRITON_TSG_URL": caller.api.url,
        "TRITON_ACCOUNT": caller.login,
        "TRITON_KEY_ID": PAIR.fingerprint,
        "TRITON_KEY_MATERIAL": PAIR.private_pem,
    }


@pytest.fixture
def run(tsg: Caller, tmp_path: Path) -> Run:
    """`tsg` with these arguments, as the account of the test."""

    def run(*arguments: str, status: int = 0, **environ: str) -> CompletedProcess[str]:
        done = run_here(main, [*arguments], environ_of(tsg, tmp_path) | environ)
        assert done.returncode == status, f"{done.stdout}{done.stderr}"
        return done

    return run


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_help_is_there_before_the_library_is(tmp_path: Path) -> None:
    code = "import sys, tsg_client.cli.errors as e, tsg_client.cli.main as m; e.run(m.root, ['--help']); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "click" in loaded
    assert not loaded & {"requests", "pydantic", "cryptography", "rich", "yaml", "falcon", "sqlalchemy", "tsg_client.client"}
    assert "group" in done.stdout


def test_a_first_group(run: Run, tsg: Caller) -> None:
    made = run(
        "template", "create", "web-1", "base-64-lts", "sim-small", "-t", "role=web", "-t", "n=5", "-N", "sim-fabric", "--spread", "prefer"
    )
    assert made.stdout.startswith("Created template web-1 (")
    template = json.loads(run("template", "get", "web-1").stdout)
    assert (template["image_id"], template["networks"]) == (DEFAULT_IMAGE, [FABRIC_NETWORK])
    assert (template["tags"], template["spread"]) == ({"role": "web", "n": 5}, "prefer")

    created = run("group", "create", "web", "web-1", "-c", "3").stdout
    group = json.loads(run("group", "get", "web", "-j").stdout)
    assert created == f"Created group web ({group['id']}, web-1, 3 instances)\n"
    header, (*shown, age) = rows(run("groups").stdout)
    assert header == ["SHORTID", "NAME", "CAPACITY", "RUNNING", "STATE", "TEMPLATE", "AGE"]
    assert shown == [group["id"][:8], "web", "3", "0", "Provisioning", "web-1"]
    assert re.fullmatch(r"\d+s", age)
    assert run("group", "scale", group["id"][:8], "+2").stdout == f"Scaled group web ({group['id']}) to 5\n"
    run("group", "scale", "web", "-1")
    assert tsg.capacity(group) == 4
    run("group", "inc", "web", "3")
    run("group", "dec", "web", "--min", "1")
    assert tsg.capacity(group) == 6
    run("group", "update", "web", "-c", "2", "--health-check-interval", "60", "--set", "ready_seconds=5")
    changed = json.loads(run("group", "get", group["id"]).stdout)
    assert (changed["capacity"], changed["health_check_interval"], changed["ready_seconds"]) == (2, 60, 5)
    assert "instances     0 of 2 running" in run("group", "explain", "web").stdout
    assert rows(run("group", "activities", "web", "-n", "1", "-H", "-o", "kind,status").stdout) == [["GROUP_UPDATE", "success"]]
    assert run("group", "instances", "web", "-H").stdout == ""

    assert "web-1 is used by web" in run("template", "rm", "web-1", "-f", status=1).stderr
    assert run("group", "rm", "web", "-f").stdout == f"Delete (async) group web ({group['id']})\n"
    run("template", "rm", "web-1", "-f")
    assert run("groups", "-H").stdout == ""


def test_lists_take_the_options_of_triton(run: Run, tsg: Caller) -> None:
    template = tsg.make_template()
    for name, capacity in (("b", 1), ("a", 2), ("c", 10)):
        tsg.ok("POST", "/groups", {"group_name": name, "template_id": template, "capacity": capacity})
    assert rows(run("group", "ls", "-H", "-o", "name,capacity", "-s", "name").stdout) == [["a", "2"], ["b", "1"], ["c", "10"]]
    assert rows(run("group", "list", "-H", "-o", "name", "-s", "-capacity").stdout) == [["c"], ["a"], ["b"]]
    found = [json.loads(line) for line in run("group", "ls", "-j").stdout.splitlines()]
    assert [(one["name"], one["group_name"], one["state"]) for one in found[:1]] == [("b", "b", "Provisioning")]
    assert run("grp", "ls", "-l").stdout.split("\n")[0].split()[0] == "ID"
    told = run("group", "ls", "-o", "name,colour", status=2).stderr
    assert "there is no column 'colour'; there are: shortid, id, name" in told


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["group", "get", "nix"], 3, 'tsg group get: error (ResourceNotFound): no group with name or short id "nix" was found'),
        (["group", "get", "00000000-0000-4000-8000-000000000000"], 3, "error (ResourceNotFound)"),
        (["group", "gt"], 2, "Did you mean 'get'?"),
        (["grop"], 2, "Did you mean"),
        (["group", "ls", "-p", "x"], 2, "-p goes before the command: tsg -p ... group ls"),
        (["group", "scale", "web", "many"], 2, "many is neither a number, nor +N, nor -N"),
        (["group", "rm", "web"], 3, "was found"),
        (["group", "create", "web", "nix"], 3, "no template with name"),
        (["template", "create", "web", "no-such-image", "sim-small"], 3, "no image with name 'no-such-image' was found"),
        (
            ["template", "create", "web", "base-64-lts", "a b", "--set", "script=x"],
            1,
            "    script: Invalid: a template has no script: write user_script",
        ),
        (["-p", "nix", "group", "ls"], 1, "tsg group ls: error (Config): there is no profile 'nix'"),
        (["-k", "x", "group", "ls"], 1, "error (Signing): 'x' is no fingerprint"),
        (["-a", "nobody-at-all", "group", "ls"], 1, "error (InvalidCredentials)"),
        (["api", "/v1/tsg/nothing"], 3, "error (ResourceNotFound)"),
    ],
)
def test_errors_are_lines_as_triton_has_them(run: Run, arguments: list[str], status: int, words: str) -> None:
    done = run(*arguments, status=status)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_nothing_is_deleted_unasked(run: Run, tsg: Caller) -> None:
    group = tsg.make_group(3)
    for command in (["group", "rm", group["group_name"]], ["group", "scale", group["group_name"], "0"]):
        assert "there is no terminal: use --force" in run(*command, status=2).stderr
    assert tsg.capacity(group) == 3
    run("group", "scale", group["group_name"], "0", "-f")
    assert tsg.capacity(group) == 0


def test_a_short_id_of_several_is_refused(run: Run, tsg: Caller) -> None:
    group = tsg.make_group()
    twin = group["id"][:8] + "-0000-4000-8000-000000000000"
    statement = "INSERT INTO tsg_groups (id, name, template_id, account_id, capacity, created_at, updated_at, archived)"
    tsg.api.sql(
        f"{statement} SELECT '{twin}', 'twin', template_id, account_id, 0, now(), now(), false FROM tsg_groups WHERE id = :id",
        id=group["id"],
    )
    assert "is an ambiguous short id" in run("group", "get", group["id"][:8], status=1).stderr
    assert json.loads(run("group", "get", "twin").stdout)["id"] == twin


def test_waiting_says_how_far_it_is_and_ends_with_what_to_do(run: Run, tsg: Caller) -> None:
    group = tsg.make_group(1)
    instances(tsg.api, group, "running")
    looked_at(tsg.api, group, Reason.SETTLED)
    assert "is settled, 1 of 1 running, after" in run("group", "wait", group["group_name"]).stderr
    looked_at(tsg.api, group, Reason.QUOTA_EXCEEDED)
    told = run("group", "wait", group["group_name"], status=1).stderr
    assert "error (QuotaExceeded): " in told
    assert "have its limits raised" in told
    assert f"tsg group explain {group['id']}" in told
    assert "QuotaExceeded" in run("group", "explain", group["group_name"]).stdout


def test_a_deleted_group_is_explained_by_its_id(run: Run, tsg: Caller) -> None:
    group = tsg.make_group(1)
    run("group", "rm", group["group_name"], "-f")
    assert "Deleting" in run("group", "explain", group["id"]).stdout
    run("group", "activities", group["id"])


def test_members_are_protected_marked_removed_and_let_go(run: Run, tsg: Caller) -> None:
    group = tsg.make_group(3)
    name = group["group_name"]
    first, second, third = (make_member(tsg, group, name=f"web-{number}") for number in (1, 2, 3))
    assert rows(run("member", "ls", name, "-H", "-o", "name,state,health", "-s", "name").stdout)[0] == ["web-1", "running", "unknown"]
    assert json.loads(run("member", "get", name, second[:8]).stdout)["machine_id"] == second
    assert run("member", "protect", name, "web-1", "--for", "1.5", "--note", "has state").stdout.startswith(
        f"Protected web-1 ({first}) until "
    )
    assert rows(run("members", name, "-H", "-o", "name,protected", "-s", "name").stdout)[0] == ["web-1", "yes"]
    run("member", "unprotect", name, "web-1")
    run("member", "mark-unhealthy", name, "web-2")
    assert rows(run("members", name, "-H", "-o", "health", "-s", "name").stdout) == [["unknown"], ["unhealthy"], ["unknown"]]
    run("member", "mark-healthy", name, "web-2")
    assert "there is no terminal" in run("member", "rm", name, "web-3", status=2).stderr
    run("member", "rm", name, "web-3", "--decrement", "-f")
    assert tsg.capacity(group) == 2
    run("member", "rm", name, "web-2", "-f")
    assert tsg.capacity(group) == 2
    assert "no member with name" in run("member", "rm", name, "web-9", "-f", status=3).stderr
    assert third not in run("member", "detach", name, "web-9", "-f", status=3).stdout


def test_a_machine_is_adopted_and_detached(run: Run, tsg: Caller) -> None:
    group = tsg.make_group(0)
    machine_id = launch(tsg, role="db")
    tsg.api.session.post(f"{tsg.api.sim.url}/--sim/clock/advance", json={"seconds": 10}, timeout=30)
    assert f"({machine_id}) into {group['group_name']}" in run("member", "adopt", group["group_name"], machine_id[:8]).stdout
    assert rows(run("members", group["group_name"], "-H", "-o", "id").stdout) == [[machine_id]]
    assert "Detached" in run("member", "detach", group["group_name"], machine_id, "--decrement", "-f").stdout
    assert run("members", group["group_name"], "-H").stdout == ""
    assert tsg.capacity(group) == 0


def test_a_template_is_verified(run: Run) -> None:
    run("template", "create", "small", "base-64-lts", "sim-small")
    run("template", "create", "wrong", DEFAULT_IMAGE, "sim-hvm")
    assert run("template", "verify", "small").stdout == "small can be launched\n"
    assert "error (NotLaunchable): the package is for virtual machines" in run("template", "verify", "wrong", status=1).stderr
    assert "no package g9" in run("template", "create", "bad", "base-64-lts", "g9", "--verify", status=1).stderr


def test_a_template_is_made_of_files(run: Run, tmp_path: Path) -> None:
    script, body, tags = tmp_path / "script", tmp_path / "body.json", tmp_path / "tags"
    script.write_text("#!/bin/sh\n")
    body.write_text(json.dumps({"package": "sim-large", "image_id": DEFAULT_IMAGE, "metadata": {"of": "body"}}))
    tags.write_text("role=web\ncanary=true\n")
    options = ["--body", body, "-t", f"@{tags}", "--script", script, "-M", f"conf={tags}", "-v", "data@/mnt:ro", "--firewall", "--dry-run"]
    assert json.loads(run("template", "create", "files", *map(str, options)).stdout) == {
        "template_name": "files",
        "package": "sim-large",
        "image_id": DEFAULT_IMAGE,
        "tags": {"role": "web", "canary": True},
        "metadata": {"conf": "role=web\ncanary=true\n"},
        "user_script": "#!/bin/sh\n",
        "volumes": [{"name": "data", "mountpoint": "/mnt", "mode": "ro"}],
        "firewall_enabled": True,
    }
    assert run("templates", "-H").stdout == ""


def test_any_request_can_be_sent(run: Run, tsg: Caller) -> None:
    group = tsg.make_group(2)
    assert json.loads(run("api", "/v1/tsg/groups?limit=1").stdout) == [tsg.ok("GET", f"/groups/{group['id']}")]
    body = json.dumps({"instance_count": 1, "max_instance": 5})
    done = run("api", f"/v1/tsg/groups/{group['id']}/increment", "-d", body, "-i")
    assert done.stderr.startswith("202 Accepted\n")
    assert tsg.capacity(group) == 3


def test_the_doctor_finds_what_is_in_the_way(run: Run, tsg: Caller) -> None:
    well = run("doctor").stdout
    assert [line.split()[:2] for line in well.splitlines()] == [
        ["ok", one] for one in ("profile", "key", "clock", "service", "account", "CloudAPI")
    ]
    for environ, what, remedy in (
        ({"TRITON_ACCOUNT": ""}, "profile", "tsg profile create"),
        ({"TRITON_KEY_MATERIAL": ""}, "key", "ssh-add"),
        ({"TRITON_TSG_URL": "http://127.0.0.1:1"}, "service", "see the URL"),
        ({"TRITON_ACCOUNT": "nobody-at-all"}, "account", "triton key"),
        ({"TRITON_URL": "http://127.0.0.1:1"}, "CloudAPI", "see the URL of the profile"),
    ):
        lines = run("doctor", status=1, **environ).stdout.splitlines()
        failed = next(number for number, line in enumerate(lines) if line.startswith("FAIL"))
        assert lines[failed].split()[1] == what
        assert remedy in lines[failed + 1]


def test_an_account_that_is_not_enabled_is_told_whom_to_ask(tsg: Caller, tmp_path: Path) -> None:
    stranger = Caller(tsg.api, tsg.api.new_triton())
    done = run_here(main, ["doctor"], environ_of(stranger, tmp_path))
    assert done.returncode == 1
    assert "ask the service's operator to enable the account" in done.stdout


def test_profiles_are_made_and_chosen(run: Run, tsg: Caller, tmp_path: Path) -> None:
    places = ["--url", tsg.api.sim.url, "--tsg-url", tsg.api.url]
    run("profile", "create", "prod", "--account", tsg.login, "--key-id", PAIR.fingerprint, *places)
    run("profile", "set", "prod")
    bare = {"TRITON_PROFILE": "", "TRITON_ACCOUNT": "", "TRITON_TSG_URL": "", "TRITON_URL": ""}
    assert run("group", "ls", "-H", **bare).stdout == ""
    assert rows(run("profiles", "-H", **bare).stdout) == [["prod", "*", tsg.login, tsg.api.url]]
    shown = run("env", "prod").stdout
    assert f"export TRITON_TSG_URL={tsg.api.url}\n" in shown
    assert "PRIVATE KEY" not in shown
    assert "unset TRITON_ACCOUNT\n" in run("env", "-u").stdout
    run("profile", "set-url", "prod", "http://127.0.0.1:1")
    assert json.loads(run("profile", "get", "prod").stdout)["tsg_url"] == "http://127.0.0.1:1"


def test_completion_knows_commands_and_names(run: Run, tsg: Caller, tmp_path: Path) -> None:
    group = tsg.make_group()
    for shell, words in (("bash", "complete -o nosort -F"), ("zsh", "#compdef tsg"), ("fish", "complete --no-files --command tsg")):
        assert words in run("completion", shell).stdout

    def complete(line: str) -> list[str]:
        asked = {"_TSG_COMPLETE": "bash_complete", "COMP_CWORD": str(len(line.split()) - 1), "COMP_WORDS": line}
        environ = environ_of(tsg, tmp_path) | asked
        return subprocess.run([PROGRAMS / "tsg"], env=environ, capture_output=True, text=True, check=True).stdout.split()

    assert complete(f"tsg group get {group['group_name'][:4]}") == [f"plain,{group['group_name']}"]
    assert complete("tsg group ex") == ["plain,explain"]
    assert complete("tsg -a nobody group get x") == []


FILE = """
templates:
  - name: web-1
    image: base-64-lts@23.4.0
    package: sim-small
    tags: {role: web, canary: true}
groups:
  - name: web
    template: web-1
    capacity: 3
    health_check: {type: http, port: 80}
    policies:
      - {name: evenings, kind: schedule, schedule: {cron: "0 18 * * *"}, set: {capacity: 2}, mode: off}
  - name: api
    template: {image: base-64-lts@23.4.0, package: sim-large}
    capacity: 1
"""


def test_a_file_is_applied_once(run: Run, tsg: Caller, tmp_path: Path) -> None:
    file = tmp_path / "groups.yaml"
    file.write_text(FILE)
    shown = run("apply", "-f", str(file), "--dry-run").stdout
    assert "+ group web: template web-1, capacity 3\n" in shown
    assert tsg.ok("GET", "/groups") == []
    assert run("apply", "-f", str(file)).stdout == f"{shown}5 changes made\n"
    assert run("apply", "-f", str(file), "--prune").stdout == "Nothing to do\n"

    file.write_text(FILE.replace("capacity: 3", "capacity: 5"))
    assert run("apply", "-f", str(file)).stdout == "~ group web: capacity 3 -> 5\n1 change made\n"
    file.write_text(FILE.replace("capacity: 3", "capacity: 5").replace("mode: off", "mode: shadow"))
    assert run("apply", "-f", str(file)).stdout == "~ policy web/evenings: mode off -> shadow\n1 change made\n"
    exported = run("export").stdout
    assert "evenings" in exported
    file.write_text(exported)
    assert run("apply", "-f", str(file), "--prune").stdout == "Nothing to do\n"

    file.write_text(run("export", "web").stdout)
    assert "use --force" in run("apply", "-f", str(file), "--prune", status=2).stderr
    assert run("apply", "-f", str(file), "--prune", "--force").stdout.endswith("2 changes made\n")
    assert [one["group_name"] for one in tsg.ok("GET", "/groups")] == ["web"]
    assert [one["template_name"] for one in tsg.ok("GET", "/templates")] == ["web-1"]


def test_a_file_that_is_refused_half_way_says_how_far_it_came(run: Run, tsg: Caller, tmp_path: Path) -> None:
    file = tmp_path / "groups.yaml"
    file.write_text(FILE.replace("capacity: 1", "capacity: 1000"))
    done = run("apply", "-f", str(file), status=1)
    assert "4 of 5 changes were made" in done.stderr
    assert "group capacity cannot be more than 100" in done.stderr
    file.write_text("a: [")
    assert "is no YAML" in run("apply", "-f", str(file), status=1).stderr
    assert "no group with name" in run("export", "nix", status=3).stderr


def test_groups_are_watched(run: Run, tsg: Caller) -> None:
    group = tsg.make_group(2)
    make_member(tsg, group, name="web-1")
    name = group["group_name"]
    shown = run("watch", name, "--once").stdout
    assert f"{name}: 1 of 2 running" in shown
    assert "GROUP_CREATE" in shown
    assert "web-1" in shown
    assert "0 of 1 groups settled" in run("top").stdout, "where there is no terminal it is drawn once"
    run("watch", "nix", status=3)


def test_policies_are_made_changed_and_tried(run: Run, tsg: Caller) -> None:
    name = tsg.make_group(3)["group_name"]
    evenings = ["evenings", "schedule", "--cron", "0 18 * * mon-fri", "--time-zone", "Europe/Vienna", "--capacity", "5"]
    assert "next: " in run("policy", "create", name, *evenings, "--dry-run").stdout
    assert run("policy", "ls", name, "-H").stdout == ""
    run("policy", "create", name, *evenings, "--cooldown", "10,20")
    run("policy", "create", name, "queue", "target", "--metric", "pushed:queue", "--target", "10", "--set", "per=group")
    run(
        "policy", "create", name, "cpu", "step", "--metric", "pushed:cpu", "--step", "70..85:+2", "--step", "85..:+20%", "--step", "..20:-1"
    )
    hook = run("policy", "create", name, "hook", "webhook", "--change", "+1").stdout
    assert "Its URL, which is not shown again: http" in hook
    shown = rows(run("policies", name, "-H", "-o", "name,kind,mode").stdout)
    assert shown == [
        [one, kind, "active"] for one, kind in (("evenings", "schedule"), ("queue", "target"), ("cpu", "step"), ("hook", "webhook"))
    ]
    run("policy", "create", name, "once", "schedule", "--at", "2026-01-01T00:00:00Z", "--min", "2", "--duration", "60")
    does = [" ".join(row) for row in rows(run("policies", name, "-H", "-o", "does").stdout)]
    assert does[0] == "0 18 * * mon-fri Europe/Vienna: capacity 5"
    assert does[-1] == "2026-01-01T00:00:00Z, which is over: min_capacity 2 for 60 s"
    found = json.loads(run("policy", "get", name, "cpu").stdout)
    assert [(one.get("from"), one.get("to"), one["change"]) for one in found["steps"]] == [
        (70, 85, "+2"),
        (85, None, "+20%"),
        (None, 20, "-1"),
    ]

    run("policy", "update", name, "evenings", "--mode", "shadow")
    changed = json.loads(run("policy", "get", name, "evenings", "-j").stdout)
    assert (changed["mode"], changed["cooldown"], changed["set"]["capacity"]) == ("shadow", {"out_seconds": 10, "in_seconds": 20}, 5)
    assert run("policy", "preview", name, "evenings").stdout.count("next: ") > 1
    run("policy", "push", name, "queue", "55")
    assert "capacity 3 -> 6" in run("policy", "preview", name, "queue").stdout
    assert run("policy", "call", hook.split()[-1]).stdout.startswith("Decision ")
    assert "http" in run("policy", "rotate", name, "hook", "-f").stdout
    run("policy", "decisions", name)
    run("policy", "decisions", name, "queue", "-j")
    run("policy", "rm", name, "hook", "-f")
    assert "no policy with name" in run("policy", "get", name, "hook", status=3).stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--metric", "cpu"], "write cmon:cpu, prometheus:QUERY or pushed:NAME"),
        (["--step", "70:+1"], "write FROM..TO:CHANGE"),
        (["--cooldown", "5"], "write OUT,IN, such as 60,300"),
    ],
)
def test_a_field_of_a_policy_that_is_wrong_says_what_to_write(run: Run, tsg: Caller, options: list[str], words: str) -> None:
    group = tsg.make_group()
    assert words in run("policy", "create", group["group_name"], "a", "target", *options, status=2).stderr


def test_a_rollout_is_begun_paused_and_ended(run: Run, tsg: Caller) -> None:
    group = tsg.make_group(3)
    name = group["group_name"]
    assert "has had no rollout" in run("rollout", "get", name, status=3).stderr
    run("template", "create", "web-2", "base-64-lts", "sim-large")
    options = ["--max-surge", "50%", "--max-unavailable", "1", "--step", "10:600", "--step", "50:pause", "--step", "100", "--bake", "5"]
    made = json.loads(run("rollout", "start", name, "-t", "web-2", *options, "-j").stdout)
    assert (made["max_surge"], made["max_unavailable"], made["bake_seconds"]) == ("50%", 1, 5)
    assert [(one["percent"], one["pause_seconds"], one["pause"]) for one in made["steps"]] == [
        (10, 600, False),
        (50, 0, True),
        (100, 0, False),
    ]
    assert "error (Conflict)" in run("rollout", "start", name, status=1).stderr
    assert rows(run("rollouts", name, "-H", "-o", "id,state").stdout) == [[made["id"], made["state"]]]
    assert run("rollout", "pause", name).stdout.startswith(f"Paused rollout {made['id']}: Paus")
    assert "not over after 0 s" in run("rollout", "watch", name, "--wait-timeout", "0.01", status=1).stderr
    run("rollout", "resume", name, made["id"][:8])
    assert "use --force" in run("rollout", "cancel", name, status=2).stderr
    run("rollout", "cancel", name, "-f")
    assert "write PERCENT, PERCENT:SECONDS or PERCENT:pause" in run("rollout", "start", name, "--step", "x", status=2).stderr


def test_what_would_be_done_is_shown_and_nothing_is_done(run: Run, tsg: Caller) -> None:
    group = tsg.make_group(2)
    name = group["group_name"]
    for number in (1, 2):
        make_member(tsg, group, name=f"web-{number}")
    shown = run("group", "plan", name, "-c", "5").stdout
    assert shown.startswith("capacity 2 -> 5\n  launch 3 of template ")
    assert run("group", "plan", name).stdout.endswith("nothing would be done\n")
    assert json.loads(run("group", "plan", name, "-c", "1", "-j").stdout)["capacity"] == {"from": 2, "to": 1}
    assert "terminate" in run("group", "scale", name, "0", status=2).stdout
    assert "terminate" in run("group", "rm", name, status=2).stdout
    assert "web-1" in run("member", "ls", name).stdout
    run("template", "create", "web-2", "base-64-lts", "sim-large")
    assert "replace" in run("rollout", "start", name, "-t", "web-2", "--dry-run").stdout
    assert "replace" in run("member", "rm", name, "web-1", status=2).stdout
    assert run("rollouts", name, "-H").stdout == ""
    assert tsg.capacity(group) == 2


def test_notifications_are_made_changed_and_deleted(run: Run, tsg: Caller) -> None:
    group, url = tsg.make_group(), "https://example.com/hooks/tsg"
    made = run("notify", "create", url, "-g", group["group_name"], "--kind", "rollout.*").stdout
    assert "Its secret, which is not shown again: whsec_" in made
    found = json.loads(run("notify", "get", url).stdout)
    assert (found["groups"], found["kinds"], found["enabled"]) == ([group["id"]], ["rollout.*"], True)
    run("notify", "update", found["id"][:8], "--disable", "--kind", "instance.*")
    assert rows(run("notify", "ls", "-H", "-o", "url,enabled,kinds,groups").stdout) == [[url, "no", "instance.*", group["id"]]]
    assert "whsec_" in run("notify", "rotate", url, "-f").stdout
    assert run("notify", "deliveries", url, "-H").stdout == ""
    assert "no delivery with name" in run("notify", "replay", url, "nix", status=3).stderr
    run("notify", "rm", url, "-f")
    assert run("notify", "ls", "-H").stdout == ""
