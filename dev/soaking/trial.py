"""What every trial shares: how a stack is disturbed and then awaited, and what must be so whenever all is quiet."""

import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from dev.client import Tsg
from dev.percentile import percentile
from dev.processes import wait_for
from dev.soaking import decided, ledger
from dev.soaking.decided import Decided
from dev.soaking.faults import CALM, ended
from dev.soaking.ledger import Rolled
from dev.soaking.oracle import Account, Group, Scaled
from dev.soaking.usage import Cpu, Memory
from dev.soaking.world import METADATA, USERDATA, World, moment
from shared.spec import rollout_settings

#: Seconds between lines of progress.
PROGRESS = 10.0
#: Seconds for everything to settle once nothing is broken any more: failures in a row are waited out in growing pauses.
PATIENCE = 240.0
#: Seconds until a receiver that lives has heard of what was done last.
HEARD = 30.0
#: Accounts that are looked at beside each other.
BESIDE = 4

#: Shorter than what one would run with, so that a fault shorter than a coffee break is one to the service too.
SETTINGS = {
    "TSG_LOG_FORMAT": "json",
    "TSG_LAUNCH_GRACE": "20",
    "TSG_PROVISION_TIMEOUT": "30",
    "TSG_CLOUDAPI_READ_TIMEOUT": "5",
    "TSG_NOMAD_GRACE": "15",
}

#: Deliveries and calls of webhooks that wait.
WAITING = (
    "SELECT (SELECT count(*) FROM tsg_deliveries WHERE state = 'waiting'), (SELECT count(*) FROM tsg_hook_calls WHERE decided_at IS NULL)"
)
DECISIONS = (
    "SELECT group_id::text, id::text, policy_id::text, policy_name, extract(epoch FROM at)::float, result, by, capacity_before,"
    " capacity_after FROM tsg_decisions"
)
ACTIVITIES = "SELECT account_name, v.id::text FROM tsg_activities v JOIN tsg_accounts a ON a.id = v.account_id"

#: What is not ours: it may say and keep what it likes.
SIMULATORS = {"cloudapi", "nomad"}


class Trial(ABC):
    """A world that is disturbed, and must come right. The same seed draws the same; what comes of it depends on the moment."""

    #: Settings of the service, and seconds between looks while everything settles.
    settings = SETTINGS
    look = 0.5

    def __init__(self, world: World, seed: int, out: Any) -> None:
        self.world = world
        self.findings = world.findings
        self.seed = seed
        #: Machines that failed before any list showed them, and whose launch was not answered.
        self.never_listed: set[str] = set()
        self.counters: dict[str, Any] = {}
        #: All decisions of policies, by the group's id.
        self.decisions: dict[str, list[Decided]] = {}
        self.memory, self.cpu = Memory(), Cpu()
        #: The machine's load, at each line of progress.
        self.loads: list[float] = []
        self._began = time.monotonic()
        self._out = out
        self._said = 0.0

    @abstractmethod
    def run(self, minutes: float) -> None:
        """Begin nothing new after so long."""

    @abstractmethod
    def figures(self) -> dict[str, Any]:
        """What it has measured, beside what all trials report."""

    @property
    def groups(self) -> list[Group]:
        """All there ever were."""
        return [group for account in self.world.accounts.values() for group in list(account.all_groups.values())]

    # To disturb, and to wait

    def _together(self, tasks: Sequence[Callable[[], None]], phase: str) -> None:
        """Run all beside each other to their ends. Then nothing is broken any more, and no program may have ended by itself."""
        world = self.world
        with ThreadPoolExecutor(len(tasks)) as pool:
            running = [pool.submit(task) for task in tasks]
            while not all(done.done() for done in running):
                self._progress(phase)
                time.sleep(0.2)
            for done in running:
                done.result()
        world.stack.knobs(**CALM)
        world.outside.calm()
        for death in ended(world.stack.processes):
            self.findings.violated(death)
        world.stack.restart_the_dead()

    def _until_settled(self, phase: str, meanwhile: Callable[[], None] = lambda: None) -> dict[str, float] | None:
        """Wait until every group is at its capacity and nothing else is there; when each was. None, and a violation, where one is not."""
        deadline, groups = time.monotonic() + PATIENCE, self.groups
        settled_at: dict[str, float] = {}
        while problems := self._unsettled(groups):
            now = time.time()
            settled_at = {group.id: settled_at.get(group.id, now) for group in groups if group.id not in problems}
            if time.monotonic() > deadline:
                for problem in problems.values():
                    self.findings.violated(f"not settled {PATIENCE:.0f} s after the last disturbance: {problem}")
                return None
            self._progress(f"{phase}, {len(problems)} groups to go")
            meanwhile()
            time.sleep(self.look)
        now = time.time()
        return {group.id: settled_at.get(group.id, now) for group in groups}

    def _unsettled(self, groups: list[Group]) -> dict[str, str]:
        """The groups that are not as they should be, and how."""
        self._read_decisions()
        machines: dict[str, list[dict[str, Any]]] = {}
        for machine in self._there():
            machines.setdefault(machine["tags"].get("tsg.group", ""), []).append(machine)
        rows = dict(
            self.world.stack.sql(
                "SELECT id::text, CASE WHEN archived THEN s.emptied_at IS NOT NULL ELSE s.observed_generation = g.generation"
                " AND s.last_error IS NULL AND NOT EXISTS (SELECT 1 FROM tsg_instances i WHERE i.group_id = g.id"
                " AND i.gone_at IS NULL AND i.state <> 'running') AND NOT EXISTS (SELECT 1 FROM tsg_rollouts r WHERE r.group_id = g.id"
                " AND r.ended_at IS NULL) END FROM tsg_groups g JOIN tsg_group_state s ON s.group_id = g.id"
            )
        )
        found = {}
        for group in groups:
            states = [machine["state"] for machine in machines.get(group.id, [])]
            if states != ["running"] * group.capacity or not rows.get(group.id):
                found[group.id] = (
                    f"{group.account}'s {group.name} ({group.id}{', deleted' if group.deleted else ''}): {group.capacity} wanted, "
                    f"the machines are {states or 'none'}, and the service {'has' if rows.get(group.id) else 'has not'} settled it"
                )
        if (waiting := self.world.stack.sql(WAITING)[0]) != (0, 0):
            found["policies"] = "of notifications and calls of webhooks wait {} and {}".format(*waiting)
        return found

    def _read_decisions(self) -> None:
        """What became of the capacity of the groups that scale themselves."""
        self.decisions = {}
        for group_id, *row in self.world.stack.sql(DECISIONS):
            self.decisions.setdefault(group_id, []).append(Decided(*row))
        for group in self.groups:
            if isinstance(group, Scaled):
                group.decided(decided.changes(group.changes[0].capacity, self.decisions.get(group.id, [])))

    # What must be so

    def _check(self) -> None:
        """What must be so whenever all is quiet."""
        world, findings = self.world, self.findings
        groups = {group.id: group for group in self.groups}
        everything, timeout = world.machines(live=False), float(self.settings["TSG_PROVISION_TIMEOUT"])
        for problem in ledger.violations(everything, groups, provision_timeout=timeout, rollouts=self._rollouts()):
            findings.violated(problem)
        truth = {machine["id"] for machine in self._there()}
        known = self._known()
        if truth != known:
            findings.violated(
                f"the service knows of {sorted(known - truth)} that are not there, and not of {sorted(truth - known)} that are"
            )
        with ThreadPoolExecutor(BESIDE) as pool:
            list(pool.map(self._check_account, world.accounts.values()))
        explained = {row[0] for row in world.stack.sql("SELECT machine_id::text FROM tsg_activities WHERE machine_id IS NOT NULL")}
        explained |= self.never_listed
        unexplained = [row["id"] for row in everything if "tsg.group" in row["tags"] and row["id"] not in explained]
        if unexplained:
            findings.violated(f"no activity names the machines {unexplained}")
        self._check_policies()
        self.counters = world.stack.cloud("GET", "/counters")
        self._check_logs()

    def _check_account(self, account: Account) -> None:
        tsg = self.world.stack.client(account.name)
        for group in account.groups.values():
            self._check_instances(group, tsg)
            self._check_members(group, tsg)
            status = tsg.ok("GET", f"/groups/{group.id}/status")
            if not status["settled"] or (status["desired"], status["running"]) != (group.capacity, group.capacity):
                self.findings.violated(f"{account.name}: all is quiet, and the status of {group.name} is {status}")

    def _check_instances(self, group: Group, tsg: Tsg) -> None:
        answers: list[requests.Response] = []

        def is_answered() -> bool:
            answers.append(tsg("GET", f"/groups/{group.id}/instances"))
            return answers[-1].status_code != 503  # CloudAPI may throttle the account still

        wait_for(is_answered, seconds=10)
        if answers[-1].status_code != 200 or len(answers[-1].json()) != group.capacity:
            self.findings.violated(
                f"{group.account}: instances of {group.name} answered {answers[-1].status_code} {answers[-1].text[:300]}"
            )

    def _check_members(self, group: Group, tsg: Tsg) -> None:
        """All is quiet: the members are the machines, and those of a successful rollout are of its template."""
        members = tsg.ok("GET", f"/groups/{group.id}/members")
        if len(members) != group.capacity or not all(member["available"] for member in members):
            self.findings.violated(f"{group.account}: all is quiet, and the members of {group.name} are {members}")
        newest = next(iter(tsg.ok("GET", f"/groups/{group.id}/rollouts?limit=1")), None)
        if not newest or newest["state"] != "Successful" or newest["protected"] == "skip" or newest["skip_matching"]:
            return
        old = [member["machine_id"] for member in members if member["outdated"] and member["machine_id"] not in group.adopted]
        if old and group.template == newest["template_id"] and group.turned_at < moment(newest["created_at"]):
            self.findings.violated(f"{group.account}: the rollout {newest['id']} of {group.name} was successful, and {old} are outdated")

    def _rollouts(self) -> dict[str, list[Rolled]]:
        """All there ever were, by the group's id."""
        rows = self.world.stack.sql(
            "SELECT group_id::text, extract(epoch FROM created_at)::float, extract(epoch FROM ended_at)::float, settings FROM tsg_rollouts"
        )
        found: dict[str, list[Rolled]] = {}
        for group_id, began, until, settings in rows:
            rolled = Rolled(began, float("inf") if until is None else until, rollout_settings.from_document(settings))
            found.setdefault(group_id, []).append(rolled)
        return found

    def _check_policies(self) -> None:
        """Of bounds, cooldowns, calls and decisions; and everybody who can be told has heard of everything."""
        capacities = dict(self.world.stack.sql("SELECT id::text, capacity FROM tsg_groups"))
        told = self.world.outside.receivers
        for account in self.world.accounts.values():
            for group in account.all_groups.values():
                if isinstance(group, Scaled):
                    made = self.decisions.get(group.id, [])
                    for problem in decided.violations(group.changes[0].capacity, capacities[group.id], made, account.calls):
                        self.findings.violated(f"{account.name}'s {group.name} ({group.id}): {problem}")
        done = {name: ids for name, ids in _by_account(self.world.stack.sql(ACTIVITIES)).items() if name in self.world.accounts}
        # What was done a moment ago is on its way.
        wait_for(lambda: all(ids <= told.heard.get(name, {}).keys() for name, ids in done.items()), seconds=HEARD)
        for name, ids in done.items():
            if lost := ids - told.heard.get(name, {}).keys():
                self.findings.violated(f"{name} was not told of the activities {sorted(lost)[:5]}, {len(lost)} in all")
        for problem in told.problems:
            self.findings.violated(problem)

    def _check_logs(self) -> None:
        """Nothing secret, and no fault of the service's own."""
        stack = self.world.stack
        secrets = [stack.environment["TSG_SECRET_KEYS"], "PRIVATE KEY", "Signature keyId", USERDATA, METADATA]
        for file in sorted((stack.directory / "log").glob("*.log")):
            if file.stem in SIMULATORS:
                continue
            with file.open(errors="replace") as lines:
                for line in lines:
                    if any(secret in line for secret in secrets):
                        self.findings.violated(f"a secret is in {file.name}: {line[:80]} ...")
                    if '"pass_failed"' in line or '"request_failed"' in line:
                        self.findings.violated(f"a fault of the service's own in {file.name}: {line[:3000]}")

    # What is there

    def _there(self) -> list[dict[str, Any]]:
        """The machines that are there, but for those that no list has ever shown.

        CloudAPI leaves failed machines out of its lists. So one whose launch was not answered, that failed before a list showed it, and
        that CloudAPI hid when it was asked for the launch, can't be known of; it costs nothing, and is nobody's.
        """
        known, found = self._known(), []
        for machine in self.world.machines(live=True):
            if "tsg.group" not in machine["tags"] and machine["id"] not in known:
                continue  # made by hand, or detached
            if machine["state"] == "failed" and machine["id"] not in known:
                self.never_listed.add(machine["id"])
            else:
                found.append(machine)
        return found

    def _known(self) -> set[str]:
        """The machines that the service has in its rows."""
        return {row[0] for row in self.world.stack.sql("SELECT machine_id::text FROM tsg_instances WHERE gone_at IS NULL")}

    # What is said of it

    def _progress(self, phase: str) -> None:
        stack = self.world.stack
        programs = list(stack.processes.items())
        self.memory.look((name, child.pid) for name, child in programs if name not in SIMULATORS)
        if time.monotonic() - self._said < PROGRESS:
            return
        self._said = time.monotonic()
        servers = [server for server in (stack.postgres, stack.valkey) if server.running]
        self.cpu.look([*((name, child.pid) for name, child in programs), *((one.name, one.pid) for one in servers)])
        self.loads.append(os.getloadavg()[0])
        groups = [group for group in self.groups if not group.deleted]
        counters = stack.cloud("GET", "/counters")
        print(
            f"{self._said - self._began:6.0f} s  {phase}: {sum(self.findings.requests.values())} requests, "
            f"{sum(self.findings.faults.values())} faults, {len(groups)} groups that want {sum(group.capacity for group in groups)}, "
            f"{counters['creates_accepted']} creates, {counters['deletes_accepted']} deletes, {len(self.findings.violations)} violations",
            file=self._out,
            flush=True,
        )

    def report(self) -> dict[str, Any]:
        """What was done, and what came of it."""
        seconds = time.monotonic() - self._began
        return {
            "seed": self.seed,
            "seconds": round(seconds),
            **self.figures(),
            "requests": dict(self.findings.requests),
            "answers": dict(self.findings.answers),
            "faults": dict(self.findings.faults),
            "decisions": dict(Counter(one.result for found in self.decisions.values() for one in found)),
            "told": sum(map(len, self.world.outside.receivers.heard.values())),
            "creates": self.counters.get("creates_accepted"),
            "deletes": self.counters.get("deletes_accepted"),
            "answers_lost": self.counters.get("answers_lost"),
            "errors_injected": self.counters.get("errors_injected"),
            "failed_before_they_were_listed": len(self.never_listed),
            "memory": self.memory.report(),
            "per_cent_of_a_core": {**self.cpu.report(), "soak": round(time.process_time() / seconds * 100)},
            "load_of_the_machine": spread(self.loads),
            "violations": self.findings.violations,
        }


def _by_account(rows: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for account, activity in rows:
        found.setdefault(account, set()).add(activity)
    return found


def spread(seconds: list[float]) -> dict[str, float]:
    """How many there are, and p50, p95, p99 and the highest."""
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0} if seconds else {}
    return {"count": len(seconds)} | {name: round(percentile(seconds, share), 1) for name, share in shares.items()}
