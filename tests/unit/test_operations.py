"""What is told of metrics: the page, the alerts and the dashboard speak of metrics that there are, and the page of all of them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import make_url

from dev.deploy.grafana import dashboard
from shared import metrics
from shared.reasons import CHOSEN, NEEDS_A_CHANGE, Reason
from shared.runtime import settings
from shared.store import db
from tsg_workers import foreground
from tsg_workers import main as worker
from tsg_workers.feed import main as feed

#: Comes with Prometheus, where that is installed.
PROMTOOL = shutil.which("promtool")
TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/operations.md").read_text()
DASHBOARD = dashboard()
RULES = [rule for group in yaml.safe_load((TOP / "docs/alerts.yml").read_text())["groups"] for rule in group["rules"]]

DEFINED = [value for value in vars(metrics).values() if isinstance(value, Counter | Gauge | Histogram)]


def exposed(metric: Counter | Gauge | Histogram) -> str:
    return metric._name + ("_total" if isinstance(metric, Counter) else "")


def series() -> set[str]:
    """All names that a query may use."""
    parts = ("_bucket", "_sum", "_count")
    return {name + part for metric in DEFINED for name in [exposed(metric)] for part in (parts if isinstance(metric, Histogram) else ("",))}


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]] + [rule["expr"] for rule in RULES]


def test_the_page_has_all_metrics_with_their_labels_and_no_other() -> None:
    told = dict(re.findall(r"^\| `(tsg_\w+)` \|([^|]*)\|", PAGE, flags=re.MULTILINE))
    assert {name: labels.strip() for name, labels in told.items()} == {exposed(metric): ", ".join(metric._labelnames) for metric in DEFINED}


def test_every_metric_is_exposed_by_the_process_that_counts_it() -> None:
    state = set(metrics.STATE)
    registered = set(metrics.REGISTRY._collector_to_names)
    assert {metric for metric in DEFINED if metric not in state} <= registered
    assert {metric for metric in DEFINED if metric not in registered} <= state


@pytest.mark.parametrize("query", queries())
def test_a_query_uses_metrics_and_labels_that_there_are(query: str) -> None:
    used = set(re.findall(r"tsg_\w+", re.sub(r'"[^"]*"', '""', query)))
    assert used
    assert used <= series()
    labels = {label for metric in DEFINED for label in metric._labelnames} | {"le"}
    named = re.findall(r"by \(([^)]*)\)", query) + re.findall(r"(\w+)(?:=~|!=|=)\"", query)
    assert {label.strip() for names in named for label in names.split(",")} <= labels


def test_the_dashboard_shows_all_metrics() -> None:
    shown = " ".join(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    assert [exposed(metric) for metric in DEFINED if exposed(metric) not in shown] == []
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


if PROMTOOL:

    def test_prometheus_own_tool_finds_nothing_wrong_with_the_alerts() -> None:
        done = subprocess.run([PROMTOOL, "check", "rules", TOP / "docs/alerts.yml"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_says_what_is_wrong_and_the_page_what_to_do() -> None:
    assert {rule["alert"] for rule in RULES} == set(re.findall(r"^\| `(Tsg\w+)` \| \S", PAGE, flags=re.MULTILINE))
    for rule in RULES:
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_the_alert_of_stuck_groups_has_every_reason_that_time_does_not_mend() -> None:
    (rule,) = [rule for rule in RULES if rule["alert"] == "TsgGroupsStuck"]
    (reasons,) = re.findall(r'reason=~"([^"]*)"', rule["expr"])
    assert set(reasons.split("|")) == {*map(str, NEEDS_A_CHANGE - CHOSEN), Reason.SERVICE_FAILED}


@pytest.mark.parametrize(
    ("program", "pool_sizes"),
    [
        ("tsg-api", [settings.load({}, needs_keys=False).http_threads]),
        ("tsg-worker", [worker.POOL]),
        ("tsg-feed", [feed.POOL]),
        ("tsg-scale", [foreground.POOL]),
    ],
)
def test_the_page_has_the_connections_that_a_program_may_open(program: str, pool_sizes: list[int]) -> None:
    """Health checks of a program that serves have a connection of their own."""
    most = sum(size + (size + 1) // 2 for size in pool_sizes) + (program != "tsg-scale")
    (told,) = re.findall(rf"^\| `{program}` \| (\d+)", PAGE, flags=re.MULTILINE)
    assert int(told) == most


def test_a_pool_opens_as_many_connections_as_the_page_counts() -> None:
    opened = db.connect(make_url("postgresql+psycopg2://nobody@127.0.0.1:1/none"), pool_size=8)
    assert [pool._places.qsize() for pool in (opened._writing, opened._reading)] == [4, 8]
    opened.close()
