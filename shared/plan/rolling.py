"""A rollout under way, and which instances it still has to reach. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.errors import OtherRelease
from shared.spec.rollout import STATES, Rollout
from shared.spec.spec import Spec, differing, is_in_place
from shared.state.instances import Instance


@dataclass(frozen=True)
class Rolling:
    """A rollout, and what other templates have to do with the one that it brings."""

    rollout: Rollout
    #: Templates whose instances count as new.
    current: frozenset[str]
    #: Templates whose instances can be changed to the new one while they run.
    changeable: frozenset[str] = frozenset()

    def is_new(self, instance: Instance) -> bool:
        """Need the rollout do nothing about it? A reload makes all anew that were there when it began."""
        if self.rollout.is_reload:
            return instance.rollout_id == self.rollout.id or instance.launched_at > self.rollout.created_at
        return instance.template_id in self.current

    def is_changeable(self, instance: Instance) -> bool:
        return not self.rollout.is_reload and instance.template_id in self.changeable


def rolling_of(rollout: Rollout, specs: Mapping[str, Spec]) -> Rolling:
    """`specs`: of the template that the rollout brings, and of those of the group's instances, by their ids.

    `OtherRelease` where another one wrote the rollout's settings or its state.
    """
    if rollout.state not in STATES:
        raise OtherRelease("the state of a rollout")
    target, settings = rollout.target_id, rollout.settings
    current, changeable = {target}, set()
    for template_id, spec in specs.items():
        if template_id == target or target not in specs:
            continue
        differences = differing(spec, specs[target])
        if settings.skip_matching and not differences:
            current.add(template_id)
        elif settings.in_place and is_in_place(differences):
            changeable.add(template_id)
    return Rolling(rollout, frozenset(current), frozenset(changeable))
