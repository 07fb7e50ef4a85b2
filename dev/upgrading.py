"""An upgrade without downtime, played: programs of another commit and these run side by side under load, on one database.

Schema first, then the scheduler and workers, then the API, then the old programs stop. Nothing may be lost, no request may be answered with
5xx, and in the end every group has its capacity, of machines that were each launched once.

With `--programs-first`, new programs also run on the old schema for a while, where they are not ready and the balancer leaves them alone.
With `--back`, groups get a rollout, a policy, settings and a protected member, which the old programs know nothing of; then the old ones
replace the new ones, and the new ones come again.
"""

import argparse
import random
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import requests

from dev.client import Tsg, send
from dev.processes import TOP, wait_for
from dev.services import scratch
from dev.stack import LISTENS, PROGRAMS, Stack

#: Clients, each with groups of its own; seconds for which each state of the upgrade lasts; and for which a group may take to settle.
CLIENTS, GROUPS, LARGEST = 4, 3, 6
PATIENCE = 120


@dataclass
class Load:
    """What clients asked for, and how they were answered. A client that can't connect to one API asks another, as behind a balancer."""

    stack: Stack
    urls: list[str]
    template: str
    stop: threading.Event = field(default_factory=threading.Event)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    #: Id of each group that is there, and the capacity it was last given.
    desired: dict[str, int] = field(default_factory=dict)

    def client(self, url: str) -> Tsg:
        """One that asks this API, of those that run."""
        return Tsg(url, self.stack.account, self.stack.key_file, self.stack.key_id)

    def send(self, method: str, path: str, body: object = None) -> requests.Response:
        # Sent again to another API, a request must not be done twice.
        key = {"Idempotency-Key": str(uuid.uuid4())} if method != "GET" else {}
        while True:
            url = random.choice(self.urls)
            try:
                answer = self.client(url)(method, path, body, headers=key)
            except requests.ConnectionError:
                if self.stop.is_set():
                    raise
                continue
            self.statuses[answer.status_code] += 1
            if answer.status_code >= 500:
                self.wrong.append(f"{method} {path} by {url}: {answer.status_code} {answer.text[:200]}")
            return answer

    def run(self, number: int) -> None:
        dice = random.Random(number)
        mine: list[str] = []
        while not self.stop.wait(dice.uniform(0.02, 0.2)):
            if len(mine) < GROUPS:
                capacity = dice.randint(0, LARGEST)
                body = {"group_name": f"g-{number}-{uuid.uuid4().hex[:8]}", "template_id": self.template, "capacity": capacity}
                made = self.send("POST", "/groups", body)
                if made.status_code == 201:
                    mine.append(made.json()["id"])
                    self.desired[mine[-1]] = capacity
                continue
            group = dice.choice(mine)
            deed = dice.random()
            if deed < 0.4:
                self.send("GET", f"/groups/{group}/status" if dice.random() < 0.5 else f"/groups/{group}")
            elif deed < 0.9:
                shown = self.send("GET", f"/groups/{group}").json()
                capacity = dice.randint(0, LARGEST)
                body = {"group_name": shown["group_name"], "template_id": self.template, "capacity": capacity}
                if self.send("PUT", f"/groups/{group}", body).status_code == 200:
                    self.desired[group] = capacity
            elif self.send("DELETE", f"/groups/{group}").status_code == 204:
                mine.remove(group)
                self.desired[group] = 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dev/upgrade", description=__doc__)
    parser.add_argument("commit", help="the commit whose programs run first; or a directory in which dev/setup has installed them")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each state of the upgrade lasts (default %(default)s)")
    parser.add_argument("--programs-first", action="store_true", help="start new programs before the schema is upgraded")
    parser.add_argument("--back", action="store_true", help="go back to the old programs, and to the new ones again")
    given = parser.parse_args(arguments)
    with scratch() as directory:
        if Path(given.commit).is_dir():
            return _upgrade(directory, Path(given.commit) / ".venv" / "bin", given)
        old = directory / "old"
        subprocess.run(["git", "worktree", "add", "--detach", str(old), given.commit], cwd=TOP, check=True, capture_output=True)
        try:
            subprocess.run([old / "dev" / "setup"], check=True)
            return _upgrade(directory, old / ".venv" / "bin", given)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=TOP, check=False)


def _upgrade(directory: Path, old: Path, given: argparse.Namespace) -> int:
    stack = Stack(directory, provision_seconds=2.0)
    stack.programs = old
    with stack:
        load = Load(stack, [stack.url], stack.client().make_template())
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(load.run, number) for number in range(CLIENTS)]
            try:
                _play(stack, load, given)
            finally:
                load.stop.set()
            for client in clients:
                client.result()
        settled = wait_for(lambda: not _unsettled(stack, load), seconds=PATIENCE)
        problems = load.wrong + ([] if settled else _unsettled(stack, load))
        made = stack.cloud("GET", "/counters")
        launched = stack.sql("SELECT count(*) FROM tsg_activities WHERE kind = 'TSG_INSTANCE_LAUNCH' AND status = 'success'")[0][0]
        if made["creates_accepted"] != launched:
            problems.append(f"CloudAPI made {made['creates_accepted']} machines, and {launched} were launched")
    print(f"{sum(load.statuses.values())} requests: {dict(sorted(load.statuses.items()))}")
    print(f"{len(load.desired)} groups, {launched} launches")
    print("\n".join(problems) or "nothing was lost, nothing doubled, and no request failed")
    return 1 if problems else 0


def _play(stack: Stack, load: Load, given: argparse.Namespace) -> None:
    """From the old programs alone to the new ones alone; and back and again."""

    def state(what: str) -> None:
        print(f"{what} ...", flush=True)
        time.sleep(given.seconds)

    old = stack.programs
    state("the old programs")
    stack.programs = PROGRAMS
    if given.programs_first:
        _start_workers(stack, "early")
        early = stack.start_process("api-early", "tsg-api", "--port=0", "--log-format=json")
        url = early.wait_for_line(LISTENS)
        state("a new scheduler, worker and API beside the old programs, on the old schema")
        print(f"the new API is not ready: {send('GET', f'{url}/readyz', timeout=10).text}")
    done = stack.run("tsg-admin", "db", "upgrade")
    if done.returncode:
        raise SystemExit(f"tsg-admin db upgrade failed:\n{done.stderr}")
    state("the old programs, on the new schema")
    _replace(stack, load, state, "new")
    if given.back:
        fancy = _Fancy(stack, load)
        stack.programs = old
        _replace(stack, load, state, "old")
        fancy.check("after the way back")
        stack.programs = PROGRAMS
        _replace(stack, load, state, "newest")
        fancy.finish()


def _start_workers(stack: Stack, which: str) -> None:
    stack.start_process(f"clock-{which}", "tsg-clock")
    stack.start_process(f"worker-{which}", "tsg-worker")


def _replace(stack: Stack, load: Load, state: Callable[[str], None], which: str) -> None:
    """Put the stack's programs in the place of those that run."""
    before = [name for name in stack.processes if name != "cloudapi"]
    _start_workers(stack, which)
    state(f"a scheduler and a worker beside, the {which} ones")
    child = stack.start_process(f"api-{which}", "tsg-api", "--port=0", "--log-format=json")
    load.urls.append(child.wait_for_line(LISTENS))
    state(f"everything beside, the {which} ones")
    # The balancer first, as in life; the API answers what it has.
    load.urls.pop(0)
    for name in before:
        stack.processes.pop(name).stop()
    state(f"the {which} programs alone")


class _Fancy:
    """Groups with what the old programs know nothing of: settings, a protected member, a policy, and a rollout that is under way."""

    def __init__(self, stack: Stack, load: Load) -> None:
        self._stack, self._load = stack, load
        tsg = load.client(load.urls[0])
        self._second = tsg.make_template("t2", tags={"colour": "green"})
        self._group, self._rolled = self._make(tsg, "kept", 3), self._make(tsg, "rolled", 4)
        for group, capacity in ((self._group, 3), (self._rolled, 4)):
            assert tsg.ok("GET", f"/groups/{group}/status?wait=60")["running"] == capacity
        member = tsg.ok("GET", f"/groups/{self._group}/members")[0]["machine_id"]
        tsg.ok("PUT", f"/groups/{self._group}/members/{member}/protection", {"protected": True})
        policy = {"policy_name": "never", "kind": "schedule", "schedule": {"at": "2099-01-01T00:00:00Z"}, "set": {"capacity": 5}}
        tsg.ok("POST", f"/groups/{self._group}/policies", policy, status=201)
        steps = [{"percent": 25, "pause": True}, {"percent": 100}]
        rollout = {"template_id": self._second, "max_surge": 1, "steps": steps, "bake_seconds": 0}
        self._rollout = tsg.ok("POST", f"/groups/{self._rolled}/rollouts", rollout, status=201)["id"]
        self._rows = self._read()

    def _make(self, tsg: Tsg, name: str, capacity: int) -> str:
        settings = {"min_capacity": 1, "ready_seconds": 1, "drain": {"seconds": 1}, "termination_policy": ["newest"]}
        body = {"group_name": name, "template_id": self._load.template, "capacity": capacity, **settings}
        group = str(tsg.ok("POST", "/groups", body, status=201)["id"])
        self._load.desired[group] = capacity
        return group

    def _read(self) -> list[object]:
        """What the owner asked for."""
        return [
            self._stack.sql("SELECT id, more, template_id FROM tsg_groups WHERE id IN (%s, %s) ORDER BY id", self._group, self._rolled),
            self._stack.sql("SELECT id, name, settings FROM tsg_policies"),
            self._stack.sql("SELECT id, settings FROM tsg_rollouts"),
            self._stack.sql("SELECT machine_id, protected FROM tsg_instances WHERE protected AND gone_at IS NULL"),
        ]

    def check(self, when: str) -> None:
        """Nothing of it may be lost."""
        if (now := self._read()) != self._rows:
            self._load.wrong.append(f"{when}, of {self._rows} there is {now}")

    def finish(self) -> None:
        """Ask the new programs to end what was under way."""
        self.check("in the end")
        tsg = self._load.client(self._load.urls[0])
        shown = lambda: tsg.ok("GET", f"/groups/{self._rolled}/rollouts/{self._rollout}")["state"]  # noqa: E731
        if not wait_for(lambda: shown() in {"Paused", "Successful"}, seconds=PATIENCE):
            self._load.wrong.append(f"the rollout is {shown()}")
        if shown() == "Paused":
            tsg.ok("PUT", f"/groups/{self._rolled}/rollouts/{self._rollout}/resume")
        if not wait_for(lambda: shown() == "Successful", seconds=PATIENCE):
            self._load.wrong.append(f"the rollout is {shown()}")
        members = tsg.ok("GET", f"/groups/{self._rolled}/members")
        if any(member["outdated"] for member in members):
            self._load.wrong.append(f"after the rollout the members are {members}")


def _unsettled(stack: Stack, load: Load) -> list[str]:
    running = Counter(
        machine["tags"].get("tsg.group") for machine in stack.cloud("GET", "/machines?live=true") if not machine["destroying"]
    )
    return [
        f"group {group} has {running[group]} machines, and {capacity} are desired"
        for group, capacity in load.desired.items()
        if running[group] != capacity
    ]


if __name__ == "__main__":
    sys.exit(main())
