"""The client of the changefeed: over TLS, by way of a proxy, and what is made of refusals and of messages."""

import asyncio
import json
import os
import queue
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from dev.processes import wait_for
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_NETWORK, DEFAULT_PACKAGE
from dev.sim.cloudapi.order import Order
from dev.sim.cloudapi.simulator import Simulator
from shared.clients.access import PUBLIC, Trust
from shared.clients.changefeed import SUBSCRIPTION, Changefeed, FeedError, Message, NotAllowed, NotOffered, read_message
from shared.clients.keys import KeyPair
from shared.clients.signature import Signer
from tests.tls import NAME, Proxy, Tls

pytestmark = pytest.mark.usefixtures("no_proxies")

PATIENCE = 20.0
MACHINE, GROUP = "0f0f0f0f-1111-4222-8333-444444444444", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"


@pytest.fixture
def sim(pair: KeyPair) -> Iterator[Simulator]:
    with Simulator(throttle=False, provision_seconds=0, feed_poll_seconds=0.02, threads=8) as simulator:
        simulator.cloud.add_account("demo", [f"{pair.public_line} tsg"])
        yield simulator


def launch(sim: Simulator, **tags: str) -> str:
    cloud = sim.cloud
    account = cloud.accounts["demo"]
    order = Order(
        name=None,
        image=cloud.images[DEFAULT_IMAGE],
        package=cloud.packages[DEFAULT_PACKAGE],
        networks=[cloud.networks_of(account)[DEFAULT_NETWORK]],
        tags=tags,
    )
    return cloud.create_machine(account, order)[0]


def first_message(sim: Simulator, pair: KeyPair, url: str, trust: Trust = PUBLIC) -> Message:
    """Of a machine that is launched once the connection stands."""

    async def watch() -> Message:
        signer = Signer("demo", pair.fingerprint, pair.private_pem)
        async with asyncio.timeout(PATIENCE), Changefeed(url, trust).open("demo", signer) as messages:
            assert await asyncio.to_thread(
                wait_for, lambda: any(link.subscription for link in tuple(sim.cloud.changefeed.links)), seconds=10
            )
            launch(sim, **{"tsg.group": GROUP, "tsg.name": "web"})
            return await anext(messages)

    return asyncio.run(watch())


def test_a_message_names_the_machine_and_its_group(sim: Simulator, pair: KeyPair) -> None:
    message = first_message(sim, pair, sim.url)
    assert (message.group_id, message.group_name) == (GROUP, "web")
    assert message.machine_id in {machine.id for machine in sim.cloud.all_machines()}
    assert message.age is not None
    assert message.age < PATIENCE


def test_it_goes_over_tls_under_the_authority_that_is_named(sim: Simulator, pair: KeyPair, tls: Tls) -> None:
    assert first_message(sim, pair, tls.url, Trust(tls.authority)).group_id == GROUP
    assert first_message(sim, pair, tls.url, Trust(skip_verify=True)).group_id == GROUP
    with pytest.raises(FeedError, match="certificate is not trusted"):
        first_message(sim, pair, tls.url)


def test_it_goes_by_way_of_the_proxy_of_the_environment(sim: Simulator, pair: KeyPair, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(lambda _host: tls.port) as proxy:
        monkeypatch.setitem(os.environ, "HTTPS_PROXY", proxy.url)
        assert first_message(sim, pair, f"https://{NAME}", Trust(tls.authority)).group_id == GROUP


def test_refusals_are_told_apart(sim: Simulator, pair: KeyPair) -> None:
    sim.knobs.turn({"feed_offered": False})
    with pytest.raises(NotOffered, match=r"404 \(ResourceNotFound"):
        first_message(sim, pair, sim.url)
    sim.knobs.turn({"feed_offered": True})
    sim.cloud.accounts["demo"].keys.remove(pair.fingerprint)
    with pytest.raises(NotAllowed, match="401"):
        first_message(sim, pair, sim.url)
    sim.close()
    with pytest.raises(FeedError, match="can't be reached"):
        first_message(sim, pair, sim.url)


def test_a_redirect_is_an_error_and_no_signature_goes_elsewhere(pair: KeyPair) -> None:
    asked = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def watch() -> None:
        server = await asyncio.start_server(redirect, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, Changefeed(url).open("demo", Signer("demo", pair.fingerprint, pair.private_pem)):
            pass

    with pytest.raises(FeedError, match="302"):
        asyncio.run(watch())
    assert len(asked) == 1
    assert b"permessage-deflate" not in asked[0]


def test_leaving_says_no_goodbye_and_a_goodbye_is_answered(pair: KeyPair) -> None:
    """CloudAPI never forgets a client that leaves by a CLOSE; and fails over one that does not answer its own."""
    ended: queue.Queue[int | None] = queue.Queue()

    async def left(connection: ServerConnection) -> None:
        assert await connection.recv() == SUBSCRIPTION
        await connection.wait_closed()
        ended.put(connection.protocol.close_rcvd and connection.protocol.close_rcvd.code)

    async def closes(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.close(1000)
        ended.put(connection.protocol.close_rcvd and connection.protocol.close_rcvd.code)

    async def watch(handler: object, *, stays: bool) -> int | None:
        async with serve(handler, "127.0.0.1", 0) as server:  # type: ignore[arg-type]
            url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            signer = Signer("demo", pair.fingerprint, pair.private_pem)
            async with asyncio.timeout(PATIENCE), Changefeed(url).open("demo", signer) as messages:
                if stays:
                    with pytest.raises(FeedError, match="has closed"):
                        await anext(messages)
            return await asyncio.to_thread(ended.get, timeout=PATIENCE)

    assert asyncio.run(watch(left, stays=False)) is None
    assert asyncio.run(watch(closes, stays=True)) == 1000


def said(**more: object) -> str:
    return json.dumps({"changedResourceId": MACHINE, **more})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (said(changedResourceId=MACHINE.upper()), Message(MACHINE, None, None, None)),
        (said(resourceObject={"tags": {"tsg.group": GROUP}}), Message(MACHINE, GROUP, None, None)),
        (said(resourceObject={"tags": {"tsg.group": "x'; --", "tsg.name": 7}}, published="soon"), Message(MACHINE, None, None, None)),
        (said(resourceObject={"tags": {"tsg.name": "a\0b"}}, published=10**400), Message(MACHINE, None, None, None)),
        (said(resourceObject={"tags": {"tsg.name": "\ud800"}}), Message(MACHINE, None, None, None)),
        (said(resourceObject=[1]), Message(MACHINE, None, None, None)),
        (said(changedResourceId="no uuid"), None),
        (said(changedResourceId=7), None),
        ("[]", None),
        ("no JSON", None),
        ("[" * 100_000, None),
    ],
)
def test_a_message_is_read_leniently(text: str, found: Message | None) -> None:
    assert read_message(text) == found


_NAMES = st.sampled_from(["changedResourceId", "resourceObject", "tags", "tsg.group", "published"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(_NAMES, inner),
)


@given(_JSON.map(json.dumps) | st.text())
def test_no_text_whatever_breaks_the_reader(text: str) -> None:
    read_message(text)
