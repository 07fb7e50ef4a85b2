"""A day of many groups, compressed. They are resized, lose machines, follow schedules and measures, get new templates; and things break.

What happens to whom is drawn before the day begins. Programs are killed in its first half alone: the second shows what they hold of memory.
"""

import math
import random
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice, pairwise
from typing import Any, NamedTuple

import requests

from dev.sim.prometheus import vector
from dev.soaking import faults
from dev.soaking.decided import LEAST, MOST, Decided
from dev.soaking.faults import CALM, Lane
from dev.soaking.oracle import Account, Group
from dev.soaking.owners import Owner
from dev.soaking.sources import SOURCES
from dev.soaking.trial import SETTINGS, Trial, spread
from dev.soaking.world import World

#: Minutes, at most: a schedule of the day comes once an hour.
LONGEST = 55
#: Of each hundred groups, how many are of a kind, about; a kind is how the name begins.
RESIZED, ROBBED, ROLLED, SCHEDULED, CURVED, BUSY = "resized", "robbed", "rolled", "scaled-by-schedule", "scaled-by-curve", "scaled-by-cmon"
KINDS = {RESIZED: 30, ROBBED: 25, ROLLED: 10, SCHEDULED: 20, CURVED: 14, BUSY: 1}
#: How often a day it happens to a group of a kind.
TIMES = {RESIZED: 3, ROBBED: 4, ROLLED: 2}
CAPACITIES = (1, 2, 2, 3, 3, 4, 6)
TEMPLATES = ("red", "green")
#: What Prometheus says for each instance that is needed, and how many that are, at the least and the most.
TARGET, LOWEST, HIGHEST = 10.0, 1, 6
#: Per cent of CPU that policies aim at, and by how much the day is above and below.
CPU, SWING = 50, 40
#: Capacities by schedules: when a place opens, and when it closes.
OPEN, CLOSED = 4, 1
#: Times a day at which a group's schedules come, and minutes between two, at least.
MOMENTS, APART = 4, 2
#: Requests at one time while the groups are made.
AT_ONCE = 6
#: Seconds between looks at how high the curve is.
STEP = 0.25

ACTIVITIES = (
    "SELECT account_name, v.id::text, extract(epoch FROM at)::float FROM tsg_activities v JOIN tsg_accounts a ON a.id = v.account_id"
)

#: What a machine became, and when.
Life = Sequence[tuple[float, str]]

PROGRAMS = (
    *[faults.worker_killed] * 2,
    faults.api_killed,
    faults.clock_killed,
    faults.feed_killed,
    faults.redis_crashed,
    faults.redis_flushed,
    faults.database_restarted,
)
CLOUDS = (
    *[faults.cloud_errors] * 2,
    faults.answers_lost,
    faults.creates_refused,
    faults.launches_fail,
    faults.feed_untruthful,
    faults.feed_closed,
)
#: What is broken, and until which share of the day.
LANES = (("programs", PROGRAMS, 0.5), ("cloud", CLOUDS, 1.0), ("sources", SOURCES, 1.0))


class Daytime(NamedTuple):
    """From when to when the day is, in seconds since 1970."""

    began: float
    ends: float

    def at(self, share: float) -> float:
        return self.began + share * (self.ends - self.began)

    def level(self, group: str, now: float) -> int:
        """How many instances a group needs by now: each has its noon at another time."""
        share = (min(max(now, self.began), self.ends) - self.began) / (self.ends - self.began)
        noon = zlib.crc32(group.encode()) / 2**32
        return LOWEST + round((HIGHEST - LOWEST) * (1 + math.sin(2 * math.pi * (share + noon))) / 2)

    def crossings(self, group: str) -> list[tuple[float, int]]:
        """When a group comes to need another number of instances, and which."""
        looks = [self.began + STEP * number for number in range(int((self.ends - self.began) / STEP) + 1)]
        levels = [(at, self.level(group, at)) for at in looks]
        return [found for (_, before), found in pairwise(levels) if found[1] != before]


class Due(NamedTuple):
    """What is to be done to a group, and when: as a share of the day."""

    share: float
    kind: str
    name: str


class Resident(Owner):
    """One account, and what its groups went through."""

    def __init__(self, world: World, account: Account, dice: random.Random) -> None:
        super().__init__(world, account, dice)
        #: Seconds from a request until the group was said to be settled.
        self.settled: list[float] = []
        #: When machines of a group died, by the group's id.
        self.deaths: dict[str, list[float]] = defaultdict(list)
        #: When schedules come, by the group's id.
        self.moments: dict[str, list[float]] = {}

    def move_in(self, groups: Sequence[tuple[str, int]]) -> None:
        """Make groups of these names and capacities."""
        self.look("/groups")  # the service makes a key of the account, and has few places for those who wait for that
        self.listen()
        for template in TEMPLATES:
            self.create_template("", template, 0, 0)
        for name, capacity in groups:
            body = {
                "group_name": name,
                "template_id": self._account.templates[TEMPLATES[0]],
                "capacity": CLOSED if _kind(name) == SCHEDULED else capacity,
            }
            bounds = {"min_capacity": LEAST, "max_capacity": MOST}
            sent = time.time()
            group = self._account.made(self._tsg.ok("POST", "/groups", body | bounds, status=201), sent)
            if _kind(name) == CURVED:
                metric = {"source": "prometheus", "query": 'needed{group="$group_id"}'}
                self._scale(group, "curve", {"kind": "target", "metric": metric, "target": TARGET, "per": "group"})
            if _kind(name) == BUSY:
                self._scale(group, "busy", {"kind": "target", "metric": {"source": "cmon", "measure": "cpu"}, "target": CPU})

    def hang_up_hours(self, day: Daytime) -> None:
        """The schedules of its groups: open and closed by turns, at whole minutes of the day."""
        minutes = range(math.ceil(day.began / 60) + 1, int(day.ends // 60), APART)
        for group in self._of(SCHEDULED):
            chosen = sorted(self._dice.sample(minutes, min(MOMENTS, len(minutes))))
            self.moments[group.id] = [minute * 60.0 for minute in chosen]
            for name, capacity, mine in (("opens", OPEN, chosen[::2]), ("closes", CLOSED, chosen[1::2])):
                if mine:
                    cron = f"{','.join(str(minute % 60) for minute in mine)} * * * *"
                    self._scale(group, name, {"kind": "schedule", "schedule": {"cron": cron}, "set": {"capacity": capacity}})

    def live(self, day: Daytime) -> None:
        """Do to its groups what is due, when it is."""
        dues = [
            Due(self._dice.random(), kind, group.name) for kind, times in TIMES.items() for group in self._of(kind) for _ in range(times)
        ]
        acts = {RESIZED: self._resize, ROBBED: self._rob, ROLLED: self._roll}
        for due in sorted(dues):
            time.sleep(max(0.0, day.at(due.share) - time.time()))
            acts[due.kind](self._account.groups[due.name])

    def _of(self, kind: str) -> list[Group]:
        return [group for name, group in self._account.groups.items() if _kind(name) == kind]

    def _scale(self, group: Group, name: str, body: Mapping[str, Any]) -> None:
        more = {"stabilization": {"in_seconds": 0}} if body["kind"] == "target" else {}
        policy = {"policy_name": name, "cooldown": {"out_seconds": 0, "in_seconds": 0}, **body, **more}
        self._tsg.ok("POST", f"/groups/{group.id}/policies", policy, status=201)

    def _resize(self, group: Group) -> None:
        before = len(group.changes)
        self.resize(group.name, "", self._dice.choice(CAPACITIES), 2)
        if len(group.changes) > before:
            self._await(group)
            self.settled.append(time.time() - group.changes[-1].sent)

    def _await(self, group: Group) -> None:
        """Until the service says that the group is settled."""
        while True:
            with suppress(requests.RequestException):
                answer = self._tsg("GET", f"/groups/{group.id}/status?wait=45")
                if answer.status_code == requests.codes.ok and answer.json()["settled"]:
                    return
            time.sleep(0.5)

    def _rob(self, group: Group) -> None:
        """One of its machines dies."""
        died = time.time()
        if self._world.stack.cloud("POST", "/machines/kill", {"count": 1, "tag": {"tsg.group": group.id}})["killed"]:
            self.deaths[group.id].append(died)

    def _roll(self, group: Group) -> None:
        """A rollout of the other template, one instance after the other. Where one is under way still, that is all."""
        other = next(one for one in self._account.templates.values() if one != group.template)
        body = {"template_id": other, "max_surge": 1, "bake_seconds": 0, "in_place": False, "max_failures": 1000}
        answer, sent = self._ask("POST", f"/groups/{group.id}/rollouts", body, {201, 409})
        if answer is not None and answer.status_code == requests.codes.created:
            self._account.changed(group, group.capacity, sent, other)


class Day(Trial):
    """One day, after which all must be as it should."""

    settings = SETTINGS | {"TSG_HEALTH_CHECK_INTERVAL": "60", "TSG_POLICY_INTERVAL": "10"}
    look = 5.0

    def __init__(self, world: World, seed: int, out: Any, groups: int) -> None:
        super().__init__(world, seed, out)
        self._count = groups
        self._residents = [Resident(world, account, self._dice(name)) for name, account in world.accounts.items()]
        self._day = Daytime(time.time(), time.time() + 1)
        self._delays: dict[str, Any] = {}

    def run(self, minutes: float) -> None:
        self.world.stack.knobs(**CALM)
        self.world.outside.usual = self._needed
        self.world.outside.calm()
        self._move_in()
        if self._until_settled("moving in") is None:
            return
        self._day = Daytime(time.time(), time.time() + minutes * 60)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda resident: resident.hang_up_hours(self._day), self._residents))
        tasks = [partial(resident.live, self._day) for resident in self._residents]
        tasks += [partial(self._lane(name, broken).run_until, self._day.at(share)) for name, broken, share in LANES]
        self._together([*tasks, self._warm], "the day")
        is_settled = self._until_settled("the evening") is not None
        self._delays = {name: spread(list(seconds)) for name, seconds in self._measured(self.world.machines(live=False)).items()}
        if is_settled:
            self._check()
            self._check_the_day()

    def figures(self) -> dict[str, Any]:
        return self._delays

    def _dice(self, who: str) -> random.Random:
        return random.Random(f"{self.seed}/{who}")

    def _move_in(self) -> None:
        dice = self._dice("groups")
        kinds = dice.choices(list(KINDS), list(KINDS.values()), k=self._count)
        named = [(f"{kind}-{number}", CLOSED if kind == SCHEDULED else dice.choice(CAPACITIES)) for number, kind in enumerate(kinds)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            moving = [pool.submit(one.move_in, named[number :: len(self._residents)]) for number, one in enumerate(self._residents)]
            for done in moving:
                done.result()

    def _lane(self, name: str, broken: tuple[faults.Fault, ...]) -> Lane:
        """Faults that come once an hour of the day, about."""
        hour = (self._day.ends - self._day.began) / 24
        return Lane(self.world, broken, self._dice(name), pause=(0.5 * hour, 1.5 * hour))

    def _needed(self, query: str) -> dict[str, Any]:
        """What Prometheus measures."""
        (group,) = re.findall(r'"(.+)"', query)
        return vector(TARGET * self._day.level(group, time.time()))

    def _warm(self) -> None:
        """CMON's machines have more to do by day than by night, until the day is over."""
        while (now := time.time()) < self._day.ends:
            share = (now - self._day.began) / (self._day.ends - self._day.began)
            self.world.stack.knobs(cmon_cpu=round(CPU + SWING * math.sin(2 * math.pi * share)))
            time.sleep(min(5.0, max(0.0, self._day.ends - now)))

    def _check_the_day(self) -> None:
        """All schedules have come, and all that follow the curve are where it ends."""
        for resident in self._residents:
            for group_id, moments in resident.moments.items():
                came = after(moments, self._decided(group_id, "schedule"))
                if len(came) < len(moments) or min(came, default=0) < 0:
                    self.findings.violated(f"schedules of {group_id} at {moments} did nothing: {self.decisions.get(group_id)}")
        for group in self.groups:
            level = self._day.level(group.id, self._day.ends)
            if _kind(group.name) == CURVED and group.capacity != level:
                self.findings.violated(f"{group.account}'s {group.name} ({group.id}) has {group.capacity}, and needs {level}")

    # How long things took

    def _measured(self, machines: Sequence[Mapping[str, Any]]) -> dict[str, Iterable[float]]:
        """Seconds, by what took them. `machines`: all there ever were."""
        lives: dict[str, list[Life]] = defaultdict(list)
        for machine in machines:
            lives[machine["tags"].get("tsg.group", "")].append(machine["life"])
        return {
            "seconds_from_a_request_until_it_was_settled": [seconds for one in self._residents for seconds in one.settled],
            "seconds_from_a_death_until_the_next_launch": self._replacements(lives),
            "seconds_from_the_time_of_a_schedule_until_it_was_done": self._schedules(),
            "seconds_from_a_change_of_a_measure_until_the_decision": self._changes(),
            "seconds_from_an_activity_until_it_was_heard_of": self._deliveries(),
            "seconds_of_a_wave_beside_the_boot": self._waves(lives),
        }

    def _decided(self, group_id: str, by: str) -> list[Decided]:
        """The changes of a group, in their order."""
        return sorted((one for one in self.decisions.get(group_id, []) if one.changes and one.by == by), key=lambda one: one.at)

    def _replacements(self, lives: Mapping[str, Sequence[Life]]) -> Iterator[float]:
        for resident in self._residents:
            for group_id, deaths in resident.deaths.items():
                births = sorted(life[0][0] for life in lives[group_id])
                for died in deaths:
                    births = [at for at in births if at > died]
                    if births:
                        yield births.pop(0) - died

    def _schedules(self) -> Iterator[float]:
        for resident in self._residents:
            for group_id, moments in resident.moments.items():
                yield from after(moments, self._decided(group_id, "schedule"))

    def _changes(self) -> Iterator[float]:
        """Of all that follow the curve: each number that was needed, until it was asked for. What was overtaken by the next is left out."""
        for group in self.groups:
            if _kind(group.name) == CURVED:
                crossings, made = self._day.crossings(group.id), self._decided(group.id, "measure")
                for (at, level), (until, _) in pairwise([*crossings, (math.inf, 0)]):
                    yield from islice((one.at - at for one in made if one.after == level and at - STEP < one.at < until), 1)

    def _deliveries(self) -> Iterator[float]:
        heard = self.world.outside.receivers.heard
        for account, activity, at in self.world.stack.sql(ACTIVITIES):
            if activity in heard.get(account, {}):
                yield heard[account][activity] - at

    def _waves(self, lives: Mapping[str, Sequence[Life]]) -> Iterator[float]:
        """One for each rollout: what its waves took beside the boots of their machines, on average."""
        for group_id, rollouts in self._rollouts().items():
            spans = [(life[0][0], next((at for at, what in life if what == "running"), math.inf)) for life in lives[group_id]]
            for one in rollouts:
                boots = [ran - made for made, ran in spans if one.began <= made and ran <= one.ended < math.inf]
                if boots:
                    yield (one.ended - one.began - sum(boots)) / len(boots)


def _kind(name: str) -> str:
    return name.rpartition("-")[0]


def after(moments: Sequence[float], made: Sequence[Decided]) -> list[float]:
    """Seconds from each moment until the decision that came of it: one for each, in their order, however late."""
    return [one.at - at for at, one in zip(moments, made, strict=False)]
