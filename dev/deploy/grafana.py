"""A dashboard for Grafana, a panel a line: `python3 -m dev.deploy.grafana >tsg.json`, and import that file. Needs nothing but Python."""

import json
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any, NamedTuple

#: Of a dashboard's 24 columns.
WIDTH, HEIGHT, COLUMNS = 8, 7, 3
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(NamedTuple):
    """Queries by their legends, in Grafana's unit."""

    title: str
    unit: str
    queries: Mapping[str, str]
    type: str = "timeseries"


def _rate(counter: str, *by: str, over: str = "5m") -> str:
    """How much it grows a second, for each value of these labels."""
    labels = f" by ({', '.join(by)}) " if by else ""
    return f"sum{labels}(rate({counter}[{over}]))"


def _within(share: float, histogram: str, *by: str) -> str:
    """Within how long this share came; for each value of these labels."""
    return f"histogram_quantile({share:g}, sum by ({', '.join(('le', *by))}) (rate({histogram}_bucket[5m])))"


PANELS = (
    Panel("Oldest unhandled change", "s", {"": "max(tsg_oldest_unhandled_change_seconds)"}, type="stat"),
    Panel("Groups due and late", "short", {"due": "max(tsg_groups_due)", "late": "max(tsg_groups_late)"}),
    Panel("Groups by what they wait for", "short", {"{{reason}}": "max by (reason) (tsg_groups) > 0"}),
    Panel("Machines by state", "short", {"{{state}}": "max by (state) (tsg_machines)"}),
    Panel("Launches", "ops", {"{{result}}": _rate("tsg_launches_total", "result")}),
    Panel("Deletions", "ops", {"{{result}}": _rate("tsg_deletions_total", "result")}),
    Panel("Looks at groups by what came of them", "ops", {"{{reason}}": _rate("tsg_group_checks_total", "reason")}),
    Panel(
        "Passes",
        "s",
        {
            "half": _within(0.5, "tsg_pass_seconds"),
            "99 %": _within(0.99, "tsg_pass_seconds"),
            "lease waits a second": _rate("tsg_lease_waits_total"),
        },
    ),
    Panel(
        "Wake-ups",
        "short",
        {
            "{{actor}} {{result}}": _rate("tsg_bells_total", "actor", "result"),
            "{{queue}} waiting": "max by (queue) (tsg_queue_messages)",
        },
    ),
    Panel("Requests", "reqps", {"{{status}}": _rate("tsg_http_requests_total", "status")}),
    Panel("Requests: 99 % within", "s", {"{{route}}": _within(0.99, "tsg_http_request_seconds", "route")}),
    Panel("Signatures", "reqps", {"{{result}}": _rate("tsg_authentications_total", "result")}),
    Panel("CloudAPI: requests", "reqps", {"{{endpoint}} {{status}}": _rate("tsg_cloudapi_requests_total", "endpoint", "status")}),
    Panel("CloudAPI: 99 % within", "s", {"{{endpoint}}": _within(0.99, "tsg_cloudapi_request_seconds", "endpoint")}),
    Panel("CloudAPI: waiting for a turn", "s", {"99 %": _within(0.99, "tsg_budget_wait_seconds")}),
    Panel(
        "Nomad: requests, and jobs failing",
        "reqps",
        {
            "{{endpoint}} {{status}}": _rate("tsg_nomad_requests_total", "endpoint", "status"),
            "jobs failing": "max(tsg_nomad_jobs_failing)",
        },
    ),
    Panel("Nomad: 99 % within", "s", {"{{endpoint}}": _within(0.99, "tsg_nomad_request_seconds", "endpoint")}),
    Panel(
        "Clock",
        "short",
        {
            "{{result}}": _rate("tsg_clock_ticks_total", "result"),
            "pruned {{table}}": _rate("tsg_pruned_rows_total", "table", over="1h"),
            "seconds since the state was read": "time() - max(tsg_state_read_timestamp_seconds)",
            "lines lost": _rate("tsg_log_lines_lost_total"),
            "statements run again, {{sqlstate}}": _rate("tsg_database_refusals_total", "sqlstate"),
        },
    ),
    Panel(
        "Health probes",
        "short",
        {
            "{{type}} {{result}}": _rate("tsg_probes_total", "type", "result"),
            "instances": "sum(tsg_probe_targets)",
            "turned {{to}}": _rate("tsg_probe_changes_total", "to"),
        },
    ),
    Panel("Health probes: 99 % late by at most", "short", {"seconds": _within(0.99, "tsg_probe_lag_seconds")}),
    Panel(
        "Changefeed: accounts",
        "short",
        {
            "{{state}}": "sum by (state) (tsg_feed_accounts)",
            "ended: {{state}}": _rate("tsg_feed_failures_total", "state"),
            "missed": _rate("tsg_feed_missed_total"),
        },
    ),
    Panel(
        "Changefeed: messages",
        "short",
        {
            "messages": _rate("tsg_feed_messages_total"),
            "wake-ups": _rate("tsg_feed_wake_ups_total"),
            "99 % within seconds": _within(0.99, "tsg_feed_lag_seconds"),
            "seconds since the last": "time() - max(tsg_feed_message_timestamp_seconds)",
        },
    ),
    Panel("Rollouts by the state they came to", "ops", {"{{state}}": _rate("tsg_rollouts_total", "state")}),
    Panel("Drains and updates of instances", "ops", {"{{change}} {{result}}": _rate("tsg_instance_changes_total", "change", "result")}),
    Panel(
        "Policies: decisions, and calls of webhooks",
        "ops",
        {"{{result}}": _rate("tsg_decisions_total", "result"), "call {{result}}": _rate("tsg_hook_calls_total", "result")},
    ),
    Panel("Policies: measures", "ops", {"{{source}} {{result}}": _rate("tsg_measures_total", "source", "result")}),
    Panel("Policies: measures, 99 % within", "s", {"{{source}}": _within(0.99, "tsg_measure_seconds", "source")}),
    Panel("Notifications: attempts", "ops", {"{{result}}": _rate("tsg_deliveries_total", "result")}),
    Panel(
        "Notifications: deliveries that wait",
        "short",
        {
            "waiting": "max(tsg_deliveries_waiting)",
            "given up within an hour": 'sum(increase(tsg_deliveries_total{result="dead"}[1h]))',
        },
    ),
    Panel("Policies and notifications: late", "short", {"{{kind}}": "max by (kind) (tsg_work_late)"}),
)


def dashboard() -> dict[str, Any]:
    """All panels, three in a row, as Grafana imports them."""
    return {
        "title": "Triton Service Groups",
        "uid": "tsg",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "tags": ["tsg"],
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]},
        "annotations": {"list": []},
        "panels": [_drawn(number, panel) for number, panel in enumerate(PANELS)],
    }


def _drawn(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS)
    is_number = panel.type == "stat"
    return {
        "id": number + 1,
        "type": panel.type,
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}}
        if is_number
        else {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {"refId": letter, "expr": query, "legendFormat": legend}
            for letter, (legend, query) in zip(ascii_uppercase, panel.queries.items(), strict=False)
        ],
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=2))
