"""Statistics: read the state of the service for /metrics, so that a scrape costs the database nothing."""

from dramatiq.brokers.redis import RedisBroker

from shared import metrics
from shared.clients.queue import CONVERGE, DECIDE, DELIVER, REMOVE_JOB, SUBMIT_JOB, count_waiting
from shared.reasons import Reason
from shared.state import deliveries, group_state, instances, jobs, work
from shared.state.outbox import DELIVERIES
from shared.state.work import POLICIES
from shared.store.db import Database

#: Seconds between two readings.
EVERY = 15.0
#: Seconds after which what is due is late.
LATE = 60.0


def count(database: Database, broker: RedisBroker) -> bool:
    """Set the gauges to what the database and the queues hold. Always complete."""
    with database.read() as connection:
        backlog = group_state.get_backlog(connection, late=LATE)
        metrics.replace(metrics.groups, {**dict.fromkeys(map(str, Reason), 0), **group_state.count_by_reason(connection)})
        metrics.replace(metrics.machines, instances.count_by_state(connection))
        metrics.replace(metrics.work_late, work.count_late(connection, (POLICIES, DELIVERIES), late=LATE))
        metrics.deliveries_waiting.set(deliveries.count_waiting(connection))
        metrics.nomad_jobs_failing.set(jobs.count_failing(connection))
    metrics.groups_due.set(backlog.due)
    metrics.groups_late.set(backlog.late)
    metrics.oldest_change.set(backlog.oldest_change)
    for actor in (CONVERGE, SUBMIT_JOB, REMOVE_JOB, DECIDE, DELIVER):
        metrics.queue_messages.labels(actor).set(count_waiting(broker, actor))
    metrics.read_at.set_to_current_time()
    return True
