"""Metrics: labels with few values, and processes that count together."""

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from shared import metrics
from shared.clients import cloudapi, nomad

ID = "6f873d02-172c-418f-8416-4da2b50d5c53"


@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [
        ("GET", "/demo", "GetAccount"),
        ("GET", "/demo/machines?tag.tsg.name=*&limit=1000", "ListMachines"),
        ("GET", f"/demo/machines/{ID}", "GetMachine"),
        ("POST", "/demo/machines", "CreateMachine"),
        ("DELETE", f"/demo/machines/{ID}", "DeleteMachine"),
        ("GET", "/demo/keys", "ListKeys"),
        ("GET", "/demo/keys/aa:bb", "GetKey"),
        ("POST", "/demo/keys", "CreateKey"),
        ("DELETE", "/demo/keys/aa:bb", "DeleteKey"),
        ("GET", "/demo/users/bob/keys", "ListUserKeys"),
        ("GET", "/demo/users/bob/keys/aa:bb", "GetUserKey"),
        ("GET", "/machines/machines", "ListMachines"),
    ],
)
def test_an_endpoint_of_cloudapi_is_known_by_its_name(method: str, path: str, endpoint: str) -> None:
    assert cloudapi.endpoint_of(method, path) == endpoint


@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [
        ("PUT", "/v1/jobs", "PUT /v1/jobs"),
        ("PUT", "/v1/validate/job", "PUT /v1/validate/job"),
        ("GET", f"/v1/job/tsg-{ID}", "GET /v1/job/:id"),
        ("PUT", f"/v1/job/tsg-{ID}/periodic/force", "PUT /v1/job/:id/periodic/force"),
        ("GET", "/v1/status/leader", "GET /v1/status/leader"),
    ],
)
def test_an_endpoint_of_nomad_is_told_without_the_job(method: str, path: str, endpoint: str) -> None:
    assert nomad.endpoint_of(method, path) == endpoint


def test_what_is_not_there_any_more_is_none() -> None:
    gauge = Gauge("machines", "Machines.", ["state"], registry=CollectorRegistry())
    metrics.replace(gauge, {"running": 3, "failed": 1})
    metrics.replace(gauge, {"running": 2})
    (family,) = gauge.collect()
    assert {sample.labels["state"]: sample.value for sample in family.samples} == {"running": 2, "failed": 0}


#: Two processes and their parent count; the one that is left tells all of it.
FORKING = """
import os
from shared import metrics
with metrics.added_up():
    for number in (1, 2):
        if not os.fork():
            metrics.http_requests.labels("GET", "/v1/tsg/groups", 200).inc(number)
            metrics.http_seconds.labels("/v1/tsg/groups").observe(0.2)
            os._exit(0)
    for _ in range(2):
        os.wait()
    metrics.http_requests.labels("GET", "/v1/tsg/groups", 200).inc(10)
    print(metrics.page().decode())
    print("#", os.environ["PROMETHEUS_MULTIPROC_DIR"])
"""


def test_processes_that_share_a_port_count_together_and_leave_nothing_behind() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=True)
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
    }
    assert samples["tsg_http_requests_total", None] == 13
    assert samples["tsg_http_request_seconds_count", None] == 2
    assert samples["tsg_http_request_seconds_bucket", "0.25"] == 2
    assert samples["tsg_http_request_seconds_bucket", "0.1"] == 0
    directory = done.stdout.splitlines()[-1].removeprefix("# ")
    assert directory
    assert not Path(directory).exists()
