"""What probes in a row say of an instance, which addresses are probed, and what of an answer counts."""

import json
from ipaddress import ip_network

import pytest

from shared.clients.status_line import status_of
from shared.spec.group_settings import HealthCheck, Probe
from shared.state.probes import HEALTHY, UNHEALTHY
from tsg_workers.probes.addresses import address_of, refusal
from tsg_workers.probes.tally import Tally

CHECK = HealthCheck(type=Probe.HTTP, port=80, unhealthy_after=3, healthy_after=2)
NETWORK = "f7ed95d3-faaf-43ef-9346-15644403b963"


def count(tally: Tally, results: str, *, in_grace: bool = False) -> list[tuple[str | None, str | None]]:
    """Count probes (`+` succeeded, `-` failed); what was news, one after the other."""
    news = []
    for number, result in enumerate(results):
        if tally.count(None if result == "+" else f"failure {number}", in_grace=in_grace):
            news.append((tally.health, tally.error))
    return news


def test_an_instance_is_healthy_after_so_many_successes_and_unhealthy_after_so_many_failures() -> None:
    tally = Tally(CHECK)
    assert count(tally, "++++") == [(HEALTHY, None)]
    assert count(tally, "--+--+") == [], "never three in a row"
    assert count(tally, "-----") == [(UNHEALTHY, "failure 2")]
    assert count(tally, "+-+-") == []
    assert count(tally, "++") == [(HEALTHY, None)]


def test_failures_do_not_count_in_the_grace_and_the_first_is_told() -> None:
    tally = Tally(CHECK)
    assert count(tally, "-----", in_grace=True) == [(None, "failure 0")]
    assert count(tally, "--") == []
    assert count(tally, "-") == [(UNHEALTHY, "failure 0")]


def test_the_grace_ends_at_the_first_success() -> None:
    tally = Tally(CHECK)
    assert count(tally, "-+---", in_grace=True) == [(None, "failure 0"), (UNHEALTHY, "failure 4")]


def test_what_another_process_found_is_gone_on_from() -> None:
    tally = Tally(CHECK, HEALTHY, has_answered=True)
    assert count(tally, "+---", in_grace=True) == [(UNHEALTHY, "failure 3")]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"),
        *("169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "fe80::1%eth0"),
        *("10.0.0.1", "172.16.0.1", "192.168.128.5", "100.64.0.1", "fd00::1", "198.18.0.10"),
        *("64:ff9b::a00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe", "fec0::1"),
        *("0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "ff02::1", "240.0.0.1"),
        *("localhost", "", "metadata.google.internal", "2130706433", "0x7f000001", "127.1", "8.8.8.8:80", "8.8.8.8 "),
    ],
)
def test_an_address_that_may_be_another_machine_for_us_is_not_probed(address: str) -> None:
    assert refusal(address, ())


def test_public_addresses_are_probed_and_those_of_named_networks() -> None:
    assert refusal("72.2.113.5", ()) is None
    assert refusal("2600:1f18::1", ()) is None
    allowed = (ip_network("10.64.0.0/10"), ip_network("fd00::/8"))
    assert [bool(refusal(one, allowed)) for one in ("10.64.0.9", "fd00::9", "::ffff:10.64.0.9", "10.0.0.9")] == [False, False, False, True]
    assert "TSG_PROBE_NETWORKS" in (refusal("10.0.0.9", allowed) or "")


def test_the_address_is_the_primary_one_or_that_of_the_network() -> None:
    addresses = json.dumps({NETWORK: "10.0.0.2"})
    assert address_of("72.2.113.5", addresses, None) == "72.2.113.5"
    assert address_of("72.2.113.5", addresses, NETWORK) == "10.0.0.2"
    assert [address_of(None, None, None), address_of("", None, NETWORK), address_of("72.2.113.5", "{}", NETWORK)] == [None, None, None]


@pytest.mark.parametrize(
    ("got", "status"),
    [
        (b"", None),
        (b"HTTP/1.1 20", None),
        (b"HTTP/1.1 200 OK\r\n", 200),
        (b"HTTP/1.0 503\n", 503),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://169.254.169.254/\r\n\r\n", 301),
        (b"HTTP/1.1 101 Switching Protocols\r\n", 101),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n", None),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\n", 404),
    ],
)
def test_the_first_status_that_is_no_information_counts(got: bytes, status: int | None) -> None:
    assert status_of(got) == status


@pytest.mark.parametrize(
    "got", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/2 200\r\n", b"\x15\x03\x01\x00\x02", b"HTTP/1.1 abc\r\n", b"\n", b"HTTP/1.1 099 x\r\n"]
)
def test_an_answer_that_is_not_http_1_is_none(got: bytes) -> None:
    with pytest.raises(ValueError, match="not HTTP/1"):
        status_of(got)
