"""The decisions of policies, held against what was promised: bounds, cooldowns, one step for one call, a decision for each change."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from dev.soaking.oracle import Call, Change

#: The bounds of groups that scale themselves.
LEAST, MOST = 1, 8
#: Seconds of each policy after growth, and before it shrinks the group.
COOLDOWNS = {
    "queue": (2, 4),
    "cpu": (3, 5),
    "lag": (2, 3),
    "up": (0, 0),
    "down": (0, 2),
    "flood": (1, 1),
    "soon": (0, 0),
    "minutely": (0, 0),
    **dict.fromkeys(("opens", "closes", "curve", "busy"), (0, 0)),
}
#: Seconds, at most, between the decisions of one evaluation.
TOGETHER = 0.001
#: Seconds until a change is certainly in force: the longest that a worker is frozen within a transaction.
COMMITTED = 20.0


class Decided(NamedTuple):
    """A decision of a policy of one group; `at` in seconds since 1970."""

    id: str
    policy_id: str
    policy_name: str
    at: float
    result: str
    by: str
    before: int
    after: int

    @property
    def changes(self) -> bool:
        return self.before != self.after


def changes(first: int, decisions: Sequence[Decided]) -> list[Change]:
    """What the capacity became after `first`, and when."""
    return [Change(one.after, one.at, one.at + COMMITTED) for one in _chain(first, decisions)[0]]


def violations(first: int, last: int, decisions: Sequence[Decided], calls: Iterable[Call]) -> list[str]:
    """Everything that the policies of one group did and should not have. `first` and `last`: its capacity when it was made, and now."""
    chain, found = _chain(first, decisions)
    if (not found and chain and chain[-1].after != last) or (not chain and first != last):
        found.append(f"the capacity is {last}, and its policies led to {chain[-1].after if chain else first}")
    found += [f"{_told(one)} leaves {LEAST} to {MOST}" for one in chain if not LEAST <= one.after <= MOST]
    found += _cooldowns(decisions, chain)
    ids = {one.id for one in decisions}
    doubles = [call for call in calls if len(call.ids & ids) > 1]
    return [*found, *(f"one call of {call.policy} ({call.key}) has two decisions: {call.ids & ids}" for call in doubles)]


def _chain(first: int, decisions: Sequence[Decided]) -> tuple[list[Decided], list[str]]:
    """All changes in their order, each beginning where the one before has ended; or as one that another measure led to as well."""
    capacity, chain, began, moved = first, list[Decided](), 0.0, set[tuple[int, int]]()
    for one in sorted((one for one in decisions if one.changes), key=attrgetter("at")):
        if one.at - began > TOGETHER:
            began, moved = one.at, set()
        is_shared = one.by == "measure" and (one.before, one.after) in moved
        if one.before != capacity and not is_shared:
            return chain, [f"{_told(one)}, and it was {capacity}: a change without a decision"]
        chain.append(one)
        if one.by == "measure":
            moved.add((one.before, one.after))
        capacity = one.after
    return chain, []


def _cooldowns(decisions: Sequence[Decided], chain: Sequence[Decided]) -> Iterator[str]:
    """A policy grows the group no further, and shrinks it not at all, before its time. Schedules wait for nothing."""
    known: Mapping[str, float] = {one.policy_id: one.at for one in sorted(decisions, key=attrgetter("at"), reverse=True)}
    grown: dict[str, float] = {}
    for number, one in enumerate(chain):
        out_seconds, in_seconds = COOLDOWNS[one.policy_name]
        before = [other for other in chain[:number] if known[one.policy_id] <= other.at < one.at - TOGETHER]
        if one.by != "schedule" and one.after < one.before and before and one.at - before[-1].at < in_seconds:
            yield f"{_told(one)} {one.at - before[-1].at:.2f} s after {_told(before[-1])}, within its {in_seconds} s"
        if one.by != "schedule" and one.after > one.before:
            if one.at - grown.get(one.policy_id, 0.0) < out_seconds:
                yield f"{_told(one)} {one.at - grown[one.policy_id]:.2f} s after it grew the group, within its {out_seconds} s"
            grown[one.policy_id] = one.at


def _told(one: Decided) -> str:
    return f"{one.policy_name} ({one.id}) {one.before} -> {one.after} at {one.at:.2f}"
