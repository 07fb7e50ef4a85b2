"""CloudAPI and Nomad under certificates of a private authority, over real TLS; and by way of a proxy."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dev.processes import free_port, wait_for
from dev.sim.cloudapi.simulator import Simulator
from dev.sim.nomad.simulator import Simulator as NomadSimulator
from shared.clients import nomad
from shared.clients.access import PUBLIC, NomadAccess, Timeouts, Trust
from shared.clients.cloudapi import AnswerLost, Client, CloudAPI, Unavailable
from shared.clients.keys import KeyPair
from shared.clients.nomad import Nomad
from shared.clients.signature import Signer
from tests.conftest import order
from tests.integration.api.service import PAIR, WHITELIST, error, legacy, now
from tests.integration.api.test_programs import Served, environment, serve, sql, url
from tests.tls import NAME, Plain, Proxy, Tls

__all__ = ["environment", "serve", "sql", "url"]

pytestmark = pytest.mark.usefixtures("no_proxies")

#: OpenSSL's words for an authority that it does not know.
STRANGE = "unable to get local issuer certificate"


@pytest.fixture
def connect(sim: Simulator, pair: KeyPair) -> Iterator[Callable[..., Client]]:
    opened: list[CloudAPI] = []
    sim.cloud.add_account("demo", [f"{pair.public_line} laptop"])

    def open_one(url: str, trust: Trust = PUBLIC) -> Client:
        opened.append(CloudAPI(url, Timeouts(5, 10), trust))
        return opened[-1].as_account("demo", Signer("demo", pair.fingerprint, pair.private_pem))

    yield open_one
    for one in opened:
        one.close()


def create(client: Client) -> object:
    return client.create_machine(order("x-{{shortId}}", {}))


def refusal(client: Client) -> str:
    """What is said of a machine that can't have been made: that it may have been must not be said."""
    with pytest.raises(Unavailable) as caught:
        create(client)
    assert not isinstance(caught.value, AnswerLost)
    return str(caught.value)


def test_a_certificate_of_a_private_authority_is_taken_where_the_authority_is_named(connect: Callable[..., Client], tls: Tls) -> None:
    trusting = connect(tls.url, Trust(tls.authority))
    create(trusting)
    assert len(trusting.machines()) == 1


def test_a_certificate_is_taken_unseen_where_that_is_asked_for_and_nothing_is_warned_of_each_time(
    connect: Callable[..., Client], tls: Tls, recwarn: pytest.WarningsRecorder
) -> None:
    create(connect(tls.url, Trust(skip_verify=True)))
    assert not recwarn.list


def test_a_certificate_that_is_not_trusted_is_said_to_be_so(connect: Callable[..., Client], tls: Tls, sim: Simulator) -> None:
    assert refusal(connect(tls.url)) == f"CloudAPI's certificate is not trusted ({STRANGE}): see TSG_TRITON_CACERT."
    assert sim.cloud.all_machines() == []


def test_another_authority_than_the_one_that_is_named_is_not_trusted(connect: Callable[..., Client], tls: Tls, tmp_path: Path) -> None:
    with Tls(tls.url, tmp_path / "other") as other:
        assert "is not trusted" in refusal(connect(tls.url, Trust(other.authority)))


def test_a_certificate_for_another_name_is_not_trusted(connect: Callable[..., Client], tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(lambda _host: tls.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        told = refusal(connect("https://other.example.test", Trust(tls.authority)))
    assert "Hostname mismatch, certificate is not valid for 'other.example.test'" in told


def test_a_server_without_tls_is_not_said_to_have_made_anything(connect: Callable[..., Client], tls: Tls) -> None:
    with Plain() as plain:
        assert "is this an https:// address?" in refusal(connect(f"https://{plain.address}", Trust(tls.authority)))


def test_a_file_of_authorities_that_has_gone_since_the_start_is_named(connect: Callable[..., Client], tls: Tls, tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"
    assert str(gone) in refusal(connect(tls.url, Trust(gone)))


# Proxies


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_requests_go_through_the_proxy_of_the_environment(
    connect: Callable[..., Client], tls: Tls, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with Proxy(lambda _host: tls.port) as proxy:
        monkeypatch.setenv(name, proxy.url)
        create(connect(f"https://{NAME}", Trust(tls.authority)))
        assert set(proxy.asked) == {f"{NAME}:443"}


def test_what_is_listed_in_no_proxy_and_loopback_go_through_none(
    connect: Callable[..., Client], tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(lambda _host: tls.port) as proxy:
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        create(connect(tls.url, Trust(tls.authority)))
        create(connect(tls.url.replace("127.0.0.1", "localhost"), Trust(tls.authority)))
        monkeypatch.setenv("NO_PROXY", ".example.test")
        refusal(connect(f"https://{NAME}", Trust(tls.authority)))
        assert proxy.asked == []


@pytest.mark.parametrize("answer", ["403 Forbidden", "407 Proxy Authentication Required", "502 Bad Gateway", None])
def test_a_proxy_that_does_not_lead_there_is_not_said_to_have_made_anything(
    connect: Callable[..., Client], tls: Tls, monkeypatch: pytest.MonkeyPatch, answer: str | None
) -> None:
    if answer is None:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
        assert "ProxyError" in refusal(connect(f"https://{NAME}"))
        return
    with Proxy(lambda _host: tls.port, answer=answer) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert answer in refusal(connect(f"https://{NAME}"))


# Nomad


@pytest.fixture
def nomad_tls(tmp_path: Path) -> Iterator[Tls]:
    with NomadSimulator() as simulator, Tls(simulator.url, tmp_path / "nomad") as server:
        yield server


def test_nomad_may_have_a_private_authority_too(nomad_tls: Tls, recwarn: pytest.WarningsRecorder) -> None:
    for access in (NomadAccess(nomad_tls.url, ca_cert=nomad_tls.authority), NomadAccess(nomad_tls.url, skip_verify=True)):
        assert Nomad(access).leader()
    assert not recwarn.list
    with pytest.raises(nomad.Unavailable, match=rf"Nomad's certificate is not trusted \({STRANGE}\): see NOMAD_CACERT."):
        Nomad(NomadAccess(nomad_tls.url)).leader()


# Programs


@pytest.fixture
def tls_of_programs(simulator: Simulator, tmp_path: Path) -> Iterator[Tls]:
    with Tls(simulator.url, tmp_path / "programs") as server:
        yield server


CASES: list[tuple[dict[str, str], bool]] = [
    ({}, False),
    ({"TSG_TRITON_CACERT": "CA"}, True),
    ({"REQUESTS_CA_BUNDLE": "CA"}, True),
    ({"SSL_CERT_FILE": "CA"}, True),
    ({"TSG_TRITON_SKIP_VERIFY": "true"}, True),
    ({"TRITON_SKIP_TLS_VERIFY": "1"}, True),
]


@pytest.mark.parametrize(("settings", "trusted"), CASES)
def test_the_api_asks_a_cloudapi_and_a_nomad_with_a_private_authority(
    serve: Callable[..., Served],
    sql: Callable[..., list[Any]],
    environment: dict[str, str],
    simulator: Simulator,
    tls_of_programs: Tls,
    nomad_tls: Tls,
    tmp_path: Path,
    settings: dict[str, str],
    trusted: bool,
) -> None:
    both = tmp_path / "both.pem"
    both.write_text(tls_of_programs.authority.read_text() + nomad_tls.authority.read_text())
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        environment.pop(name, None)
    if settings.get("TSG_TRITON_CACERT"):
        settings = settings | {"NOMAD_CACERT": "CA"}
    given = {name: value.replace("CA", str(both)) for name, value in settings.items()}
    if "verify" in str(settings).lower():
        given["NOMAD_SKIP_VERIFY"] = "true"
    address = tls_of_programs.url
    served = serve(
        TSG_TRITON_URL=address,
        TSG_TRITON_AUTH_URL=address.replace("127.0.0.1", "localhost"),
        TSG_SCALER="nomad",
        NOMAD_ADDR=nomad_tls.url,
        **given,
    )
    away = ("cloudapi", "cloudapi_auth", "nomad")
    report = requests.get(f"{served.url}/readyz", timeout=30).json()
    assert {name: report["checks"][name] for name in away} == dict.fromkeys(away, "ok" if trusted else "certificate not trusted")
    account = simulator.cloud.add_account(f"tls-{uuid.uuid4()}"[:20], [PAIR.public_line], uuid=str(uuid.uuid4()))
    sql(WHITELIST, login=account.login, uuid=account.id)
    answer = requests.get(f"{served.url}/v1/tsg/groups", headers=legacy(f"/{account.login}/keys/{PAIR.fingerprint}", now()), timeout=30)
    if trusted:
        assert (answer.status_code, answer.json()) == (200, [])
        unverified = {"cloudapi", "nomad"} if "NOMAD_SKIP_VERIFY" in given else set()
        assert wait_for(lambda: bool(served.lines("request")), seconds=10)
        assert {line["server"] for line in served.lines("certificates_not_verified")} == unverified
        return
    told = error(answer, 503, "ServiceUnavailable")["message"]
    assert told == f"The signature can't be verified now: CloudAPI's certificate is not trusted ({STRANGE}): see TSG_TRITON_CACERT."
    assert wait_for(lambda: bool(served.lines("unavailable")), seconds=10)
    assert served.lines("unavailable")[0]["error"] == told
    changes = {(line["check"], line["state"]) for line in served.lines("health_changed")}
    assert changes >= {(name, "certificate not trusted") for name in away}
