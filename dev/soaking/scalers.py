"""What owners of a group that scales itself do: policies come, change and go, measures move, webhooks are called."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import requests

from dev.client import send
from dev.processes import wait_for
from dev.sim.prometheus import vector
from dev.soaking.decided import COOLDOWNS, LEAST, MOST
from dev.soaking.oracle import SCALED, Call
from dev.soaking.users import PATIENCE, TEMPLATES, User

#: Each policy by its name; `at` of the one that is due once is set when it is sent.
POLICIES: dict[str, dict[str, Any]] = {
    "queue": {"kind": "target", "metric": {"source": "pushed", "name": "queue"}, "target": 10, "per": "group"},
    "cpu": {"kind": "target", "metric": {"source": "cmon", "measure": "cpu"}, "target": 50},
    "lag": {
        "kind": "step",
        "metric": {"source": "prometheus", "query": 'lag{group="$group_id"}'},
        "steps": [{"from": 50, "change": "+2"}, {"to": 5, "change": "-20%"}],
    },
    "up": {"kind": "webhook", "change": "+1"},
    "down": {"kind": "webhook", "change": -1, "on_bound": "reject"},
    "flood": {"kind": "webhook", "change": "+50%"},
    "soon": {"kind": "schedule", "set": {"capacity": 4}},
    "minutely": {"kind": "schedule", "schedule": {"cron": "* * * * *", "time_zone": "Europe/Vienna"}, "set": {"capacity": 3}},
}
HOOKS = [name for name, policy in POLICIES.items() if policy["kind"] == "webhook"]
#: Calls of a flood, and how many come at once.
FLOOD, AT_ONCE = 40, 8


class Scaler(User):
    """The group `scaled` of one account: its policies alone change its capacity."""

    def furnish(self) -> None:
        """Receivers first, so that they hear of all; then the group with all policies."""
        self.listen()
        gone = f"{self._world.outside.receivers.url}/gone/{self._account.name}"
        self._tsg.ok("POST", "/notifications", {"url": gone}, status=201)
        super().furnish()
        body = {"group_name": SCALED, "template_id": self._account.templates[TEMPLATES[0]], "capacity": 3}
        sent = time.time()
        made = self._tsg.ok("POST", "/groups", {**body, "min_capacity": LEAST, "max_capacity": MOST}, status=201)
        self._account.made(made, sent)
        for name in POLICIES:
            self._put(name, "active")

    def send(self, count: int) -> None:
        """All its policies are active again, as far as whatever is broken lets that through."""
        for name in POLICIES:
            self._put(name, "active")
        super().send(count)

    # What they do

    def change(self, _name: str, _template: str, number: int, bound: int) -> None:
        name = sorted(POLICIES)[number % len(POLICIES)]
        self._put(name, ("active", "active", "active", "out_only", "shadow")[bound % 5])

    def drop(self, _name: str, _template: str, number: int, _bound: int) -> None:
        found = self._policies().get(sorted(POLICIES)[number % len(POLICIES)])
        if found:
            self._account.hooks.pop(found["policy_name"], None)
            self._ask("DELETE", f"{self._path}/policies/{found['id']}", None, {204, 404}, changes=False)

    def rotate(self, _name: str, _template: str, number: int, _bound: int) -> None:
        found = self._policies().get(HOOKS[number % len(HOOKS)])
        if found:
            self._account.hooks.pop(found["policy_name"], None)
            answer, _ = self._ask("POST", f"{self._path}/policies/{found['id']}/rotate", None, {200}, changes=False)
            self._know(answer)

    def push(self, _name: str, _template: str, number: int, bound: int) -> None:
        value = float("1e6") if number == 0 else number * bound / 2.0
        self._ask("PUT", f"{self._path}/metrics/queue", {"value": value}, {204, 503}, changes=False)

    def load(self, _name: str, _template: str, number: int, bound: int) -> None:
        """Machines and a queue elsewhere are busy, or not."""
        self._world.stack.knobs(cmon_cpu=number * 8)
        self._world.outside.prometheus.answer = vector(bound * 6.0)

    def call(self, _name: str, _template: str, number: int, bound: int) -> None:
        """A delivery that may come twice, or at two processes at one time."""
        policy = ("up", "down")[number % 2]
        if url := self._account.hooks.get(policy):
            call = Call(str(uuid.uuid4()), policy, url)
            with ThreadPoolExecutor(2) as pool:
                for ids in pool.map(lambda _: self._call(url, call.key), range(1 + bound % 3)):
                    call.ids.update(ids)
            self._account.calls.append(call)

    def flood(self, _name: str, _template: str, number: int, _bound: int) -> None:
        url = self._account.hooks.get("flood")
        if url and number % 3 == 0:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda _: self._call(url, None), range(FLOOD)))

    def turn_on_gone(self, _name: str, _template: str, _number: int, _bound: int) -> None:
        """The receiver that wants nothing is to be told again."""
        answer, _ = self._ask("GET", "/notifications", None, {200}, changes=False)
        gone = [one for one in answer.json() if "/gone/" in one["url"]] if answer is not None else []
        if gone:
            self._ask("PUT", f"/notifications/{gone[0]['id']}", {"url": gone[0]["url"]}, {200}, changes=False)

    def look_at_decisions(self, _name: str, _template: str, _number: int, _bound: int) -> None:
        self._ask("GET", f"{self._path}/decisions?limit=20", None, {200}, changes=False)

    # When all is to become quiet

    def wind_up(self) -> None:
        """From now on its policies decide, and change nothing: each is there, and has its cooldowns still."""
        if SCALED in self._account.groups:
            for name in POLICIES:
                if not wait_for(lambda name=name: self._put(name, "shadow"), seconds=PATIENCE):  # type: ignore[misc]
                    self._findings.violated(f"{self._account.name}: the policy {name} cannot be changed")

    # One request

    @property
    def _path(self) -> str:
        return f"/groups/{self._account.groups[SCALED].id}"

    def _policies(self) -> dict[str, dict[str, Any]]:
        answer, _ = self._ask("GET", f"{self._path}/policies", None, {200}, changes=False)
        return {one["policy_name"]: one for one in answer.json()} if answer is not None else {}

    def _put(self, name: str, mode: str) -> bool:
        """Make the policy, or change it; was it answered so?"""
        found = self._policies().get(name)
        out_seconds, in_seconds = COOLDOWNS[name]
        body = {"policy_name": name, "mode": mode, "cooldown": {"out_seconds": out_seconds, "in_seconds": in_seconds}, **POLICIES[name]}
        if body["kind"] == "target":
            body["stabilization"] = {"in_seconds": 2}
        if name == "soon":
            body["schedule"] = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))}
        if found:
            answer, _ = self._ask("PUT", f"{self._path}/policies/{found['id']}", body, {200, 404}, changes=False)
        else:
            answer, _ = self._ask("POST", f"{self._path}/policies", body, {201, 409}, changes=False)
            self._know(answer)
        return answer is not None and answer.status_code in {200, 201}

    def _know(self, answer: requests.Response | None) -> None:
        if answer is not None and "webhook_url" in (shown := answer.json()):
            self._account.hooks[shown["policy_name"]] = shown["webhook_url"]

    def _call(self, url: str, key: str | None) -> list[str]:
        """The id that is answered."""
        sent = time.time()
        self._world.disturbed()
        try:
            answer = send("POST", url, json={"alert": "soak"}, headers={"Idempotency-Key": key} if key else {}, timeout=60)
        except requests.RequestException:
            self._findings.answered("HOOK", None)
            return []
        self._findings.answered("HOOK", answer.status_code)
        if answer.status_code == requests.codes.accepted:
            return [answer.json()["decision_id"]]
        if answer.status_code != requests.codes.unavailable or not self._world.was_away(sent):
            self._findings.violated(f"{self._account.name}: a webhook answered {answer.status_code} {answer.text[:300]}")
        return []

    acts: ClassVar = (
        *[change] * 4,
        drop,
        rotate,
        *[push] * 5,
        *[load] * 5,
        *[call] * 8,
        *[flood] * 2,
        turn_on_gone,
        look_at_decisions,
    )
