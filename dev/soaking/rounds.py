"""Rounds of random requests and random faults, each followed by a pause in which everything has to come right."""

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from dev.soaking.faults import CALM, CLOUDS, NOMADS, OURS, Lane
from dev.soaking.oracle import Group, Scaled
from dev.soaking.owners import Owner
from dev.soaking.scalers import Scaler
from dev.soaking.sources import SOURCES
from dev.soaking.trial import PATIENCE, SETTINGS, Trial, spread
from dev.soaking.world import World

#: Seconds between checks of a group, and for the replacement of a dead machine besides.
CHECK_INTERVAL, REPLACED_WITHIN = 10.0, 2.0

FAULT_NAMES = {fault.__name__ for fault in (*OURS, *NOMADS, *CLOUDS, *SOURCES)}


class Soak(Trial):
    """Rounds of requests and faults, each followed by a pause in which everything has to come right."""

    settings = SETTINGS | {"TSG_HEALTH_CHECK_INTERVAL": f"{CHECK_INTERVAL:.0f}", "TSG_POLICY_INTERVAL": "1"}

    def __init__(self, world: World, seed: int, out: Any, only: set[str]) -> None:
        super().__init__(world, seed, out)
        ours = OURS + (NOMADS if world.stack.nomad_url else ())
        lanes = {"ours": ours, "cloud": CLOUDS, "sources": SOURCES}
        self._faults = {name: tuple(fault for fault in lane if not only or fault.__name__ in only) for name, lane in lanes.items()}
        self.rounds = 0
        #: Seconds from the last disturbance of a round until each group was settled, and until all were.
        self.of_groups: list[float] = []
        self.of_all: list[float] = []
        #: Seconds from the death of a machine, with nothing else wrong, until its replacement was asked for.
        self.replaced: list[float] = []

    def run(self, minutes: float) -> None:
        self.world.stack.knobs(**CALM)
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

    def figures(self) -> dict[str, Any]:
        return {
            "rounds": self.rounds,
            "seconds_until_a_group_was_settled": spread(self.of_groups),
            "seconds_until_all_were_settled": spread(self.of_all),
            "seconds_until_a_dead_machine_was_replaced": spread(self.replaced),
        }

    # A round

    def _dice(self, who: str) -> random.Random:
        return random.Random(f"{self.seed}/{self.rounds}/{who}")

    def _disturb(self) -> None:
        """Users send requests, and things break, until all have done their share."""
        world, dice = self.world, self._dice("round")
        lanes = [Lane(world, faults, self._dice(name)) for name, faults in self._faults.items() if faults]
        tasks: list[Callable[[], None]] = [
            partial(Owner(world, account, self._dice(name)).send, dice.randint(5, 25)) for name, account in world.accounts.items()
        ]
        tasks += [
            partial(Scaler(world, account, self._dice(f"{name}'s policies")).send, dice.randint(5, 25))
            for name, account in world.accounts.items()
        ]
        tasks += [partial(lane.run, dice.randint(1, 4)) for lane in lanes]
        self._together(tasks, f"round {self.rounds} disturbed")

    def _settle(self, *, counts: bool = True) -> None:
        """Wait until every group is at its capacity and nothing else is there, and note how long each took."""
        world = self.world
        owners = [Owner(world, account, self._dice(name)) for name, account in world.accounts.items()]
        for owner, (name, account) in zip(owners, world.accounts.items(), strict=True):
            owner.wind_up()
            Scaler(world, account, self._dice(name)).wind_up()
            owner.compare()

        def end_paused_rollouts() -> None:
            for owner in owners:
                owner.end_paused_rollouts()

        quiet_since = world.last_disturbed
        settled_at = self._until_settled(f"round {self.rounds} settling", end_paused_rollouts)
        if settled_at is None or not counts:
            return
        self.of_groups += [max(0.0, settled_at[group.id] - quiet_since) for group in self.groups if not group.deleted]
        self.of_all.append(max(0.0, max(settled_at.values(), default=0.0) - quiet_since))

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
            time.sleep(self.look)
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
        members = self.world.stack.client(group.account).ok("GET", f"/groups/{group.id}/members")
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
                time.sleep(self.look)
