"""Questions to CloudAPI about single machines and launches: what its list lacks. Only its word about a machine itself counts."""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, zip_longest
from typing import NamedTuple, TypeVar

from shared import log
from shared.clients.cloudapi import DESTROYED, PAGE, Client, CloudAPIError, Machine, NotFound
from shared.spec.machines import TAG_GROUP, TAG_LAUNCH, TAG_NAME
from shared.state.instances import DELETING, FAILED, GONE, MISSING, Instance
from tsg_workers.cloud.allowance import Allowance

_log = log.get(__name__)

T = TypeVar("T")

#: Questions that one pass asks: half of what the budget gives it.
QUESTIONS_A_PASS = 60
#: Requests under way at once.
PARALLEL = 32
#: Of a group, so many machines that are being deleted are asked for one by one. More are looked for among all of it that were destroyed,
#: a page for as many.
FEW, A_PAGE_FOR = 4, 50


class Answer(NamedTuple):
    """What CloudAPI says of a machine, or of a launch's machine, that its list lacks."""

    instance: Instance
    #: Gone and missing machines, and those of launches that came to nothing, have none.
    machine: Machine | None = None
    #: GONE or MISSING where there is no machine; else CloudAPI's state.
    state: str = ""
    #: CloudAPI did not say.
    error: CloudAPIError | None = None
    #: Seconds until CloudAPI answered.
    took: float = 0.0

    @property
    def contradicts_list(self) -> bool:
        """Should the list have had the machine? It leaves the failed ones out, and rightly those whose tags somebody took off."""
        return self.machine is not None and self.state != FAILED and TAG_NAME in self.machine.tags


def ask_for_launches(client: Client, allowance: Allowance, launches: Sequence[Instance]) -> list[Answer]:
    """Ask for the machines of launches that no list has, among all machines that ever were. Those not asked for are left out."""

    def ask(launch: Instance) -> Answer:
        machine = client.find_machine(TAG_LAUNCH, launch.id)
        if machine is None or machine.state == DESTROYED:
            return Answer(launch)
        return Answer(launch, machine, machine.state)

    return _ask(allowance, random.sample(launches, min(len(launches), QUESTIONS_A_PASS)), ask)


def ask_for_machines(client: Client, allowance: Allowance, missing: Sequence[Instance]) -> tuple[list[Answer], set[str]]:
    """Ask for machines one by one, going round the groups; the answers, and the groups with machines that one pass has no questions for.

    Machines that could not be asked for, since the pass's time was over, are left out.
    """
    allowance.renew()
    destroyed = _destroyed(client, allowance, missing)
    # In no order: where not all can be asked for, it is others every time. What is being deleted can wait.
    rest = [instance for instance in missing if instance.machine_id not in destroyed]
    shuffled = sorted(random.sample(rest, len(rest)), key=lambda instance: instance.state == DELETING)
    in_turn = list(round_robin(shuffled))
    asked, left = in_turn[:QUESTIONS_A_PASS], in_turn[QUESTIONS_A_PASS:]
    if left:
        _log.warning("machines_not_listed", missing=len(missing), asked=len(asked))

    def ask(instance: Instance) -> Answer:
        try:
            machine = client.machine(instance.machine_id or "")
        except NotFound:
            # It was there once. One that we had deleted is gone; of any other this is no more than a sign of trouble.
            return Answer(instance, state=GONE if instance.state == DELETING else MISSING)
        if machine is None or machine.state == DESTROYED:
            return Answer(instance, state=GONE)
        return Answer(instance, machine, machine.state)

    gone = [Answer(instance, state=GONE) for instance in missing if instance.machine_id in destroyed]
    return gone + _ask(allowance, asked, ask), {instance.group_id for instance in left}


def _destroyed(client: Client, allowance: Allowance, missing: Sequence[Instance]) -> set[str]:
    """Of machines that are being deleted, many of one group, those that CloudAPI shows as destroyed. It keeps them for long."""
    wanted: dict[str, set[str]] = {}
    for instance in missing:
        if instance.state == DELETING and instance.machine_id is not None:
            wanted.setdefault(instance.group_id, set()).add(instance.machine_id)
    return {
        machine_id
        for group_id, of_group in wanted.items()
        if len(of_group) > FEW
        for machine_id in _found(client, allowance, group_id, of_group)
    }


def _found(client: Client, allowance: Allowance, group_id: str, wanted: set[str]) -> set[str]:
    """Those of a group, page by page; the others are asked for one by one."""
    found: set[str] = set()
    for number in range(1 + len(wanted) // A_PAGE_FOR):
        if not allowance.take():
            break
        try:
            page = client.destroyed_machines(TAG_GROUP, group_id, offset=number * PAGE)
        except CloudAPIError as error:
            _log.warning("destroyed_machines_not_listed", group_id=group_id, error=str(error))
            break
        found |= wanted & {machine.id for machine in page if machine.state == DESTROYED}
        if len(page) < PAGE or found == wanted:
            break
    return found


def round_robin(instances: Iterable[Instance]) -> Iterable[Instance]:
    """One instance of each group, then the next of each: a large group keeps no small one waiting."""
    by_group: dict[str, list[Instance]] = {}
    for instance in instances:
        by_group.setdefault(instance.group_id, []).append(instance)
    return (instance for instance in chain.from_iterable(zip_longest(*by_group.values())) if instance is not None)


def _ask(allowance: Allowance, instances: Sequence[Instance], ask: Callable[[Instance], Answer]) -> list[Answer]:
    def asked(instance: Instance) -> Answer | None:
        if not allowance.take():
            return None
        began = time.monotonic()
        try:
            answer = ask(instance)
        except CloudAPIError as error:
            answer = Answer(instance, error=error)
        return answer._replace(took=time.monotonic() - began)

    if not instances:
        return []
    allowance.renew()
    with ThreadPoolExecutor(min(PARALLEL, len(instances))) as pool:
        return [answer for answer in pool.map(asked, instances) if answer is not None]
