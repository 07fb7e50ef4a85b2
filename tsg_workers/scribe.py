"""Writes down what is done for the groups of one account, and why: only what is new, however often a look finds the same."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from shared.clients.cloudapi import CloudAPIError
from shared.reasons import MEANING, Reason
from shared.state import activities, looks
from shared.state.activities import DONE, FAILED, REASONS
from shared.state.instances import GONE
from shared.state.leases import Lease
from shared.state.looks import Look, Work
from shared.store.db import Database
from tsg_workers.plan import Plan, Sight

#: Told of each launch and each deletion: kind (of `shared.state.activities`), account's name, group's name, status, description.
Audit = Callable[[str, str, str, str, str], None]

#: Reasons that are no trouble.
_GOOD = frozenset({Reason.SETTLED, Reason.DELETED})


class Scribe:
    """For one pass. Thread-safe, as far as one group's error may be told twice when it comes twice in one moment."""

    def __init__(self, database: Database, account_id: str, account_name: str, actor: str, audit: Audit) -> None:
        self._db = database
        self._account_id = account_id
        self._account_name = account_name
        self._actor = actor
        self._audit = audit
        self._causes: dict[str, str] = {}
        self._told: set[tuple[str, ...]] = set()

    def planned(self, group: Work, sights: Sequence[Sight], plan: Plan) -> None:
        """What was found, and is done about it: the next links of the chain."""
        states = Counter(sight.instance.state for sight in sights if sight.instance.state != GONE and not sight.lost)
        found = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"
        deletions = len(plan.stillborn) + len(plan.unhealthy) + len(plan.surplus)
        doing = [f"{verb} {count}" for verb, count in (("launches", plan.launches), ("deletes", deletions)) if count]
        self._causes[group.id] = "; ".join(filter(None, [group.cause, f"found {found} of {group.wanted}", *doing]))

    def note(
        self, group: Work, kind: str, description: str, *, took: float, machine_id: str | None = None, error: CloudAPIError | None = None
    ) -> None:
        """A launch or a deletion: what came of it."""
        status = FAILED if error else DONE
        told = f"{description}: {error}" if error else description
        self._audit(kind, self._account_name, group.name, status, told)
        if error is None or self._is_news(group, kind, machine_id or "", str(error)):
            code = (error.code or str(error.status or "")) if error else None
            with self._db.read() as connection:
                self._write(
                    connection,
                    group,
                    kind,
                    status,
                    told,
                    took=took,
                    machine_id=machine_id,
                    error_code=code,
                    cloudapi_request_id=error.request_id if error else None,
                )

    def seen(self, connection: Connection, group: Work, kind: str, description: str, machine_id: str | None) -> None:
        """What became of a machine by itself, in the transaction in which it is written down."""
        self._write(connection, group, kind, DONE if kind == activities.FOUND else FAILED, description, machine_id=machine_id)

    def checked(self, lease: Lease, done: Sequence[Look]) -> bool:
        """Note looks at groups (`looks.checked`), and tell what each waits for if that is new."""
        news = [look for look in done if look.reason in REASONS and (look.reason != look.group.reason or not _is_observed(look.group))]

        def work(connection: Connection) -> bool:
            held = looks.checked(connection, lease, done)
            for look in news if held else ():
                told = f"{MEANING[look.reason]} {look.error}" if look.error else MEANING[look.reason]
                self._write(connection, look.group, REASONS[look.reason], DONE if look.reason in _GOOD else FAILED, told)
            return held

        if news:
            return self._db.transact(work)
        with self._db.read() as connection:
            return work(connection)

    def emptied(self, lease: Lease, group: Work, *, after: float | None) -> bool:
        """Note that nothing is left of a deleted group (`looks.emptied`), and tell it the first time."""

        def work(connection: Connection) -> bool:
            held = looks.emptied(connection, lease, group, after=after)
            if held and group.emptied_for is None:
                self._write(connection, group, REASONS[Reason.DELETED], DONE, MEANING[Reason.DELETED])
            return held

        return self._db.transact(work)

    def _is_news(self, group: Work, *told: str) -> bool:
        """Was it not told in this pass, and is it not what kept the group back at the last look already?"""
        if _is_observed(group) and group.last_error == told[-1]:
            return False
        if (group.id, *told) in self._told:
            return False
        self._told.add((group.id, *told))
        return True

    def _write(self, connection: Connection, group: Work, kind: str, status: str, description: str, **more: Any) -> None:
        activities.record(
            connection,
            account_id=self._account_id,
            group_id=group.id,
            kind=kind,
            status=status,
            description=description,
            cause=self._causes.get(group.id, group.cause),
            request_id=group.request_id,
            actor=self._actor,
            **more,
        )


def _is_observed(group: Work) -> bool:
    return group.observed_generation == group.generation
