"""An upgrade without downtime, played: programs of another commit and these run side by side under load, on one database.

Schema first, then the scheduler and workers, then the API, then the old programs stop. Nothing may be lost, no request may be answered with
5xx, and in the end every group has its capacity, of machines that were each launched once.
"""

import argparse
import random
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import requests

from dev.client import Tsg
from dev.processes import wait_for
from dev.services import scratch
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE
from dev.stack import PROGRAMS, Stack

TOP = Path(__file__).parent.parent
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

    def send(self, method: str, path: str, body: object = None) -> requests.Response:
        # Sent again to another API, a request must not be done twice.
        key = {"Idempotency-Key": str(uuid.uuid4())} if method != "GET" else {}
        while True:
            url = random.choice(self.urls)
            client = Tsg(url, self.stack.account, self.stack.key_file, self.stack.key_id)
            try:
                answer = client(method, path, body, headers=key)
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
    parser.add_argument("commit", help="the commit whose programs run first")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each state of the upgrade lasts (default %(default)s)")
    given = parser.parse_args(arguments)
    with scratch() as directory:
        old = directory / "old"
        subprocess.run(["git", "worktree", "add", "--detach", str(old), given.commit], cwd=TOP, check=True, capture_output=True)
        try:
            subprocess.run([old / "dev" / "setup"], check=True)
            return _upgrade(directory, old / ".venv" / "bin", given.seconds)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=TOP, check=False)


def _upgrade(directory: Path, old: Path, seconds: float) -> int:
    stack = Stack(directory, provision_seconds=2.0)
    stack.programs = old
    with stack:
        tsg = Tsg(stack.url, stack.account, stack.key_file, stack.key_id)
        spec = {"template_name": "t", "package": DEFAULT_PACKAGE, "image_id": DEFAULT_IMAGE}
        load = Load(stack, [stack.url], tsg.ok("POST", "/templates", spec, status=201)["id"])
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(load.run, number) for number in range(CLIENTS)]
            try:
                _play(stack, load, seconds)
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


def _play(stack: Stack, load: Load, seconds: float) -> None:
    """From the old programs alone to the new ones alone."""

    def state(what: str) -> None:
        print(f"{what} ...", flush=True)
        time.sleep(seconds)

    old = [name for name in stack.processes if name != "cloudapi"]
    state("the old programs")
    stack.programs = PROGRAMS
    done = stack.run("tsg-admin", "db", "upgrade")
    if done.returncode:
        raise SystemExit(f"tsg-admin db upgrade failed:\n{done.stderr}")
    state("the old programs, on the new schema")
    stack.start_process("clock-new", "tsg-clock")
    stack.start_process("worker-new", "tsg-worker")
    state("a scheduler and a worker of both")
    child = stack.start_process("api-new", "tsg-api", "--port=0", "--log-format=json")
    load.urls.append(stack.wait_for_url("api-new", child))
    state("everything of both")
    # The balancer first, as in life; the API answers what it has.
    load.urls.pop(0)
    for name in old:
        stack.processes.pop(name).stop()
    state("the new programs")


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
