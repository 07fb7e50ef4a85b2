"""Which of several machines go first: a chain of sort keys. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shared.plan.census import Sight
from shared.plan.view import View
from shared.spec.group_settings import Termination

#: The smaller, the sooner the machine goes.
Key = Callable[[Sight], Any]


def victims(view: View, candidates: Iterable[Sight], count: int) -> list[Sight]:
    """The `count` machines that go first; each key decides between those that are alike by the keys before it.

    What CloudAPI protects against deletion goes last, what is not available yet goes before what is; then the group's termination policy
    decides, and the age at last.
    """
    if count <= 0:
        return []
    by_age = sorted(candidates, key=_age)
    ages = {sight.instance.id: number for number, sight in enumerate(by_age)}
    policy = view.settings.termination_policy
    keys: list[Key] = [lambda sight: sight.protected, view.is_available, *(_key(word, view, ages) for word in policy)]
    in_order = sorted(by_age, key=lambda sight: tuple(key(sight) for key in keys))
    if Termination.CROWDED_SERVER in policy:
        keys[2 + policy.index(Termination.CROWDED_SERVER)] = _crowd(in_order)
        in_order = sorted(by_age, key=lambda sight: tuple(key(sight) for key in keys))
    return in_order[:count]


def _age(sight: Sight) -> tuple[str, str]:
    """By CloudAPI's time of creation; of two of one age it is always the same one."""
    return (sight.created or sight.instance.launched_at.isoformat(), sight.instance.id)


def _key(word: Termination, view: View, ages: dict[str, int]) -> Key:
    match word:
        case Termination.OUTDATED:
            return view.is_new
        case Termination.OLDEST:
            return lambda sight: ages[sight.instance.id]
        case Termination.NEWEST:
            return lambda sight: -ages[sight.instance.id]
        case Termination.UNREADY:
            return view.is_available
        case Termination.CROWDED_SERVER:
            return lambda _sight: 0


def _crowd(in_order: Sequence[Sight]) -> Key:
    """Minus how many are still on the machine's server when its turn comes, where the machines of a server go in this order."""
    left = Counter(sight.compute_node for sight in in_order)
    crowds = {}
    for sight in in_order:
        crowds[sight.instance.id] = -left[sight.compute_node] if sight.compute_node else 0
        left[sight.compute_node] -= 1
    return lambda sight: crowds[sight.instance.id]
