"""Everything that is counted, for Prometheus: `docs/operations.md` has each with what it is good for.

Labels have few values: no account, no group, no path that somebody made up. Counting costs a microsecond or two.
"""

from collections.abc import Mapping

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from shared.lines import count_lost

# Each process counts in its own memory. With PROMETHEUS_MULTIPROC_DIR in the environment the library would count in mapped files: a disk
# that is full, or a directory that is cleaned, would then end the process.
values.ValueClass = values.MutexValue
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
prometheus_client.ProcessCollector(registry=REGISTRY)
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

#: Seconds: of a read from a warm cache up to a CloudAPI that is about to time out.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# The API

http_requests = Counter("tsg_http_requests", "Requests answered.", ["method", "route", "status"], registry=REGISTRY)
http_seconds = Histogram("tsg_http_request_seconds", "Seconds to answer a request.", ["route"], buckets=SECONDS, registry=REGISTRY)
authentications = Counter("tsg_authentications", "Requests by what came of their signature.", ["result"], registry=REGISTRY)

# Wake-ups. The name of the metric is older than the word: dashboards and alerts of operators use it.

wake_ups = Counter("tsg_bells", "Wake-ups, by result: sent, failed (Redis) or dropped.", ["actor", "result"], registry=REGISTRY)

# Workers

passes = Histogram("tsg_pass_seconds", "Seconds of one pass over an account's due groups.", buckets=SECONDS, registry=REGISTRY)
lease_waits = Counter("tsg_lease_waits", "Wake-ups handled while another worker held the account's lease.", registry=REGISTRY)
checks = Counter("tsg_group_checks", "Looks at groups, by what a group waits for after it.", ["reason"], registry=REGISTRY)
launches = Counter("tsg_launches", "Launches, by result.", ["result"], registry=REGISTRY)
deletions = Counter("tsg_deletions", "Deletions, by result.", ["result"], registry=REGISTRY)
changes = Counter("tsg_instance_changes", "Drains, their ends and updates of instances.", ["change", "result"], registry=REGISTRY)
rollouts = Counter("tsg_rollouts", "Rollouts that ended or paused, by state.", ["state"], registry=REGISTRY)
budget_seconds = Histogram("tsg_budget_wait_seconds", "Seconds waited for a turn at CloudAPI.", buckets=SECONDS, registry=REGISTRY)

# Health probes

probes = Counter("tsg_probes", "Health probes, by type and result.", ["type", "result"], registry=REGISTRY)
probe_lag = Histogram("tsg_probe_lag_seconds", "Seconds by which a health probe began late.", buckets=SECONDS, registry=REGISTRY)
probe_targets = Gauge("tsg_probe_targets", "Instances that this process probes.", registry=REGISTRY)
probe_changes = Counter("tsg_probe_changes", "Instances whose health changed, by what it is now.", ["to"], registry=REGISTRY)
# Policies

decisions = Counter("tsg_decisions", "Decisions of policies, by result.", ["result"], registry=REGISTRY)
measures = Counter("tsg_measures", "Measures that were asked for, by result.", ["source", "result"], registry=REGISTRY)
measure_seconds = Histogram("tsg_measure_seconds", "Seconds until a source had answered.", ["source"], buckets=SECONDS, registry=REGISTRY)
hook_calls = Counter("tsg_hook_calls", "Calls of webhooks, by result.", ["result"], registry=REGISTRY)

# The changefeed

feeds = Gauge("tsg_feed_accounts", "Accounts that this tsg-feed watches, by how their changefeed is doing.", ["state"], registry=REGISTRY)
feed_messages = Counter("tsg_feed_messages", "Messages of changefeeds.", registry=REGISTRY)
feed_wake_ups = Counter("tsg_feed_wake_ups", "Wake-ups sent because of the changefeed.", registry=REGISTRY)
feed_failures = Counter("tsg_feed_failures", "Connections of the changefeed that ended or were refused.", ["state"], registry=REGISTRY)
feed_missed = Counter("tsg_feed_missed", "Messages that a changefeed should have sent and did not.", registry=REGISTRY)
feed_lag = Histogram(
    "tsg_feed_lag_seconds", "Seconds from a change's coming to the changefeed to its message.", buckets=SECONDS, registry=REGISTRY
)
feed_heard_at = Gauge("tsg_feed_message_timestamp_seconds", "When the last message of a changefeed came.", registry=REGISTRY)

deliveries = Counter("tsg_deliveries", "Attempts to deliver a notification, by result.", ["result"], registry=REGISTRY)

# Other services

database_refusals = Counter(
    "tsg_database_refusals", "Statements that the database refused to order among others: run again.", ["sqlstate"], registry=REGISTRY
)
cloudapi_requests = Counter("tsg_cloudapi_requests", "Requests to CloudAPI.", ["endpoint", "status"], registry=REGISTRY)
cloudapi_seconds = Histogram("tsg_cloudapi_request_seconds", "Seconds CloudAPI took.", ["endpoint"], buckets=SECONDS, registry=REGISTRY)
nomad_requests = Counter("tsg_nomad_requests", "Requests to Nomad.", ["endpoint", "status"], registry=REGISTRY)
nomad_seconds = Histogram("tsg_nomad_request_seconds", "Seconds Nomad took.", ["endpoint"], buckets=SECONDS, registry=REGISTRY)

ticks = Counter("tsg_clock_ticks", "Rounds of the scheduler's duties (wake-ups, and all others), by result.", ["result"], registry=REGISTRY)
pruned = Counter("tsg_pruned_rows", "Rows removed because their time was over.", ["table"], registry=REGISTRY)

# The log

log_lines_lost = Counter("tsg_log_lines_lost", "Lines that could not be written to the log.", registry=REGISTRY)
count_lost(log_lines_lost.inc)

# What the clock reads in the database and in Redis, every quarter of a minute

groups_due = Gauge("tsg_groups_due", "Groups whose time to be looked at has come.", registry=None)
groups_late = Gauge("tsg_groups_late", "Groups whose time came over a minute ago.", registry=None)
groups = Gauge("tsg_groups", "Groups that are not gone, by what they wait for.", ["reason"], registry=None)
oldest_change = Gauge("tsg_oldest_unhandled_change_seconds", "Age of the oldest change that no worker has looked at.", registry=None)
nomad_jobs_failing = Gauge("tsg_nomad_jobs_failing", "Nomad jobs of groups that Nomad refuses or does not run.", registry=None)
machines = Gauge("tsg_machines", "Machines of groups, by state.", ["state"], registry=None)
work_late = Gauge("tsg_work_late", "Subjects whose time came over a minute ago, by kind of work.", ["kind"], registry=None)
deliveries_waiting = Gauge("tsg_deliveries_waiting", "Deliveries of notifications that wait for their receivers.", registry=None)
queue_messages = Gauge("tsg_queue_messages", "Wake-ups in Redis that wait for a worker.", ["queue"], registry=None)
read_at = Gauge("tsg_state_read_timestamp_seconds", "When the clock last read the state above.", registry=None)

STATE = (
    *(groups_due, groups_late, groups, oldest_change, nomad_jobs_failing, machines),
    *(work_late, deliveries_waiting, queue_messages, read_at),
)

#: The state of a request that got no answer.
NO_ANSWER = "none"


def page() -> bytes:
    """What this process has counted, as Prometheus reads it."""
    return prometheus_client.generate_latest(REGISTRY)


def export_state() -> None:
    """This process reads the state, so its page has it."""
    for gauge in STATE:
        REGISTRY.register(gauge)


def replace(gauge: Gauge, now: Mapping[str, float]) -> None:
    """Set a gauge with one label to what is counted now; what was there before and is not now is 0."""
    before = [value for metric in gauge.collect() for sample in metric.samples for value in sample.labels.values()]
    for value, count in {**dict.fromkeys(before, 0), **now}.items():
        gauge.labels(value).set(count)
