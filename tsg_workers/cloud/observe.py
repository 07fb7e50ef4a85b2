"""What is there: CloudAPI's list of an account's machines, beside the rows. list, doubt, ask, match, store.

A list that lacks machines is fetched again, unfiltered, and machines that both lack are asked for one by one, up to a limit per pass. A
machine is gone when CloudAPI says so of that machine; until then it is what it was. A launch without an answer is asked for by its tag
among all machines that ever were, since lists leave the failed ones out. A list that lacks machines which CloudAPI has says nothing of
launches.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection

from shared import log
from shared.clients.cloudapi import Client, CloudAPIError
from shared.plan.census import Sight
from shared.plan.limits import Limits
from shared.plan.outcome import Trouble
from shared.reasons import Reason
from shared.state import instance_lists, leases
from shared.state.group_state import DueGroup
from shared.state.instances import GONE
from shared.store.db import Database
from tsg_workers.cloud.allowance import Allowance
from tsg_workers.cloud.ask import Answer, ask_for_launches, ask_for_machines
from tsg_workers.cloud.doubt import is_doubtful, unlisted_launches, unlisted_machines
from tsg_workers.cloud.list import Listing
from tsg_workers.cloud.match import Match, match
from tsg_workers.cloud.membership import find_orphans, groups_by_name, owners_of
from tsg_workers.cloud.problem import trouble_of
from tsg_workers.cloud.record import Recorder
from tsg_workers.cloud.store import store

_log = log.get(__name__)

MISLED = "CloudAPI's list lacks machines that it has, and not all could be asked for one by one."


class Observed(NamedTuple):
    """What a look gave."""

    #: The database's time of it.
    now: datetime
    #: Of each due group, its instances, and what kept the look from being whole.
    sights: Mapping[str, list[Sight]]
    troubles: Mapping[str, list[Trouble]]
    #: Seconds that the slowest question took.
    slowest: float
    #: Machines that carry this service's tags and belong to no group of the account that it knows.
    orphans: Collection[str]
    #: The list's digest, where it has every instance of the due groups.
    listing: str | None


def observe(
    database: Database, client: Client, allowance: Allowance, recorder: Recorder, limits: Limits, due: Sequence[DueGroup], listing: Listing
) -> Observed:
    """Look at the account's machines, and write down what is new. `CloudAPIError` when the list can't be read; `LeaseLost`."""
    ids, lease = {group.id for group in due}, recorder.lease
    machines = dict(listing.machines)
    with database.read() as connection:
        by_name = groups_by_name(connection, lease.account_id, due)
        now, rows = instance_lists.list_of_groups(connection, ids)
    doubtful = is_doubtful(machines, rows, due, now, limits)
    if doubtful:
        # Should CloudAPI's filter be what hides them.
        again = Listing(client, filtered=False).machines
        _log.warning("list_asked_for_again", machines=len(machines), then=len(again))
        machines |= again
    listed = set(machines)
    launches = ask_for_launches(client, allowance, unlisted_launches(rows, machines.values(), now, limits))
    machines |= {answer.machine.id: answer.machine for answer in launches if answer.machine is not None}
    owners = owners_of(machines.values(), ids, by_name)
    missing = unlisted_machines(rows, owners, now)
    answers, left = ask_for_machines(client, allowance, missing)
    lies = any(answer.contradicts_list for answer in (*answers, *launches) if answer.instance.machine_id not in listed)
    matches = match(
        [(machines[machine_id], owner) for machine_id, owner in owners.items()],
        [answer for answer in answers if answer.error is None],
        rows,
        lost_launches=() if lies else {answer.instance.id for answer in launches if answer.machine is None and answer.error is None},
        missing={instance.id for instance in missing},
        now=now,
    )

    sights = _stored(database, recorder, due, matches)
    emptied = {group.id for group in due if group.emptied_for is not None}
    with database.read() as connection:
        orphans = find_orphans(connection, lease, [one for one in machines.values() if owners.get(one.id) in {None, *emptied}])
    slowest = max([listing.took, *(answer.took for answer in (*launches, *answers))])
    troubles = _troubles(ids, [*launches, *answers], left if lies else ())
    listed_all = all(row.machine_id in listing.machines for row in rows if row.state != GONE)
    return Observed(now, sights, troubles, slowest, orphans, listing.digest if listed_all and not doubtful else None)


def _stored(database: Database, recorder: Recorder, due: Sequence[DueGroup], matches: Sequence[Match]) -> dict[str, list[Sight]]:
    """Write down what is new; the sights of each group."""

    def work(connection: Connection) -> list[Sight]:
        stored = store(connection, recorder, due, matches)
        # A worker that was frozen since the list has seen what is no more.
        leases.require_held(connection, recorder.lease)
        return stored

    is_news = any(one.change for one in matches)
    sights: dict[str, list[Sight]] = {group.id: [] for group in due}
    for sight in database.transact(work) if is_news else [one.sight for one in matches]:
        sights[sight.instance.group_id].append(sight)
    return sights


def _troubles(group_ids: Collection[str], answers: Sequence[Answer], misled: Collection[str]) -> dict[str, list[Trouble]]:
    """`misled`: groups with machines that CloudAPI has and its list lacks, and of which not all could be asked for."""
    troubles: dict[str, list[Trouble]] = {group_id: [] for group_id in group_ids}
    for answer in answers:
        if answer.error is not None:
            troubles[answer.instance.group_id].append(_failed(answer, answer.error))
    for group_id in misled:
        troubles[group_id].append(Trouble(MISLED, Reason.CLOUDAPI_UNAVAILABLE))
    return troubles


def _failed(answer: Answer, error: CloudAPIError) -> Trouble:
    about = {"group_id": answer.instance.group_id, "machine_id": answer.instance.machine_id}
    _log.warning("look_failed", error=str(error), status=error.status, code=error.code, cloudapi_request_id=error.request_id, **about)
    return trouble_of(error)
