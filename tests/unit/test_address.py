"""Addresses of callers: one spelling for each, one caller for each network, and whose X-Forwarded-For says it."""

import socket
from ipaddress import IPv6Address

import falcon
import falcon.testing
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.runtime.port import listener
from tsg_api.http.address import CallerAddress, block, canonical

PROXY = "10.0.0.9"


@pytest.mark.parametrize(
    "text",
    [
        *("192.0.2.1", " 192.0.2.1 ", "192.0.2.1:4444", '"192.0.2.1"', '"192.0.2.1:80"', "[192.0.2.1]:80"),
        *("::ffff:192.0.2.1", "::FFFF:192.0.2.1", "[::ffff:192.0.2.1]:80", "::ffff:c000:201", "0:0:0:0:0:ffff:192.0.2.1"),
        *("::ffff:192.0.2.1%2", "[::ffff:192.0.2.1%eth0]", "64:ff9b::192.0.2.1", "64:ff9b::c000:201"),
    ],
)
def test_ipv4_is_one_address_however_it_is_written(text: str) -> None:
    assert (canonical(text), block(text)) == ("192.0.2.1", "192.0.2.1")


@pytest.mark.parametrize(
    "text",
    [
        *("2001:db8::1", "2001:DB8::1", "2001:0db8:0000::0001", "2001:db8:0:0:0:0:0:1", "[2001:db8::1]", "[2001:db8::1]:443"),
        *('"[2001:db8::1]:443"', "2001:db8::1%eth0", "[2001:db8::1%25eth0]:443", "2001:db8::0.0.0.1"),
    ],
)
def test_ipv6_is_one_address_however_it_is_written(text: str) -> None:
    assert canonical(text) == "2001:db8::1"


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ":", "unknown", "_hidden", "localhost", "192.0.2", "192.0.2.256", "192.0.2.01", "2001:db8::g", "[2001:db8::1", "1:2"),
        "1" * 70,
    ],
)
def test_what_is_no_address_has_no_spelling_and_is_a_caller_of_its_own(text: str) -> None:
    assert (canonical(text), block(text)) == (None, text)


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_all_addresses_of_a_64_are_one_caller_and_those_of_the_next_another(address: IPv6Address, host: int) -> None:
    network = int(address) >> 64
    if network in {0, 0x0064_FF9B << 32}:  # IPv4 is written there
        return
    neighbour, beyond = IPv6Address(network << 64 | host), IPv6Address((network ^ 1) << 64 | host)
    assert block(str(address)) == block(str(neighbour)) != block(str(beyond))


class _Peer:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.text = req.remote_addr


def peer_behind(trusted: str, peer: str, **headers: str) -> str:
    """What the app takes for the caller's address when `peer` connects."""
    app = falcon.App(middleware=[CallerAddress(trusted)])
    app.add_route("/", _Peer())
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return falcon.testing.simulate_get(app, "/", remote_addr=peer, headers=named).text


@pytest.mark.parametrize(
    ("trusted", "peer", "caller"),
    [
        (PROXY, PROXY, "192.0.2.7"),
        (PROXY, f"::ffff:{PROXY}", "192.0.2.7"),  # it came to a socket that takes IPv4 too
        (f"::ffff:{PROXY}", PROXY, "192.0.2.7"),
        ("fd00::9", "FD00:0::9", "192.0.2.7"),
        ("*", "203.0.113.5", "192.0.2.7"),
        ("", "203.0.113.5", "203.0.113.5"),
        (PROXY, "203.0.113.5", "203.0.113.5"),
        ("", "localhost", "localhost"),
    ],
)
def test_a_forwarded_address_is_taken_from_the_trusted_proxy_alone(trusted: str, peer: str, caller: str) -> None:
    told = {"X_Forwarded_For": "198.51.100.1, 192.0.2.7", "X_Forwarded_Host": "elsewhere", "Forwarded": "for=198.51.100.2"}
    assert peer_behind(trusted, peer, **told) == caller


@pytest.mark.parametrize("forwarded", ["", ",", "192.0.2.7,", "192.0.2.7, unknown", "x" * 9000])
def test_a_trusted_proxy_that_tells_no_address_is_the_caller_itself(forwarded: str) -> None:
    assert peer_behind(PROXY, PROXY, X_Forwarded_For=forwarded) == PROXY


def test_callers_behind_a_proxy_whose_ipv4_is_mapped_are_not_one() -> None:
    callers = [peer_behind(PROXY, PROXY, X_Forwarded_For=f"::ffff:192.0.2.{number}") for number in (1, 2)]
    assert callers == ["192.0.2.1", "192.0.2.2"]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the machine speaks no IPv6")
def test_any_address_of_ipv6_takes_ipv4_too() -> None:
    with listener("::", 0) as listening:
        port = listening.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=10).close()
