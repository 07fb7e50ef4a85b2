"""The requests of one account, one after the other, each with the answer that the model expects."""

import random
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import requests

from dev.client import Tsg
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE
from dev.soaking.oracle import Account, Group
from dev.soaking.world import METADATA, USERDATA, World, moment

TEMPLATES = ("red", "green", "blue")
#: Few names, so that they are used again and again.
GROUPS = ("alpha", "beta", "gamma", "delta")
MOST = 12
#: Seconds between requests of one account, at most.
PAUSE = 1.5
#: Seconds for the service to answer a look again, after whatever was broken.
PATIENCE = 120
#: Seconds by which the database's time of something may be before ours of what came before it.
CLOCKS = 1.0

Answer = requests.Response | None


class User:
    """One account's requests; draws from its own dice alone, so that the same seed sends the same requests."""

    #: What it does, as often as it stands here.
    acts: ClassVar[Sequence[Callable[..., None]]]

    def __init__(self, world: World, account: Account, dice: random.Random) -> None:
        self._world = world
        self._findings = world.findings
        self._account = account
        self._dice = dice
        self._tsg: Tsg = world.stack.client(account.name)

    def furnish(self) -> None:
        """All templates, and a group of each name."""
        for template in TEMPLATES:
            self.create_template("", template, 0, 0)
        for name in GROUPS:
            self.create_group(name, self._dice.choice(TEMPLATES), self._dice.randint(0, MOST), 0)

    def listen(self) -> None:
        """A receiver that hears of all that is done from now on."""
        receivers, name = self._world.outside.receivers, self._account.name
        made = self._tsg.ok("POST", "/notifications", {"url": f"{receivers.url}/good/{name}"}, status=201)
        receivers.secrets[name] = made["secret"]

    def send(self, count: int) -> None:
        for _ in range(count):
            pause = self._dice.uniform(0, PAUSE)
            act, name, template = self._dice.choice(self.acts), self._dice.choice(GROUPS), self._dice.choice(TEMPLATES)
            number, bound = self._dice.randint(0, MOST), self._dice.randint(0, MOST)
            time.sleep(pause)
            act(self, name, template, number, bound)

    # What users do

    def create_template(self, _name: str, template: str, _number: int, _bound: int) -> None:
        body = {
            "template_name": template,
            "package": DEFAULT_PACKAGE,
            "image_id": DEFAULT_IMAGE,
            "userdata": USERDATA,
            "metadata": {"note": METADATA},
            "tags": {"colour": template},
        }
        expected = {409} if template in self._account.templates else {201}
        answer, _ = self._ask("POST", "/templates", body, expected)
        if answer is not None and answer.status_code == 201:
            self._account.templates[template] = answer.json()["id"]

    def delete_template(self, _name: str, template: str, _number: int, _bound: int) -> None:
        found = self._account.templates.get(template)
        expected = {404} if found is None else {409} if self._account.uses(found) else {204, 409}
        answer, sent = self._ask("DELETE", f"/templates/{found or uuid.uuid4()}", None, expected)
        if answer is None or found is None:
            return
        if answer.status_code == 204:
            del self._account.templates[template]
        elif not self._account.uses(found) and not self._may_go_back(found, sent):
            self._findings.violated(f"{self._account.name}: nothing needs the template {found}: {answer.text[:300]}")

    def _may_go_back(self, template_id: str, since: float) -> bool:
        """Was a rollout under way that may go back to this template?"""
        ends = [
            rollout["ended_at"]
            for group in self._account.groups.values()
            for rollout in self.look(f"/groups/{group.id}/rollouts?limit=1")
            if rollout["previous_template_id"] == template_id
        ]
        return any(ended_at is None or moment(ended_at) >= since - CLOCKS for ended_at in ends)

    def create_group(self, name: str, template: str, number: int, _bound: int) -> None:
        found = self._account.templates.get(template)
        body = {"group_name": name, "template_id": found or str(uuid.uuid4()), "capacity": number}
        expected = {422} if found is None else {409} if name in self._account.groups else {201}
        answer, sent = self._ask("POST", "/groups", body, expected)
        if answer is not None and answer.status_code == 201:
            self._account.made(answer.json(), sent)

    def delete_group(self, name: str, _template: str, _number: int, _bound: int) -> None:
        group = self._account.groups.get(name)
        answer, sent = self._ask("DELETE", f"/groups/{group.id if group else self._gone()}", None, {204} if group else {404})
        if group and answer is not None and answer.status_code == 204:
            self._account.deleted(group, sent)

    def resize(self, name: str, template: str, number: int, bound: int) -> None:
        """By id or, as the Terraform provider does it, by name; with another template now and then."""
        group, found = self._account.groups.get(name), self._account.templates.get(template)
        chosen = found or str(uuid.uuid4()) if bound == 0 else group.template if group else str(uuid.uuid4())
        turns = group is not None and chosen != group.template
        body = {"group_name": name, "template_id": chosen, "capacity": number}
        path = "/groups" if bound % 2 else f"/groups/{group.id if group else self._gone()}"
        expected = {404} if group is None else {200, 409} if turns and chosen == found else {200} if chosen == found or not turns else {422}
        if group and group.fallback is not None:
            expected |= {409}  # a rollout that fails may have given the group its old template back
        answer, sent = self._ask("PUT", path, body, expected)
        if group and answer is not None and answer.status_code == 200:
            group.turned_at = time.time() if turns else group.turned_at
            self._account.changed(group, number, sent, chosen)
            self._same(group, answer.json())

    def increment(self, name: str, _template: str, number: int, bound: int) -> None:
        self._step(name, "increment", {"instance_count": number, "max_instance": bound}, lambda capacity: min(capacity + number, bound))

    def decrement(self, name: str, _template: str, number: int, bound: int) -> None:
        self._step(name, "decrement", {"instance_count": number, "min_instance": bound}, lambda capacity: max(capacity - number, bound))

    def _step(self, name: str, verb: str, body: dict[str, int], reached: Any) -> None:
        group = self._account.groups.get(name)
        path = f"/groups/{group.id if group else self._gone()}/{verb}"
        if group is None:
            self._ask("PUT", path, body, {404})
            return
        bound = body.get("max_instance", body.get("min_instance", 0))
        refused = group.capacity >= bound if verb == "increment" else group.capacity <= bound
        answer, sent = self._ask("PUT", path, body, {400} if refused else {202})
        if answer is not None and answer.status_code == 202:
            self._account.changed(group, reached(group.capacity), sent)

    def read(self, name: str, _template: str, _number: int, bound: int) -> None:
        group = self._account.groups.get(name)
        path = f"/groups/{group.id if group else self._gone()}"
        if bound % 3 == 0:
            answer, _ = self._ask("GET", f"{path}/instances", None, {200} if group else {404}, changes=False)
            if group and answer is not None and answer.status_code == 200:
                strangers = [machine["id"] for machine in answer.json() if machine["tags"].get("tsg.group") != group.id]
                if strangers:
                    self._findings.violated(f"{self._account.name}: {name} is said to have others' machines {strangers}")
        else:
            answer, _ = self._ask("GET", path, None, {200} if group else {404}, changes=False)
            if group and answer is not None and answer.status_code == 200:
                self._same(group, answer.json())

    def list_all(self, _name: str, _template: str, _number: int, _bound: int) -> None:
        answer, _ = self._ask("GET", "/groups", None, {200}, changes=False)
        if answer is not None and answer.status_code == 200:
            self.compare(answer.json())

    def blunder(self, name: str, _template: str, number: int, bound: int) -> None:
        """What can't be right, whatever there is."""
        bodies: list[Any] = [
            {"group_name": name, "template_id": str(uuid.uuid4()), "capacity": number},
            {"group_name": name, "template_id": "no-uuid", "capacity": number},
            {"group_name": name, "capacity": 101},
            {"group_name": f"{name} {number}"},
            {"capacity": -1},
            [],
        ]
        self._ask("POST", "/groups", bodies[bound % len(bodies)], {422})

    # One request

    def _ask(self, method: str, path: str, body: object, expected: set[int], *, changes: bool = True) -> tuple[Answer, float]:
        """Send it; the answer, if it is what it should be, and when it was sent. None where it is not known what was done."""
        sent = time.time()
        self._world.disturbed()
        what = f"{method} {path}"
        try:
            answer = self._tsg(method, path, body)
        except requests.RequestException as error:
            self._findings.answered(what, None)
            self._findings.say(f"{self._account.name}: {what} {body or ''} -> {type(error).__name__}")
            if changes:
                self._resolve(sent)
            return None, sent
        status = answer.status_code
        self._findings.answered(what, status)
        self._findings.say(f"{self._account.name}: {what} {body or ''} -> {status}")
        if status == 503 and self._world.was_away(sent):
            if changes:
                self._resolve(sent, f"{what} {body or ''}" if "nothing was changed" in answer.text else "")
            return None, sent
        if status == 503 and path.endswith("/instances") and "request rate" in answer.text:
            return None, sent  # CloudAPI throttles the account, whose launches and reads it counts together
        if status not in expected:
            self._findings.violated(f"{self._account.name}: {what} {body or ''} answered {status}, not {expected}: {answer.text[:300]}")
            if changes:
                self._resolve(sent)
            return None, sent
        return answer, sent

    def _resolve(self, sent: float, unchanged: str = "") -> None:
        """Look what came of a request whose answer is not known, and have the model say the same.

        `unchanged` is a request of which the answer said that it had changed nothing.
        """
        groups, templates = self.look("/groups"), self.look("/templates")
        differences = self._account.differences(groups, templates)
        if unchanged and differences:
            self._findings.violated(f"{unchanged} was said to have changed nothing: {differences}")
        if len(differences) > 1:
            self._findings.violated(f"one request of unknown end has changed more than one thing: {differences}")
        shown = {group["group_name"]: group for group in groups}
        for name, group in list(self._account.groups.items()):
            if name not in shown or shown[name]["id"] != group.id:
                self._account.deleted(group, sent)
        for name, row in shown.items():
            group = self._account.groups.get(name)
            if group is None:
                self._account.made(row, sent)
            elif not group.is_shown_as(row):
                self._account.changed(group, row["capacity"], sent, row["template_id"])
        self._account.templates = {template["template_name"]: template["id"] for template in templates}

    def look(self, path: str) -> list[dict[str, Any]]:
        """A list of the account, for which the service may take its time after a fault."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = self._tsg("GET", path)
                if answer.status_code == 200:
                    return answer.json()
                problem = f"{answer.status_code} {answer.text[:200]}"
            except requests.RequestException as error:
                problem = str(error)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._account.name}: GET {path} is not answered after {PATIENCE} s: {problem}")
            time.sleep(0.2)

    def compare(self, groups: list[dict[str, Any]] | None = None) -> None:
        """What the service tells, against the model."""
        differences = self._account.differences(groups if groups is not None else self.look("/groups"), self.look("/templates"))
        for difference in differences:
            self._findings.violated(difference)

    def _same(self, group: Group, shown: dict[str, Any]) -> None:
        if not group.is_shown_as(shown):
            self._findings.violated(f"{self._account.name}: answered {shown}, should be {group.to_json()}")

    def _gone(self) -> str:
        """The id of a group that was deleted, or of none."""
        return next((group.id for group in self._account.all_groups.values() if group.deleted), str(uuid.uuid4()))


User.acts = (
    *[User.create_group] * 7,
    *[User.delete_group] * 2,
    *[User.resize] * 5,
    *[User.increment] * 3,
    *[User.decrement] * 3,
    *[User.create_template] * 3,
    User.delete_template,
    *[User.read] * 3,
    User.list_all,
    User.blunder,
)
