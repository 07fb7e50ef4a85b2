"""The changefeed of the CloudAPI simulator, over real WebSockets, held against what is known of CloudAPI's."""

import base64
import json
import os
import socket
import struct
import uuid
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from dev.processes import wait_for
from dev.sim.cloudapi.simulator import Simulator
from tests.dev.test_cloudapi_simulator import Client, modern, openssh

EVERYTHING = {"resource": "vm", "subResources": ["state", "destroyed", "tags", "nics", "alias", "customer_metadata", "server_uuid"]}


@pytest.fixture
def sim():
    with Simulator(provision_seconds=0, delete_seconds=0, job_seconds=0, throttle=False, feed_poll_seconds=0.05, threads=8) as simulator:
        simulator.cloud.add_account("demo", [openssh("rsa")])
        simulator.cloud.add_account("other", [openssh("rsa-1024")])
        yield simulator


@pytest.fixture
def demo(sim):
    return Client(sim.url)


@pytest.fixture
def feed(sim):
    with opened(sim) as connection:
        yield connection


@contextmanager
def opened(sim, subscription=EVERYTHING, account="demo", kind="rsa"):
    url = sim.url.replace("http", "ws", 1)
    headers = modern(f"/{account}/keys/{kind}", kind)
    with connect(f"{url}/my/changefeed", additional_headers=headers, compression=None, ping_interval=None) as connection:
        if subscription is not None:
            connection.send(json.dumps(subscription))
            # The answer to a ping comes after what was sent before it was read.
            connection.ping().wait(10)
        yield connection


def told(feed, count):
    return [json.loads(feed.recv(timeout=10)) for _ in range(count)]


def states(messages):
    return [message["resourceState"] for message in messages]


def upgraded(sim, **headers):
    """A raw connection that has asked for the upgrade."""
    at = urlsplit(sim.url)
    raw = socket.create_connection((at.hostname, at.port), timeout=10)
    asked = {
        "Host": at.netloc,
        **modern("/demo/keys/rsa"),
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
        **headers,
    }
    raw.sendall("".join(["GET /my/changefeed HTTP/1.1\r\n", *(f"{name}: {value}\r\n" for name, value in asked.items()), "\r\n"]).encode())
    return raw


def frame(payload, *, masked=True, last=True, opcode=1):
    mask = b"\1\2\3\4" if masked else b""
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)) if masked else payload
    return struct.pack("!BB", (0x80 if last else 0) | opcode, (0x80 if masked else 0) | len(payload)) + mask + body


def test_the_upgrade_is_answered_as_watershed_answers_it(sim):
    with upgraded(sim) as raw:
        head = raw.recv(4096).decode()
    lines = head.split("\r\n")
    assert lines[0] == "HTTP/1.1 101 The Watershed Moment"
    assert [line.partition(":")[0] for line in lines[1:4]] == ["Upgrade", "Connection", "Sec-WebSocket-Accept"]
    assert lines[4:] == ["", ""]
    # It is counted when it has been sent.
    assert wait_for(lambda: sim.cloud.counters.to_json()["by_endpoint"] == {"Changefeed": {"101": 1}}, seconds=10)


def test_what_is_no_upgrade_is_refused_in_plain_http(sim, demo):
    answer = demo.get("/my/changefeed")
    assert (answer.status_code, answer.json()["message"]) == (500, "Connection Must Upgrade For WebSockets")
    with pytest.raises(InvalidStatus) as refused, opened(sim, kind="p256"):
        pass
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize(
    ("knobs", "status"),
    [
        ({"feed_offered": False}, 404),
        ({"error_share": 1.0, "error_endpoints": ["Changefeed"], "error_status": 403}, 403),
        ({"throttle": True, "throttle_burst": 1, "throttle_rate": 0.001}, 429),
        ({"down": True}, 503),
    ],
)
def test_knobs_refuse_it(sim, knobs, status):
    sim.knobs.turn(knobs)
    if status == 429:
        with opened(sim):
            pass
    with pytest.raises(InvalidStatus) as refused, opened(sim):
        pass
    assert refused.value.response.status_code == status


@pytest.mark.parametrize("header", [{"Sec-WebSocket-Protocol": "x"}, {"Sec-WebSocket-Version": "8"}])
def test_a_header_that_throws_in_watershed_costs_the_connection(sim, header):
    with upgraded(sim, **header) as raw:
        assert raw.recv(4096) == b""


def test_unmasked_frames_cost_the_connection_and_fragments_are_answered_by_close(sim):
    with upgraded(sim) as raw:
        raw.recv(4096)
        raw.sendall(frame(b"{}", masked=False))
        assert raw.recv(4096) == b""
    with upgraded(sim) as raw:
        raw.recv(4096)
        raw.sendall(frame(b"{}", last=False))
        assert raw.recv(4096) == frame(struct.pack("!H", 1000), masked=False, opcode=8)


def test_a_life_is_told_in_messages(demo, feed):
    machine = demo.created(name="web", **{"tag.tsg.group": "g"})
    born = told(feed, 3)
    assert states(born) == ["provisioning", "provisioning", "running"]
    first = born[0]
    assert {"tags", "nics", "create_timestamp"} <= set(first["changeKind"]["subResources"])
    assert first["changedResourceId"] == first["resourceObject"]["id"] == machine
    assert first["published"].isdigit()
    assert first["resourceObject"]["package"] == ""
    assert first["resourceObject"]["tags"] == {"tsg.group": "g"}
    demo.post(f"/my/machines/{machine}/tags", {"role": "web"})
    (tagged,) = told(feed, 1)
    assert tagged["changeKind"]["subResources"][0] == "tags"
    demo.delete(f"/my/machines/{machine}")
    assert states(told(feed, 2)) == ["shutting_down", "destroyed"]


def test_nothing_is_told_before_the_first_good_subscription_and_a_new_one_replaces_it(sim, demo):
    with opened(sim, None) as feed:
        for nonsense in ({"resource": "vms", "subResources": ["state"]}, {"resource": "vm", "subResources": ["state", "pid"]}, [], "x"):
            feed.send(json.dumps(nonsense))
        feed.ping().wait(10)
        machine = demo.created(name="a")
        wait_for(lambda: sim.cloud.changefeed.shown()["sent"] or not sim.cloud._changes, seconds=10)
        feed.send(json.dumps({"resource": "vm", "subResources": ["tags"], "vms": [machine]}))
        feed.send(json.dumps({"resource": "vm", "subResources": ["alias"], "vms": [str(uuid.uuid4())]}))
        feed.send(json.dumps({"resource": "vm", "subResources": ["tags"], "vms": [machine]}))
        feed.send(json.dumps({"resource": "vm", "subResources": ["bogus"]}))
        feed.ping().wait(10)
        demo.created(name="b")
        demo.post(f"/my/machines/{machine}/tags", {"role": "web"})
        assert [message["changedResourceId"] for message in told(feed, 1)] == [machine]


def test_an_account_hears_of_its_own_machines_alone(sim, demo):
    with opened(sim, account="other", kind="rsa-1024") as others, opened(sim) as own:
        demo.created(name="a")
        told(own, 3)
        Client(sim.url, "other", "rsa-1024", "rsa-1024").created(name="b")
        assert {message["resourceObject"]["name"] for message in told(others, 3)} == {"b"}


def test_messages_come_twice_late_and_with_lies_as_the_knobs_say(sim, demo, feed):
    sim.knobs.turn({"feed_double": True})
    demo.created(name="a")
    assert states(told(feed, 6)) == ["provisioning"] * 4 + ["running"] * 2
    sim.knobs.turn({"feed_double": False, "feed_lie": True})
    machine = demo.created(name="b")
    lies = told(feed, 3)
    assert states(lies) == ["running"] * 3
    assert [message["resourceObject"]["tags"] for message in lies] == [{}] * 3
    sim.knobs.turn({"feed_lie": False, "feed_lose_next": 1})
    demo.delete(f"/my/machines/{machine}")
    assert states(told(feed, 1)) == ["destroyed"]


def test_a_mute_feed_loses_what_happens(sim, demo, feed):
    sim.knobs.turn({"feed_mute": True})
    demo.created(name="a")
    assert wait_for(lambda: not sim.cloud._changes, seconds=10)
    sim.knobs.turn({"feed_mute": False})
    demo.created(name="b")
    assert {message["resourceObject"]["name"] for message in told(feed, 3)} == {"b"}


def test_a_restart_of_vmapi_is_a_close_for_all(sim, feed):
    requests.post(f"{sim.url}/--sim/changefeed/restart", json={"seconds": 0}, timeout=10)
    with pytest.raises(ConnectionClosed) as closed:
        feed.recv(timeout=10)
    assert closed.value.rcvd.code == 1000
    assert wait_for(lambda: sim.cloud.changefeed.shown()["connections"] == 0, seconds=10)


def test_a_client_that_says_nothing_is_cut_off_without_a_close(sim, feed):
    sim.knobs.turn({"feed_idle_seconds": 0.05})
    with pytest.raises(ConnectionClosed) as closed:
        feed.recv(timeout=10)
    assert closed.value.rcvd is None


def test_a_dead_server_writes_no_record(sim, demo, feed):
    machine = demo.created(name="a")
    told(feed, 3)
    requests.post(f"{sim.url}/--sim/machines/{machine}/break", json={"state": "unknown"}, timeout=10)
    demo.post(f"/my/machines/{machine}/tags", {"role": "web"})
    assert told(feed, 1)[0]["changeKind"]["subResources"][0] == "tags"
