"""What an account should have. Every answer of the service is predicted; where none came, a look tells what was done."""

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Change:
    """A capacity that was asked for: in force at the earliest when it was sent, and certainly when it was answered."""

    capacity: int
    sent: float
    answered: float


@dataclass
class Span:
    """Something that was asked for: in force for certain from when it was answered until its end was sent."""

    what: str
    since: float
    until: float = float("inf")

    def covers(self, since: float, until: float) -> bool:
        return self.since <= since and until <= self.until


@dataclass
class Group:
    """A group, alive or deleted, and every capacity it has had."""

    id: str
    name: str
    template: str
    account: str
    changes: list[Change] = field(default_factory=list)
    deleted: bool = False
    #: The template that it gets back when its rollout fails.
    fallback: str | None = None
    #: When its template was last changed without a rollout.
    turned_at: float = 0.0
    #: Machines that somebody wants to go, and those that came or went by hand: since when at the earliest.
    unwanted: dict[str, float] = field(default_factory=dict)
    adopted: dict[str, float] = field(default_factory=dict)
    detached: dict[str, float] = field(default_factory=dict)
    #: Machines whose adoption or detachment was not answered for certain.
    half_adopted: set[str] = field(default_factory=set)
    half_detached: dict[str, float] = field(default_factory=dict)
    #: Machines that are protected, and what the service may not do.
    protections: list[Span] = field(default_factory=list)
    suspensions: list[Span] = field(default_factory=list)

    @property
    def capacity(self) -> int:
        return self.changes[-1].capacity

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "group_name": self.name, "template_id": self.template, "capacity": self.capacity}

    def is_shown_as(self, shown: dict[str, Any]) -> bool:
        """Is what the service answers of the group what it should be? Takes over the template that a failed rollout gave back."""
        if self.fallback is not None and shown["template_id"] == self.fallback:
            self.template = self.fallback
        return {name: shown[name] for name in self.to_json()} == self.to_json()

    def end(self, spans: list[Span], what: str, sent: float) -> None:
        """Its end is asked for."""
        for span in spans:
            if span.what == what and span.until > sent:
                span.until = sent

    def capacities(self, since: float, until: float) -> list[int]:
        """Every capacity that may have been in force at some time between; 0 for before it was made."""
        found = []
        for change, following in zip(self.changes, [*self.changes[1:], None], strict=True):
            ended = following.answered if following else float("inf")
            if change.sent <= until and ended >= since:
                found.append(change.capacity)
        return found or [0]


#: The name of a group that its policies scale begins so; no other is scaled by one.
SCALED = "scaled"


@dataclass
class Scaled(Group):
    """A group whose policies change its capacity: what they decided is read afterwards."""

    def is_shown_as(self, shown: dict[str, Any]) -> bool:
        return super().is_shown_as({**shown, "capacity": self.capacity})

    def decided(self, changes: list[Change]) -> None:
        """All changes by policies since it was made."""
        self.changes = [self.changes[0], *changes, *([self.changes[-1]] if self.deleted else [])]


@dataclass
class Call:
    """One delivery to a webhook, sent once or more often; the ids of the decisions that it was answered."""

    key: str
    policy: str
    url: str
    ids: set[str] = field(default_factory=set)


class Account:
    """The templates and groups that an account should have."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: Live ones, id by name.
        self.templates: dict[str, str] = {}
        #: Live ones by name.
        self.groups: dict[str, Group] = {}
        #: All there ever were, by id.
        self.all_groups: dict[str, Group] = {}
        #: URLs of webhooks by the policy's name, and their calls.
        self.hooks: dict[str, str] = {}
        self.calls: list[Call] = []

    def made(self, shown: dict[str, Any], sent: float) -> Group:
        kind = Scaled if shown["group_name"].startswith(SCALED) else Group
        group = kind(shown["id"], shown["group_name"], shown["template_id"], self.name, [Change(shown["capacity"], sent, time.time())])
        self.groups[group.name] = self.all_groups[group.id] = group
        return group

    def changed(self, group: Group, capacity: int, sent: float, template: str | None = None) -> None:
        group.changes.append(Change(capacity, sent, time.time()))
        group.template = template or group.template

    def deleted(self, group: Group, sent: float) -> None:
        group.changes.append(Change(0, sent, time.time()))
        group.deleted = True
        del self.groups[group.name]

    def uses(self, template_id: str) -> bool:
        return any(group.template == template_id for group in self.groups.values())

    def differences(self, groups: list[dict[str, Any]], templates: list[dict[str, Any]]) -> list[str]:
        """What the service says about the account, against what it should be."""
        shown = {group["group_name"]: {name: group[name] for name in ("id", "group_name", "template_id", "capacity")} for group in groups}
        wanted = {group.name: group.to_json() for group in self.groups.values()}
        named = {template["template_name"]: template["id"] for template in templates}
        found = [f"{self.name}: group {name} is {shown.get(name)}, should be {wanted.get(name)}" for name in shown.keys() ^ wanted.keys()]
        found += [
            f"{self.name}: group {name} is {shown[name]}, should be {wanted[name]}"
            for name in shown.keys() & wanted.keys()
            if not self.groups[name].is_shown_as(shown[name])
        ]
        if len(groups) != len(shown):
            found.append(f"{self.name}: two groups of one name among {sorted(group['group_name'] for group in groups)}")
        if named != self.templates:
            found.append(f"{self.name}: templates are {named}, should be {self.templates}")
        return found
