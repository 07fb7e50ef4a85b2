"""What a look found new, as rows, activities and log lines. Only what is new, however often a look finds the same."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from shared import log
from shared.clients.cloudapi import Machine
from shared.plan.census import Sight
from shared.rules import is_uuid
from shared.state import activities, instances
from shared.state.activities import DONE, FAILED
from shared.state.group_state import DueGroup
from shared.state.instances import DELETING, GONE, LAUNCHING, ON_THE_WAY, RUNNING, Described, Instance
from tsg_workers.cloud.match import Change, Match, addresses_of, template_of
from tsg_workers.cloud.record import Recorder

_log = log.get(__name__)


def store(connection: Connection, recorder: Recorder, due: Sequence[DueGroup], matches: Sequence[Match]) -> list[Sight]:
    """Write down what is new; all sights, in the order of the matches."""
    groups = {group.id: group for group in due}
    sights, described = [], []
    for match in matches:
        sight = match.sight
        if match.change is not None:
            group = groups[sight.instance.group_id]
            if match.change == Change.FOUND:
                sight = sight._replace(instance=_found(connection, recorder, group, sight.instance))
            elif match.change == Change.ADOPTED:
                _adopted(connection, recorder, group, match)
            elif match.change == Change.MOVED:
                _moved(connection, recorder, group, match)
            elif match.change == Change.LAUNCH_LOST:
                _launch_lost(connection, recorder, group, match)
            if match.machine is not None:
                described.append(_description(sight.instance, match.machine))
        sights.append(sight)
    if described:
        instances.mark_described(connection, recorder.lease, described)
    return sights


def _description(instance: Instance, machine: Machine) -> Described:
    compute_node = machine.compute_node if is_uuid(machine.compute_node) else None
    return Described(
        instance.id, machine.name, _moment(machine.created), compute_node, machine.primary_ip, addresses_of(machine), template_of(machine)
    )


def _moment(text: str) -> datetime | None:
    """CloudAPI's time; None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _found(connection: Connection, recorder: Recorder, group: DueGroup, instance: Instance) -> Instance:
    machine_id, state = instance.machine_id or "", instance.state
    found = instances.insert_found(connection, recorder.lease, group.id, machine_id, state, template_id=instance.template_id)
    recorder.write_activity(connection, group, activities.FOUND, DONE, f"found {machine_id}, {state}", machine_id=machine_id)
    _log.info("instance_found", group_id=group.id, machine_id=machine_id, state=state)
    return found


def _adopted(connection: Connection, recorder: Recorder, group: DueGroup, match: Match) -> None:
    instance = match.sight.instance
    machine_id, state = instance.machine_id or "", instance.state
    instances.mark_launched(connection, instance.id, machine_id, state)
    what = "was not answered" if match.was == LAUNCHING else "failed"
    description = f"found {machine_id}, {state}, of a launch that {what}"
    recorder.write_activity(connection, group, activities.FOUND, DONE, description, machine_id=machine_id)


def _moved(connection: Connection, recorder: Recorder, group: DueGroup, match: Match) -> None:
    instance, was = match.sight.instance, match.was
    machine_id, state = instance.machine_id or "", instance.state
    instances.mark_state(connection, recorder.lease, instance.id, state)
    if was != DELETING and state != RUNNING and state not in ON_THE_WAY:
        kind = activities.LOST if state == GONE else activities.UNHEALTHY
        recorder.write_activity(connection, group, kind, FAILED, f"{machine_id} is {state}; it was {was}", machine_id=machine_id)
    _log.info("instance_seen", group_id=group.id, machine_id=machine_id, state=state, was=was)


def _launch_lost(connection: Connection, recorder: Recorder, group: DueGroup, match: Match) -> None:
    launch_id = match.sight.instance.id
    instances.delete_launch(connection, launch_id)
    if match.was == LAUNCHING:
        description = f"launch {launch_id} came to nothing: its answer was lost, and CloudAPI has no machine of it"
        recorder.write_activity(connection, group, activities.LAUNCH_LOST, FAILED, description)
        _log.warning("launch_lost", group_id=group.id, launch_id=launch_id)
