"""What sources of measures say, over real HTTP and TLS: CMON with client certificates, Prometheus' query API."""

import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dev.processes import Child, free_port
from dev.services import Valkey
from dev.sim.cloudapi.catalog import HVM_IMAGE, HVM_PACKAGE
from dev.sim.cmon.simulator import Simulator as CmonSimulator
from dev.sim.prometheus import Simulator as PrometheusSimulator
from dev.sim.prometheus import scalar, vector
from shared.clients import cmon as cmon_client
from shared.clients.access import Timeouts, Trust
from shared.clients.cmon import Cmon, NoMetrics, make_certificate
from shared.clients.prometheus import Prometheus
from shared.clients.samples import Samples
from shared.measures.cmon import CmonSource
from shared.measures.prometheus import PrometheusSource
from shared.measures.source import Asked
from shared.policies.seen import Measure, Missing, Value
from shared.spec.policy_settings import Metric
from shared.state import policies
from shared.state.groups import Group
from tests.conftest import new_pair
from tests.integration.conftest import World
from tests.integration.test_cloudapi_client import Request, misbehaving
from tests.tls import Tls

TIMEOUTS = Timeouts(5, 1)
#: A real one, where it is installed: what the simulated one says is held against it.
PROMETHEUS = shutil.which("prometheus")


@pytest.fixture
def cmon(world: World, tmp_path: Path) -> Iterator[CmonSimulator]:
    with CmonSimulator(world.sim.cloud, tmp_path) as served:
        yield served


@pytest.fixture
def prometheus() -> Iterator[PrometheusSimulator]:
    with PrometheusSimulator() as served:
        yield served


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def settled(world: World, capacity: int = 2, **fields: Any) -> Group:
    group = world.make_group(capacity, template=world.make_template(**fields) if fields else None)
    world.settle()
    return group


def asked(world: World, group: Group, *, is_total: bool = False, **metric: Any) -> Asked:
    with world.db.read() as connection:
        found = policies.find_scaled(connection, group.id)
        members = policies.list_available(connection, group.id, group.settings)
    assert found is not None
    return Asked(found, tuple(members), Metric.model_validate(metric), is_total)


class Reading:
    """CMON's source, as a worker has it."""

    def __init__(self, world: World, cmon: CmonSimulator, valkey: Valkey) -> None:
        self.world = world
        self.cmon = cmon
        certificate = make_certificate(world.login, world.pair)
        self.connection = Cmon(cmon.url, certificate, TIMEOUTS, Trust(cmon.authorities))
        self.samples = Samples(valkey.url)
        self.source = CmonSource(self.samples, lambda _group: self.connection, lambda _group: 2.0)

    def __call__(self, group: Group, measure: str, *, is_total: bool = False) -> Measure:
        return self.source.read(asked(self.world, group, is_total=is_total, source="cmon", measure=measure))

    def forget_pace(self, group: Group) -> None:
        """The next look asks again, and finds what was said before."""
        _, kept = self.samples.get(group.id)
        self.samples.put(group.id, {one: sample._replace(at=sample.at - 11) for one, sample in kept.items()}, [])


@pytest.fixture
def reading(world: World, cmon: CmonSimulator, valkey: Valkey) -> Reading:
    return Reading(world, cmon, valkey)


def test_cmon_says_what_the_members_use(world: World, reading: Reading) -> None:
    group = settled(world)
    first, _ = sorted(world.ids(group))
    reading.cmon.load.cpu = lambda machine: 90.0 if machine.id == first else 30.0
    assert reading(group, "cpu") == Value(60.0, 2, 2)
    assert reading(group, "memory") == Value(50.0, 2, 2)
    assert reading(group, "connections", is_total=True) == Value(20.0, 2, 2)
    assert set(reading.cmon.asked.values()) == {1}, "a member is asked once in ten seconds, whatever is measured"


def test_rates_need_two_looks(world: World, reading: Reading) -> None:
    group = settled(world)
    reading.cmon.load.is_capped = False
    reading.cmon.load.cpu = lambda _machine: 40.0
    missing = reading(group, "net_out")
    assert isinstance(missing, Missing)
    assert "two looks" in missing.why
    world.sim.cloud.advance(20)
    reading.forget_pace(group)
    found = reading(group, "net_out")
    assert isinstance(found, Value)
    assert found.value == pytest.approx(1000.0)
    # 40 % of the one vCPU that the simulated package has, where this account's has two.
    found = reading(group, "cpu")
    assert isinstance(found, Value)
    assert found.value == pytest.approx(20.0)


def test_members_that_say_nothing_are_left_out(world: World, reading: Reading) -> None:
    group = settled(world)
    gone = world.ids(group)[0]
    world.sim.cloud.break_machine(next(one for one in world.sim.cloud.all_machines() if one.id == gone), "stopped")
    assert reading(group, "connections") == Value(10.0, 2, 1)


def test_no_account_sees_anothers_machines(world: World, reading: Reading) -> None:
    group = settled(world)
    stranger = new_pair()
    world.sim.cloud.add_account("stranger", [f"{stranger.public_line} tsg"], uuid=str(uuid.uuid4()))
    other = Cmon(reading.cmon.url, make_certificate("stranger", stranger), TIMEOUTS, Trust(reading.cmon.authorities))
    with pytest.raises(NoMetrics, match="404"):
        other.metrics(world.ids(group)[0])
    assert other.brands() == {}
    # Somebody else's key, in the name of this account.
    forged = Cmon(reading.cmon.url, make_certificate(world.login, stranger), TIMEOUTS, Trust(reading.cmon.authorities))
    with pytest.raises(NoMetrics, match="401"):
        forged.metrics(world.ids(group)[0])
    unknown = Cmon(reading.cmon.url, make_certificate(world.login, new_pair()), TIMEOUTS, Trust(reading.cmon.authorities))
    with pytest.raises(NoMetrics):
        unknown.metrics(world.ids(group)[0])
    distrusted = Cmon(reading.cmon.url, make_certificate(world.login, world.pair), TIMEOUTS)
    with pytest.raises(NoMetrics, match="did not answer: SSLError"):
        distrusted.metrics(world.ids(group)[0])


def test_the_memory_of_hardware_vms_is_not_believed(world: World, reading: Reading) -> None:
    group = settled(world, 1, package=HVM_PACKAGE, image_id=HVM_IMAGE)
    found = reading(group, "memory")
    assert isinstance(found, Missing)
    assert "hardware VM (bhyve)" in found.why
    assert isinstance(reading(group, "cpu"), Value)


def test_a_cmon_that_is_away_or_hangs_is_a_missing_measure(world: World, reading: Reading) -> None:
    group = settled(world)
    reading.cmon.down = True
    assert reading(group, "cpu") == Missing("CMON answered 503")
    reading.cmon.down = False
    reading.cmon.hang.set()
    assert reading(group, "cpu") == Missing("CMON did not answer: ReadTimeoutError")
    reading.cmon.hang.clear()
    assert isinstance(reading(group, "cpu"), Value)


def test_a_cmon_that_dribbles_is_left_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each look at a group would leave threads behind that wait for it."""
    monkeypatch.setattr(cmon_client, "ANSWER_SECONDS", 0.5)
    over = threading.Event()

    def dribble(request: Request) -> None:
        request.reply(200, b"", {"Content-Length": "1000000"})
        for _ in range(60):
            if over.wait(0.05):
                return
            request.wfile.write(b" ")

    with misbehaving(dribble) as (_, asked), Tls(f"http://{asked.address}", tmp_path / "tls") as tls:
        client = Cmon(tls.url, make_certificate("demo", new_pair()), Timeouts(1, 1), Trust(tls.authority))
        with pytest.raises(NoMetrics, match="has no end"):
            client.metrics("machine")
        over.set()
        client.close()


# Prometheus


def query(world: World, prometheus: PrometheusSimulator, promql: str = "up", *, tenants: bool = True, named: str = "") -> Measure:
    source = PrometheusSource(Prometheus(prometheus.url, TIMEOUTS), named.split(","), knows_tenants=tenants)
    return source.read(asked(world, world.make_group(0), source="prometheus", query=promql))


def test_prometheus_gives_the_one_element_of_a_query(world: World, prometheus: PrometheusSimulator) -> None:
    prometheus.answer = vector(73.25)
    assert query(world, prometheus, 'avg(cpu{group="$group_id", name="$group_name"})') == Value(73.25)
    ((promql, tenant),) = prometheus.asked
    assert tenant == world.account.triton_uuid
    assert "$" not in promql
    assert 'name="group-' in promql
    prometheus.answer = scalar(5)
    assert query(world, prometheus) == Value(5.0)


@pytest.mark.parametrize(
    ("answer", "status", "why"),
    [
        (vector(), 200, "the query gives nothing"),
        (vector(1, 2), 200, "the query gives 2 elements, and must give one"),
        (vector("NaN"), 200, "the query gives nan"),
        (vector("+Inf"), 200, "the query gives inf"),
        ({"resultType": "matrix", "result": []}, 200, "the query gives a matrix, and must give one number"),
        ({"resultType": "vector"}, 200, "Prometheus answered 200, and nothing that can be read"),
        ("parse error", 400, "Prometheus answered 400: parse error"),
        ("unexpected \0", 400, "Prometheus answered 400: unexpected "),
    ],
)
def test_what_is_no_number_is_missing(world: World, prometheus: PrometheusSimulator, answer: Any, status: int, why: str) -> None:
    prometheus.answer, prometheus.status = answer, status
    assert query(world, prometheus) == Missing(why)


def test_a_prometheus_that_hangs_or_is_away_is_missing(world: World, prometheus: PrometheusSimulator) -> None:
    prometheus.hang.set()
    found = query(world, prometheus)
    assert isinstance(found, Missing)
    assert "did not answer" in found.why
    prometheus.hang.clear()
    prometheus.close()
    assert isinstance(query(world, prometheus), Missing)


if PROMETHEUS:

    @pytest.fixture(scope="module")
    def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        """The URL of a real one, which scrapes nothing."""
        directory, url = tmp_path_factory.mktemp("prometheus"), f"http://127.0.0.1:{free_port()}"
        (directory / "prometheus.yml").write_text("{}")
        options = {
            "config.file": directory / "prometheus.yml",
            "storage.tsdb.path": directory / "data",
            "web.listen-address": url.removeprefix("http://"),
        }
        child = Child([str(PROMETHEUS), *(f"--{name}={value}" for name, value in options.items())], log=directory / "log")
        try:
            child.wait_until(lambda: answers(f"{url}/-/ready"))
            yield url
        finally:
            child.stop()

    @pytest.mark.parametrize(
        ("promql", "expected"),
        [
            ("vector(73.25)", Value(73.25)),
            ("scalar(vector(5))", Value(5.0)),
            ('label_replace(vector(1), "a", "$group_id $group_name", "", "")', Value(1.0)),
            ('sum(cpu{group="$group_id"})', Missing("the query gives nothing")),
            ('label_replace(vector(1), "a", "b", "", "") or vector(2)', Missing("the query gives 2 elements, and must give one")),
            ("vector(0) / 0", Missing("the query gives nan")),
            ("vector(1) / 0", Missing("the query gives inf")),
            ('"a text"', Missing("the query gives a string, and must give one number")),
            ("up[1m]", Missing("the query gives a matrix, and must give one number")),
        ],
    )
    def test_a_real_prometheus_says_the_same(world: World, real: str, promql: str, expected: Measure) -> None:
        source = PrometheusSource(Prometheus(real, TIMEOUTS), [], knows_tenants=True)
        assert source.read(asked(world, world.make_group(0), source="prometheus", query=promql)) == expected

    def test_what_a_real_prometheus_refuses_is_missing_in_its_words(world: World, real: str) -> None:
        source = PrometheusSource(Prometheus(real, TIMEOUTS), [], knows_tenants=True)
        found = source.read(asked(world, world.make_group(0), source="prometheus", query="sum("))
        assert isinstance(found, Missing)
        assert "Prometheus answered 400: invalid parameter" in found.why


def test_without_tenants_only_named_accounts_may_query(world: World, prometheus: PrometheusSimulator) -> None:
    assert query(world, prometheus, tenants=False) == Missing("Prometheus is not offered to this account")
    assert query(world, prometheus, tenants=False, named=f"other,{world.login}") == Value(1.0)
    assert query(world, prometheus, tenants=False, named=str(world.account.triton_uuid)) == Value(1.0)
    assert len(prometheus.asked) == 2
