"""`dev/soak`: see the package."""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import requests

from dev.client import Tsg
from dev.processes import ChildError, stop_on_signals, wait_for
from dev.services import ServiceError
from dev.soaking import decided, ledger
from dev.soaking.decided import Decided
from dev.soaking.faults import CALM, CLOUDS, NOMADS, OURS, Lane, ended
from dev.soaking.ledger import Rolled
from dev.soaking.memory import Memory
from dev.soaking.oracle import Group, Scaled
from dev.soaking.outside import Outside
from dev.soaking.owners import Owner
from dev.soaking.scalers import Scaler
from dev.soaking.sources import SOURCES
from dev.soaking.world import METADATA, USERDATA, Findings, World, moment
from dev.stack import Stack
from shared.spec import rollout_settings

#: Seconds between lines of progress, and between looks while everything settles.
PROGRESS, LOOK = 10.0, 0.5
#: Seconds for everything to settle once nothing is broken any more: failures in a row are waited out in growing pauses.
PATIENCE = 240.0
#: Seconds until a receiver that lives has heard of what was done last.
HEARD = 30.0

#: Seconds between checks of a group, and for the replacement of a dead machine besides.
CHECK_INTERVAL, REPLACED_WITHIN = 10.0, 2.0

#: Shorter than what one would run with, so that a fault shorter than a coffee break is one to the service too.
SETTINGS = {
    "TSG_HEALTH_CHECK_INTERVAL": f"{CHECK_INTERVAL:.0f}",
    "TSG_LOG_FORMAT": "json",
    "TSG_LAUNCH_GRACE": "20",
    "TSG_PROVISION_TIMEOUT": "30",
    "TSG_CLOUDAPI_READ_TIMEOUT": "5",
    "TSG_NOMAD_GRACE": "15",
    "TSG_POLICY_INTERVAL": "1",
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

FAULT_NAMES = {fault.__name__ for fault in (*OURS, *NOMADS, *CLOUDS, *SOURCES)}


class Soak:
    """Rounds of requests and faults, each followed by a pause in which everything has to come right."""

    def __init__(self, world: World, seed: int, only: set[str], out: Any) -> None:
        self.world = world
        ours = OURS + (NOMADS if world.stack.nomad_url else ())
        lanes = {"ours": ours, "cloud": CLOUDS, "sources": SOURCES}
        self._faults = {name: tuple(fault for fault in lane if not only or fault.__name__ in only) for name, lane in lanes.items()}
        self.findings = world.findings
        self.seed = seed
        self.rounds = 0
        #: Seconds from the last disturbance of a round until each group was settled, and until all were.
        self.of_groups: list[float] = []
        self.of_all: list[float] = []
        #: Seconds from the death of a machine, with nothing else wrong, until its replacement was asked for.
        self.replaced: list[float] = []
        #: Machines that failed before any list showed them, and whose launch was not answered.
        self.never_listed: set[str] = set()
        self.counters: dict[str, Any] = {}
        #: All decisions of policies, by the group's id.
        self.decisions: dict[str, list[Decided]] = {}
        self.memory = Memory()
        self._began = time.monotonic()
        self._out = out
        self._said = 0.0

    def run(self, minutes: float) -> None:
        self.world.knobs(**CALM)
        for name, account in self.world.accounts.items():
            Scaler(self.world, account, self._dice(name)).furnish()
        while not self.rounds or time.monotonic() - self._began < minutes * 60:
            self.rounds += 1
            self._disturb()
            self._settle()
            self._check()
            if not self.findings.violations:
                self._touch()
            if self.findings.violations:
                return
        self._empty()

    # A round

    def _dice(self, who: str) -> random.Random:
        return random.Random(f"{self.seed}/{self.rounds}/{who}")

    def _disturb(self) -> None:
        """Users send requests, and things break, until all have done their share."""
        world, dice = self.world, self._dice("round")
        lanes = [Lane(world, faults, self._dice(name)) for name, faults in self._faults.items() if faults]
        with ThreadPoolExecutor(20) as pool:
            running = [
                pool.submit(Owner(world, account, self._dice(name)).send, dice.randint(5, 25)) for name, account in world.accounts.items()
            ]
            running += [
                pool.submit(Scaler(world, account, self._dice(f"{name}'s policies")).send, dice.randint(5, 25))
                for name, account in world.accounts.items()
            ]
            running += [pool.submit(lane.run, dice.randint(1, 4)) for lane in lanes]
            while not all(done.done() for done in running):
                self._progress("disturbed")
                time.sleep(0.2)
            for done in running:
                done.result()
        world.knobs(**CALM)
        world.outside.calm()
        for death in ended(world.stack.processes):
            self.findings.violated(death)
        world.stack.restart_the_dead()

    def _settle(self, *, counts: bool = True) -> None:
        """Wait until every group is at its capacity and nothing else is there, and note how long each took."""
        world = self.world
        owners = [Owner(world, account, self._dice(name)) for name, account in world.accounts.items()]
        for owner, (name, account) in zip(owners, world.accounts.items(), strict=True):
            owner.wind_up()
            Scaler(world, account, self._dice(name)).wind_up()
            owner.compare()
        quiet_since, deadline = world.last_disturbed, time.monotonic() + PATIENCE
        waiting = {group.id: group for account in world.accounts.values() for group in account.all_groups.values()}
        settled_at: dict[str, float] = {}
        while True:
            problems = self._unsettled(list(waiting.values()))
            now = time.time()
            for group_id in waiting.keys() - problems.keys():
                settled_at.setdefault(group_id, now)
            for group_id in problems:
                settled_at.pop(group_id, None)
            if not problems:
                break
            if time.monotonic() > deadline:
                for problem in problems.values():
                    self.findings.violated(f"not settled {PATIENCE:.0f} s after the last disturbance: {problem}")
                return
            self._progress(f"settling, {len(problems)} groups to go")
            for owner in owners:
                owner.end_paused_rollouts()
            time.sleep(LOOK)
        if not counts:
            return
        self.of_groups += [max(0.0, settled_at[group.id] - quiet_since) for group in waiting.values() if not group.deleted]
        self.of_all.append(max(0.0, max(settled_at.values(), default=0.0) - quiet_since))

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
        for account in self.world.accounts.values():
            for group in account.all_groups.values():
                if isinstance(group, Scaled):
                    group.decided(decided.changes(group.changes[0].capacity, self.decisions.get(group.id, [])))

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
        wait_for(lambda: all(ids <= told.heard.get(name, set()) for name, ids in done.items()), seconds=HEARD)
        for name, ids in done.items():
            if lost := ids - told.heard.get(name, set()):
                self.findings.violated(f"{name} was not told of the activities {sorted(lost)[:5]}, {len(lost)} in all")
        for problem in told.problems:
            self.findings.violated(problem)

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

    def _check(self) -> None:
        """What must be so whenever all is quiet."""
        world, findings = self.world, self.findings
        groups = {group.id: group for account in world.accounts.values() for group in account.all_groups.values()}
        everything, timeout = world.machines(live=False), float(SETTINGS["TSG_PROVISION_TIMEOUT"])
        for problem in ledger.violations(everything, groups, provision_timeout=timeout, rollouts=self._rollouts()):
            findings.violated(problem)
        truth = {machine["id"] for machine in self._there()}
        known = self._known()
        if truth != known:
            findings.violated(
                f"the service knows of {sorted(known - truth)} that are not there, and not of {sorted(truth - known)} that are"
            )
        for account in world.accounts.values():
            tsg = world.client(account.name)
            for group in account.groups.values():
                asked = lambda group=group, tsg=tsg: tsg("GET", f"/groups/{group.id}/instances")  # noqa: E731
                wait_for(lambda asked=asked: asked().status_code != 503, seconds=10)  # CloudAPI may throttle the account still
                answer = asked()
                if answer.status_code != 200 or len(answer.json()) != group.capacity:
                    findings.violated(f"{account.name}: instances of {group.name} answered {answer.status_code} {answer.text[:300]}")
                status = tsg.ok("GET", f"/groups/{group.id}/status")
                self._check_members(group, tsg)
                if not status["settled"] or (status["desired"], status["running"]) != (group.capacity, group.capacity):
                    findings.violated(f"{account.name}: all is quiet, and the status of {group.name} is {status}")
        explained = {row[0] for row in world.stack.sql("SELECT machine_id::text FROM tsg_activities WHERE machine_id IS NOT NULL")}
        unexplained = [row["id"] for row in everything if "tsg.group" in row["tags"] and row["id"] not in {*explained, *self.never_listed}]
        if unexplained:
            findings.violated(f"no activity names the machines {unexplained}")
        self._check_policies()
        self.counters = world.stack.cloud("GET", "/counters")
        self._check_logs()

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

    def _check_logs(self) -> None:
        """Nothing secret, and no fault of the service's own."""
        stack = self.world.stack
        secrets = [stack.environment["TSG_SECRET_KEYS"], "PRIVATE KEY", "Signature keyId", USERDATA, METADATA]
        for file in sorted((stack.directory / "log").glob("*.log")):
            if file.stem in SIMULATORS:
                continue
            for line in file.read_text(errors="replace").splitlines():
                if any(secret in line for secret in secrets):
                    self.findings.violated(f"a secret is in {file.name}: {line[:80]} ...")
                if '"pass_failed"' in line or '"request_failed"' in line:
                    self.findings.violated(f"a fault of the service's own in {file.name}: {line[:3000]}")

    def _touch(self) -> None:
        """With nothing else wrong: a group is made smaller, and a machine of another one dies."""
        world, dice = self.world, self._dice("touch")
        groups = [
            group
            for account in world.accounts.values()
            for group in account.groups.values()
            if group.capacity > 1 and not isinstance(group, Scaled)
        ]
        if len(groups) < 2:
            return
        shrunk, robbed = dice.sample(groups, 2)
        before, outdated = self._lives(shrunk), self._outdated(shrunk)
        account = world.accounts[shrunk.account]
        Owner(world, account, dice).resize(shrunk.name, "", dice.randint(1, shrunk.capacity - 1), 2)
        victim = next(iter(self._lives(robbed)))
        died = time.time()
        world.stack.cloud("POST", f"/machines/{victim}/kill")
        # Where Nomad scales, its cron has to come round, and a run has to start.
        deadline = died + CHECK_INTERVAL + REPLACED_WITHIN + (8.0 if world.stack.nomad_url else 0.0)
        while not (born := [at for at in self._lives(robbed).values() if at > died]) and time.time() < deadline:
            time.sleep(LOOK)
        if born:
            self.replaced.append(born[0] - died)
        else:
            self.findings.violated(f"a dead machine of {robbed.account}'s {robbed.name} is not replaced after {time.time() - died:.0f} s")
        self._settle(counts=False)
        after = self._lives(shrunk)
        # Outdated ones go first, then the oldest. CloudAPI tells times in milliseconds: of two made within one, either is the older.
        order = {machine: (machine not in outdated, at) for machine, at in before.items()}
        last_gone = max((order[machine] for machine in before if machine not in after), default=(False, 0.0))
        first_left = min((order[machine] for machine in after if machine in order), default=(True, float("inf")))
        if not after.keys() <= before.keys() or last_gone > (first_left[0], first_left[1] + 0.002):
            self.findings.violated(
                f"of {shrunk.account}'s {shrunk.name} not the oldest went: {before} became {after}, outdated: {outdated}"
            )

    def _outdated(self, group: Group) -> set[str]:
        members = self.world.client(group.account).ok("GET", f"/groups/{group.id}/members")
        return {member["machine_id"] for member in members if member["outdated"]}

    def _lives(self, group: Group) -> dict[str, float]:
        """When the machines of a group that are there were made, the oldest first."""
        mine = [row for row in self._there() if row["tags"].get("tsg.group") == group.id]
        return {row["id"]: row["life"][0][0] for row in sorted(mine, key=lambda row: row["life"][0][0])}

    def _empty(self) -> None:
        """In the end everything is deleted, and nothing may be left."""
        self.rounds += 1
        for name, account in self.world.accounts.items():
            user = Owner(self.world, account, self._dice(name))
            for group in list(account.groups):
                user.delete_group(group, "", 0, 0)
        self._settle(counts=False)
        self._check()
        if self.world.stack.nomad_url:
            deadline = time.monotonic() + PATIENCE
            while jobs := self.world.nomad("GET", "/v1/jobs").json():
                if time.monotonic() > deadline:
                    self.findings.violated(f"jobs are left in Nomad: {[job['ID'] for job in jobs]}")
                    return
                time.sleep(LOOK)

    def _progress(self, phase: str) -> None:
        self.memory.look((name, child) for name, child in list(self.world.stack.processes.items()) if name not in SIMULATORS)
        if time.monotonic() - self._said < PROGRESS:
            return
        self._said = time.monotonic()
        groups = [group for account in self.world.accounts.values() for group in list(account.groups.values())]
        counters = self.world.stack.cloud("GET", "/counters")
        print(
            f"{self._said - self._began:6.0f} s  round {self.rounds} {phase}: {sum(self.findings.requests.values())} requests, "
            f"{sum(self.findings.faults.values())} faults, {len(groups)} groups that want {sum(group.capacity for group in groups)}, "
            f"{counters['creates_accepted']} creates, {counters['deletes_accepted']} deletes, {len(self.findings.violations)} violations",
            file=self._out,
            flush=True,
        )

    def report(self) -> dict[str, Any]:
        """What was done, and what came of it."""
        return {
            "seed": self.seed,
            "seconds": round(time.monotonic() - self._began),
            "rounds": self.rounds,
            "requests": dict(self.findings.requests),
            "answers": dict(self.findings.answers),
            "faults": dict(self.findings.faults),
            "seconds_until_a_group_was_settled": _spread(self.of_groups),
            "seconds_until_all_were_settled": _spread(self.of_all),
            "seconds_until_a_dead_machine_was_replaced": _spread(self.replaced),
            "decisions": dict(Counter(one.result for found in self.decisions.values() for one in found)),
            "told": sum(map(len, self.world.outside.receivers.heard.values())),
            "creates": self.counters.get("creates_accepted"),
            "deletes": self.counters.get("deletes_accepted"),
            "answers_lost": self.counters.get("answers_lost"),
            "errors_injected": self.counters.get("errors_injected"),
            "failed_before_they_were_listed": len(self.never_listed),
            "memory": self.memory.report(),
            "violations": self.findings.violations,
        }


def _by_account(rows: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for account, activity in rows:
        found.setdefault(account, set()).add(activity)
    return found


def _spread(seconds: list[float]) -> dict[str, float]:
    """How many there are, and p50, p95 and the longest."""
    ordered = sorted(seconds)
    shares = {"p50": 0.5, "p95": 0.95, "max": 1.0} if ordered else {}
    return {"count": len(ordered)} | {
        name: round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1) for name, share in shares.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="dev/soak",
        description="Run the whole service under random requests and random faults, and check that it keeps what it promises.",
        epilog="Exit codes: 0 everything held, 1 something did not. The same seed is the same sequence of requests and faults.",
    )
    parser.add_argument("--minutes", type=float, default=5.0, metavar="N", help="begin no new round after so long (default 5)")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="what the dice are made of (default: any, and printed)")
    parser.add_argument("--scaler", choices=("worker", "nomad"), default="worker", help="who converges the groups (default worker)")
    parser.add_argument("--accounts", type=int, default=3, metavar="N", help="accounts, each with up to four groups (default 3)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="worker processes (default 2)")
    parser.add_argument("--only", metavar="FAULT,...", help="break nothing else; the names are those in the report")
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output, the progress on standard error")
    given = parser.parse_args()
    only = set(filter(None, (given.only or "").split(",")))
    unknown = only - FAULT_NAMES
    if unknown:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}; there are: {', '.join(sorted(FAULT_NAMES))}")
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    stop_on_signals()
    out = sys.stderr if given.json else sys.stdout
    findings = Findings()
    print(f"soak: seed {seed}, {given.minutes:g} minutes, {given.accounts} accounts, scaler {given.scaler}", file=out, flush=True)
    soak: Soak | None = None
    with _kept_on_failure(findings, out) as directory:
        try:
            options: dict[str, Any] = {"durable": False, "scaler": given.scaler, "real_nomad": False, "cmon": True}
            with (
                closing(Outside()) as outside,
                Stack(directory, api=2, workers=given.workers, feeds=2, settings={**SETTINGS, **outside.settings}, **options) as stack,
            ):
                names = [f"account-{number}" for number in range(1, given.accounts + 1)]
                soak = Soak(World(stack, outside, names, findings), seed, only, out)
                soak.run(given.minutes)
        except KeyboardInterrupt:
            print("\nstopped", file=out)
            return 130
        except (ServiceError, ChildError, OSError, requests.RequestException, psycopg2.Error) as error:
            findings.violated(f"the soak can't go on: {type(error).__name__}: {error}")
    report = soak.report() if soak else {"seed": seed, "violations": findings.violations}
    print(json.dumps(report, indent=2) if given.json else _in_words(report), flush=True)
    return 1 if findings.violations else 0


def _in_words(report: dict[str, Any]) -> str:
    lines = [f"{name.replace('_', ' ')}: {_plain(value)}" for name, value in report.items() if name != "violations"]
    return "\n".join(["", *lines, "everything held" if not report["violations"] else f"{len(report['violations'])} VIOLATIONS"])


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in sorted(value.items(), key=lambda item: str(item[0])))
    return str(value)


@contextmanager
def _kept_on_failure(findings: Findings, out: Any) -> Iterator[Path]:
    """A directory for data and logs that stays, with the last that was done, when something did not hold."""
    directory = Path(tempfile.mkdtemp(prefix="tsg-soak-"))
    if os.geteuid() == 0:
        directory.chmod(0o711)
    yield directory
    if not findings.violations:
        shutil.rmtree(directory, ignore_errors=True)
        return
    print("\nthe last that was done:", *findings.last, sep="\n  ", file=out)
    print("\nwhat did not hold:", *findings.violations, sep="\n  ", file=out)
    print(f"\ndata and logs are kept in {directory}", file=out, flush=True)


if __name__ == "__main__":
    threading.current_thread().name = "soak"
    sys.exit(main())
