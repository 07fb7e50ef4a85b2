"""A group as its Nomad job."""

import itertools
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.sim.nomad.job import next_launch
from tsg_workers.reconcilers.jobspec import Shape, cron, distinct_id, job, plain_id

SHAPE = Shape(
    datacenter="us-east-1", role="automater", driver="exec", command="tsg-scale", image="tsg:1", artifact="", config="", cpu=100, memory=128
)
TRITON_UUID = "d82a1f04-b9f6-4075-998f-af20e3d49de6"
GROUP_ID = "92f71608-478f-478f-b6f2-788b1121aaa2"
START = datetime(2026, 11, 22, 21, 43, 7, tzinfo=UTC).timestamp()
NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,181}", fullmatch=True)


def launches(line: str) -> Iterator[float]:
    """When a job with this cron line is due, as Nomad reads it."""
    launch = START
    while True:
        launch = next_launch({"Periodic": {"Spec": line, "TimeZone": "UTC"}}, launch) or 0.0
        yield launch


def made(**changes: str) -> dict:
    return job(plain_id("web", TRITON_UUID), group_id=GROUP_ID, account_id="a", interval=300, shape=SHAPE._replace(**changes))


def test_the_job_is_the_one_of_2018_without_its_secrets() -> None:
    spec = made()
    assert spec["ID"] == f"web_{TRITON_UUID}"
    assert (spec["Type"], spec["Datacenters"]) == ("batch", ["us-east-1"])
    assert spec["Periodic"]["ProhibitOverlap"] is True
    assert {"LTarget": "${meta.role}", "Operand": "=", "RTarget": "automater"} in spec["Constraints"]
    assert {"Operand": "distinct_hosts", "RTarget": "true"} in spec["Constraints"]
    ((task,),) = [group["Tasks"] for group in spec["TaskGroups"]]
    assert task["Config"] == {"command": "tsg-scale", "args": ["--wait", GROUP_ID]}
    assert "Env" not in task


def test_a_docker_job_names_its_image_and_the_others_do_not() -> None:
    assert made(driver="docker")["TaskGroups"][0]["Tasks"][0]["Config"]["image"] == "tsg:1"
    assert "image" not in made(driver="raw_exec")["TaskGroups"][0]["Tasks"][0]["Config"]


def test_a_docker_job_has_the_nodes_configuration_file_in_its_container() -> None:
    config = made(driver="docker", config="/etc/tsg/tsg.toml")["TaskGroups"][0]["Tasks"][0]["Config"]
    assert config["args"][:2] == ["--config", "/etc/tsg/tsg.toml"]
    assert config["mount"] == [{"type": "bind", "source": "/etc/tsg/tsg.toml", "target": "/etc/tsg/tsg.toml", "readonly": True}]
    for without in (made(driver="docker"), made(driver="exec", config="/etc/tsg/tsg.toml")):
        assert "mount" not in without["TaskGroups"][0]["Tasks"][0]["Config"]


def test_a_configuration_file_and_an_artifact_are_passed_on() -> None:
    task = made(config="/etc/tsg.toml", artifact="https://example.com/tsg.tar.gz")["TaskGroups"][0]["Tasks"][0]
    assert task["Config"]["args"] == ["--config", "/etc/tsg.toml", "--wait", GROUP_ID]
    assert task["Artifacts"] == [{"GetterSource": "https://example.com/tsg.tar.gz", "RelativeDest": "local/"}]


def test_namespace_and_region_are_there_only_when_set() -> None:
    assert not {"Namespace", "Region"} & made().keys()
    assert made(namespace="tsg", region="eu")["Namespace"] == "tsg"


@given(NAMES, st.sampled_from([True, False]))
def test_every_legal_group_name_makes_a_legal_id_that_no_other_has(name: str, distinct: bool) -> None:
    job_id = distinct_id(name, TRITON_UUID, GROUP_ID) if distinct else plain_id(name, TRITON_UUID)
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", job_id)
    assert job_id.startswith(f"{name}_{TRITON_UUID}")
    assert plain_id(name, TRITON_UUID) != distinct_id(name, TRITON_UUID, GROUP_ID)


@given(st.integers(10, 86_400), st.uuids())
def test_the_cron_line_comes_at_least_once_in_every_interval(interval: int, key: object) -> None:
    line = cron(interval, str(key))
    runs = list(itertools.islice(launches(line), 5))
    distances = [later - earlier for earlier, later in itertools.pairwise(runs)]
    assert max(distances) <= interval, (line, distances)
    assert min(distances) >= min(10, interval), (line, distances)


@pytest.mark.parametrize(("interval", "period"), [(10, 10), (59, 30), (60, 60), (300, 300), (599, 360), (3600, 3600), (86_400, 86_400)])
def test_the_period_is_the_longest_that_fits(interval: int, period: int) -> None:
    first, second = itertools.islice(launches(cron(interval, "some group")), 2)
    assert second - first == period


def test_a_shorter_interval_than_nomad_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        cron(9, "some group")


def test_the_job_is_json() -> None:
    assert json.loads(json.dumps(made())) == made()
