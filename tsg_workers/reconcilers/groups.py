"""Bring an account's groups to their desired capacity: one pass after another (`Pass`) over its due groups, under its lease.

Level-triggered: it compares what is with what should be, and does not ask what happened. It may run at any time, several at once (one gets
the lease), and be killed anywhere: what it was doing is in the rows, and the next run goes on.
"""

import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from shared import log, metrics
from shared.clients import cloudapi
from shared.clients.budget import Budget
from shared.clients.cloudapi import CloudAPI, CloudAPIError
from shared.clients.keys import Sealer
from shared.clients.queue import CONVERGE
from shared.management.access import NoManagementKey, client_for, forget_registration
from shared.plan.conclusion import put_off_together
from shared.plan.outcome import Trouble, crash
from shared.reasons import Reason
from shared.state import accounts, group_state, leases, rollouts
from shared.state.group_state import DueGroup
from shared.state.leases import Lease, LeaseLost
from shared.state.work import ACCOUNT
from shared.store.db import Database, is_unavailable
from tsg_workers.cloud.one_pass import Pace, Pass
from tsg_workers.cloud.problem import reason_of
from tsg_workers.cloud.record import Audit, Recorder, no_audit
from tsg_workers.runner import After, Keeper, Reconciler, Result

__all__ = ["GroupReconciler", "Pace"]

_log = log.get(__name__)

#: The management key is gone from CloudAPI, or was replaced there.
KEY_REFUSED = (
    "CloudAPI does not accept this service's key of the account: somebody removed it there, most likely. Send the service one request of "
    "the account's owner that signs the Date header alone; the service puts its key back and goes on. CloudAPI: {error}"
)
#: CloudAPI refuses the Date of a request, and not the key that signed it: with 400, or with 401 where something stands before it.
CLOCK_REFUSED = "CloudAPI does not accept the time of this service's requests: the clock of one of the two is wrong. CloudAPI: {error}"
_OF_THE_CLOCK = re.compile(r"\bclock\b|\bskew\b|\bdate\b", re.IGNORECASE)
#: Groups of one pass. The rest stay due, and come next.
GROUPS_A_PASS = 1000
#: Seconds for which one call of `reconcile` goes on making passes before it lets other accounts have the thread.
TURN_SECONDS = 20.0


@dataclass(frozen=True)
class Claimed:
    """The lease on an account, and the account's budget of requests, which goes from one holder to the next."""

    lease: Lease
    budget: Budget


class GroupReconciler(Reconciler[Claimed]):
    """Reconciles the groups of an account; a subject is an account's id. One for a process; thread-safe."""

    kind = ACCOUNT
    queues = (CONVERGE,)

    def __init__(self, database: Database, clouds: CloudAPI, sealer: Sealer, pace: Pace, *, owner: str, audit: Audit = no_audit) -> None:
        self._db = database
        self._clouds = clouds
        self._sealer = sealer
        self._pace = pace
        self.claim_seconds = pace.lease_seconds
        self._owner = owner
        self._audit = audit
        #: Of each account, the orphans that the log has named.
        self._reported: dict[str, set[str]] = {}

    @classmethod
    def claim_due(cls, connection: Connection, *, limit: int, late: float = 0) -> list[tuple[str, str]]:
        """Accounts with a due group."""
        return [(CONVERGE, account_id) for account_id in leases.claim_due(connection, limit=limit, late=late)]

    def claim(self, connection: Connection, subject: str, owner: str) -> Claimed | None:
        lease = leases.claim(connection, subject, owner, seconds=self._pace.lease_seconds)
        if lease is None:
            metrics.lease_waits.inc()
            return None
        return Claimed(lease, Budget(self._pace.rate, self._pace.burst, left=lease.budget_left, age=lease.budget_age))

    def renew(self, connection: Connection, claimed: Claimed) -> bool:
        return leases.renew(connection, claimed.lease, seconds=self._pace.lease_seconds)

    def give_back(self, connection: Connection, claimed: Claimed, result: Result) -> bool:
        """When the account is due again, and what failed, stands in the state of its groups."""
        del result
        return leases.release(connection, claimed.lease, budget_left=claimed.budget.left)

    def reconcile(self, claimed: Claimed, keeper: Keeper) -> Result:
        """Work on the account's due groups until none is due, or for `TURN_SECONDS`."""
        with bound_contextvars(account_id=claimed.lease.account_id):
            self._turn(claimed.lease, keeper, claimed.budget, until=time.monotonic() + TURN_SECONDS)
        return After(None)

    def _turn(self, lease: Lease, keeper: Keeper, budget: Budget, *, until: float) -> None:
        while keeper.holds:
            with self._db.read() as connection:
                due = group_state.list_due(connection, lease.account_id, limit=GROUPS_A_PASS)
                account = accounts.get(connection, lease.account_id) if due else None
            if not due or time.monotonic() > until:
                return
            recorder = Recorder(self._db, lease, account.name if account else "", self._owner, self._audit)
            if account is None:
                self._put_off(recorder, keeper, due, Trouble("The account is disabled.", Reason.ACCOUNT_REJECTED))
                return
            try:
                client = client_for(self._db, self._clouds, self._sealer, account, budget, lambda: keeper.holds)
                with metrics.passes.time():
                    orphans = Pass(self._db, client, keeper, recorder, self._pace).run(due)
                if orphans is not None:
                    self._report(account.id, orphans)
            except LeaseLost:
                keeper.lost()
            except Exception as error:
                if is_unavailable(error):
                    raise  # nothing can be noted now: the scheduler sends another wake-up
                self._put_off(recorder, keeper, due, _account_trouble(error))
                if isinstance(error, cloudapi.Unauthorized) and not _is_of_the_clock(error):
                    forget_registration(self._db, account)

    def _put_off(self, recorder: Recorder, keeper: Keeper, due: Sequence[DueGroup], trouble: Trouble) -> None:
        """Nothing can be done for any of these groups now, nor for others of the account: all wait together, and are tried in one pass."""
        _log.warning("groups_put_off", groups=len(due), error=trouble.problem, reason=trouble.reason)
        checks = put_off_together(due, trouble)
        if not recorder.mark_checked(checks):
            keeper.lost()
            return
        with self._db.read() as connection:
            group_state.mark_put_off(connection, recorder.lease, seconds=checks[0].after)
            rollouts.mark_put_off(connection, recorder.lease.account_id)

    def _report(self, account_id: str, orphans: Collection[str]) -> None:
        """Log each orphan once: a machine with our tags and an unknown group, of another installation perhaps. It is left alone."""
        new = set(orphans) - self._reported.get(account_id, set())
        self._reported[account_id] = set(orphans)
        if new:
            _log.warning("unknown_tagged_machines", account_id=account_id, machines=len(new), machine_ids=sorted(new)[:10])


def _is_of_the_clock(error: Exception) -> bool:
    """Does CloudAPI refuse the time of a request?"""
    return isinstance(error, CloudAPIError) and error.status in {400, 401} and _OF_THE_CLOCK.search(str(error)) is not None


def _account_trouble(error: Exception) -> Trouble:
    """What keeps a whole account back. A fault of this service is not tried again all the time either."""
    if isinstance(error, NoManagementKey):
        return Trouble(str(error), Reason.ACCOUNT_REJECTED)
    if _is_of_the_clock(error):
        return Trouble(CLOCK_REFUSED.format(error=error), Reason.CLOUDAPI_UNAVAILABLE)
    if isinstance(error, cloudapi.Unauthorized):
        return Trouble(KEY_REFUSED.format(error=error), Reason.ACCOUNT_REJECTED)
    if isinstance(error, CloudAPIError):
        return Trouble(str(error), reason_of(error), retry_after=error.retry_after)
    _log.error("pass_failed", exc_info=error)
    return crash(error, "account")
