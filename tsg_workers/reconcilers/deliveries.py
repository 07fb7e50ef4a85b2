"""Tell activities to the receivers that ask for them: signed, in the order of each group, again and again for a day.

Deliveries are rows that came with their activities. A worker that is killed has sent one twice at worst; receivers know it by `webhook-id`.
"""

import json
import time
from datetime import UTC, datetime

from shared import log, metrics
from shared.backoff import backoff
from shared.clients.keys import Sealer, SealError
from shared.clients.queue import DELIVER
from shared.clients.webhooks import GONE, Failed, Refused, Sender
from shared.state import activities, deliveries, notifications
from shared.state.activities import Activity
from shared.state.deliveries import Delivery
from shared.state.notifications import Notification
from shared.state.outbox import DELIVERIES
from shared.state.work import Claim
from shared.store.db import Database
from tsg_workers.runner import After, Gone, Keeper, Reconciler, Result

_log = log.get(__name__)

#: Seconds: the longest pause between attempts. And for how long one turn sends.
LONGEST, TURN_SECONDS = 3600.0, 20.0


class DeliveryReconciler(Reconciler[Claim]):
    """Sends the deliveries of a notification, which is the subject. One for a process; thread-safe."""

    kind = DELIVERIES
    queues = (DELIVER,)
    #: A receiver may take seconds: nothing else waits for it.
    threads = 8

    def __init__(self, database: Database, sealer: Sealer, sender: Sender) -> None:
        self._db = database
        self._sealer = sealer
        self._sender = sender

    def reconcile(self, claimed: Claim, keeper: Keeper) -> Result:
        until = time.monotonic() + TURN_SECONDS
        with self._db.read() as connection:
            receiver = notifications.find(connection, claimed.subject)
            due = deliveries.list_due(connection, claimed.subject) if receiver is not None else []
            told = activities.get_by_ids(connection, [one.activity_id for one in due]) if due else {}
        if receiver is None or not receiver.enabled:
            return self._give_up(claimed.subject, receiver)
        for delivery in due:
            if time.monotonic() > until or not keeper.holds:
                break
            if not self._send(receiver, delivery, told.get(delivery.activity_id)):
                break
        with self._db.read() as connection:
            return After(deliveries.get_next_due(connection, receiver.id))

    def _give_up(self, notification_id: str, receiver: Notification | None) -> Result:
        """Nobody is told any more, not even of what was under way when the notification was turned off or deleted."""
        why = "the notification is deleted" if receiver is None else receiver.disabled_why or "the notification is turned off"
        with self._db.read() as connection:
            deliveries.mark_all_dead(connection, notification_id, why)
        return Gone() if receiver is None else After(None)

    def _send(self, receiver: Notification, delivery: Delivery, activity: Activity | None) -> bool:
        """Send one. False when nothing more is sent to this receiver now."""
        if activity is None:  # it was forgotten meanwhile
            return self._failed(receiver, delivery, Failed("the activity is not kept any more"), is_over=True)
        try:
            signing = valid_secrets(self._sealer.open(receiver.secret, row=receiver.id), datetime.now(UTC))
            status = self._sender.send(receiver.url, delivery.id, body_of(activity), signing)
        except (Refused, SealError) as error:
            return self._failed(receiver, delivery, Failed(str(error)))
        except Failed as error:
            return self._failed(receiver, delivery, error)
        with self._db.read() as connection:
            deliveries.mark_delivered(connection, delivery.id, status)
            if receiver.failures:
                notifications.mark_failures(connection, receiver.id, 0)
        metrics.deliveries.labels("delivered").inc()
        return True

    def _failed(self, receiver: Notification, delivery: Delivery, error: Failed, *, is_over: bool = False) -> bool:
        _log.info("delivery_failed", notification_id=receiver.id, delivery_id=delivery.id, error=str(error))
        if error.status == GONE:
            metrics.deliveries.labels("gone").inc()
            with self._db.read() as connection:
                notifications.mark_disabled(connection, receiver.id, "the receiver answered 410")
                deliveries.mark_all_dead(connection, receiver.id, "the receiver answered 410")
            return False
        failures = receiver.failures + 1
        pause = backoff(failures, LONGEST)
        with self._db.read() as connection:
            died = deliveries.mark_failed(
                connection, delivery.id, status=error.status, error=str(error), after=deliveries.LIFE if is_over else pause
            )
            notifications.mark_failures(connection, receiver.id, failures)
            deliveries.mark_put_off(connection, receiver.id, after=pause)
        metrics.deliveries.labels("dead" if died else "failed").inc()
        return False


def body_of(activity: Activity) -> bytes:
    """What is told of an activity: the same bytes at each attempt."""
    data = {
        "id": activity.id,
        "group_id": activity.group_id,
        "kind": activity.kind,
        "status": activity.status,
        "description": activity.description,
        "cause": activity.cause,
        "instance_ids": [activity.machine_id] if activity.machine_id else [],
        "rollout_id": activity.rollout_id,
        "error_code": activity.error_code,
        "request_id": activity.request_id,
        "actor": activity.actor,
    }
    return json.dumps({"type": activity.kind, "timestamp": activity.at.astimezone(UTC).isoformat(), "data": data}).encode()


def valid_secrets(document: str, now: datetime) -> list[str]:
    """The secrets that sign now: the newest, and the one before it while their overlap lasts."""
    told = json.loads(document)
    before = told.get("before")
    return [told["secret"], *([before] if before and datetime.fromisoformat(told["until"]) > now else [])]
