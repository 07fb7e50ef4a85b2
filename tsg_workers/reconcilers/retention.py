"""Retention: delete rows whose time is over."""

from shared import metrics
from shared.state import activities, decisions, deliveries, idempotency, instances, policies, rollouts
from shared.store.db import Database

#: Seconds between two rounds.
EVERY = 600.0
#: Rows of each table that one call deletes.
BATCH = 1000


def prune(database: Database, *, activity_days: int) -> bool:
    """Delete a batch of each table. False when there is more."""
    with database.read() as connection:
        removed = {
            "tsg_instances": instances.delete_old(connection, limit=BATCH),
            "tsg_idempotency_keys": idempotency.delete_old(connection, limit=BATCH),
            "tsg_activities": activities.delete_old(connection, days=activity_days, limit=BATCH),
            "tsg_decisions": decisions.delete_old(connection, days=activity_days, limit=BATCH),
            "tsg_deliveries": deliveries.delete_old(connection, days=activity_days, limit=BATCH),
            "tsg_rollouts": rollouts.delete_old(connection, days=activity_days, limit=BATCH),
            "tsg_hook_calls": policies.delete_old_calls(connection, limit=BATCH),
        }
    for table, rows in removed.items():
        metrics.pruned.labels(table).inc(rows)
    return max(removed.values()) < BATCH
