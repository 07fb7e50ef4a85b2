"""Metrics: labels with few values, counted in memory."""

import os
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
        ("POST", f"/demo/machines/{ID}?action=enable_firewall", "UpdateMachine"),
        ("POST", f"/demo/machines/{ID}/metadata", "AddMachineMetadata"),
        ("DELETE", f"/demo/machines/{ID}/metadata/triton.cns.status", "DeleteMachineMetadata"),
        ("POST", f"/demo/machines/{ID}/tags", "AddMachineTags"),
        ("DELETE", f"/demo/machines/{ID}/tags/tsg.group", "DeleteMachineTag"),
        ("GET", "/demo/keys", "ListKeys"),
        ("GET", "/demo/keys/aa:bb", "GetKey"),
        ("POST", "/demo/keys", "CreateKey"),
        ("DELETE", "/demo/keys/aa:bb", "DeleteKey"),
        ("GET", "/demo/users/bob/keys", "ListUserKeys"),
        ("GET", "/demo/users/bob/keys/aa:bb", "GetUserKey"),
        ("GET", "/machines/machines", "ListMachines"),
        ("GET", "/demo/packages/g4-highcpu-1G", "GetPackage"),
        ("GET", f"/demo/images/{ID}", "GetImage"),
        ("GET", f"/demo/networks/{ID}", "GetNetwork"),
        ("GET", "/demo/volumes?name=data", "ListVolumes"),
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


def test_counting_needs_no_disk_whatever_the_environment_says(tmp_path: Path) -> None:
    """The library counts in mapped files where this variable is set: then a full disk ends the process."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    program = (
        "from shared import metrics\n"
        "metrics.http_requests.labels('GET', '/v1/tsg/groups', 200).inc(10)\n"
        "metrics.http_seconds.labels('/v1/tsg/groups').observe(0.2)\n"
        "print(metrics.page().decode())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
    }
    assert samples["tsg_http_requests_total", None] == 10
    assert samples["tsg_http_request_seconds_bucket", "0.25"] == 1
    assert samples["tsg_http_request_seconds_bucket", "0.1"] == 0
    assert samples["process_resident_memory_bytes", None] > 0
    assert list(tmp_path.iterdir()) == []
