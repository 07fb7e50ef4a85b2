"""Notifications out: deliveries come with their activities, are signed, retried, put in order, and delay nobody."""

import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import falcon
import pytest
from sqlalchemy import Connection
from standardwebhooks import Webhook

from dev.sim.common.server import Server
from shared.clients import webhooks
from shared.clients.webhooks import Failed, Refused, Rules, Sender
from shared.state import deliveries, groups, notifications, work
from shared.state.groups import Group
from shared.state.notifications import Notification
from shared.state.outbox import DELIVERIES
from tests.integration.conftest import World
from tests.tls import Tls
from tsg_workers.reconcilers.deliveries import DeliveryReconciler
from tsg_workers.runner import Runner

ANYWHERE = Rules(private=True, http=True)


class Receiver(Server):
    """Keeps what it gets, and answers what the test says."""

    def __init__(self) -> None:
        self.status = 204
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.hang = threading.Event()
        super().__init__(self._app)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        headers = {name.lower(): value for name, value in req.headers.items()}
        self.got.append((headers, req.bounded_stream.read()))
        resp.status = falcon.code_to_http_status(self.status)
        if self.status == 302:
            resp.set_header("Location", self.url + "/elsewhere")

    def _app(self) -> falcon.App[falcon.Request, falcon.Response]:
        app = falcon.App()
        app.add_route("/hook", self)
        app.add_route("/elsewhere", self)
        return app

    @property
    def kinds(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as served:
        yield served


class Telling:
    """An account's notification, and a worker that delivers."""

    def __init__(self, world: World, receiver: Receiver, **fields: Any) -> None:
        self.world = world
        self.secret = webhooks.make_secret()
        self.made = self.add(receiver, **fields)
        self.worker: Runner[Any] = Runner(world.db, DeliveryReconciler(world.db, world.sealer, Sender(ANYWHERE)), owner="worker")

    def add(self, receiver: Receiver, *, kinds: list[str] | None = None, groups: list[str] | None = None) -> Notification:
        its_id = str(uuid.uuid4())
        sealed = self.world.sealer.seal(json.dumps({"secret": self.secret}), row=its_id)
        fields = {"url": f"{receiver.url}/hook", "groups": groups or ["*"], "kinds": kinds or ["*"], "enabled": True, "secret": sealed}
        return self.world.db.transact(
            lambda made: notifications.insert_notification(made, self.world.account.id, its_id=its_id, **fields)  # type: ignore[arg-type]
        )

    def deliver(self) -> None:
        self.worker.run(self.made.id)

    def states(self) -> list[str]:
        with self.world.db.read() as connection:
            return [one.state for one in deliveries.list_newest(connection, self.made.id, limit=100)][::-1]

    def now(self) -> None:
        """What waits is due."""
        self.world.sql("UPDATE tsg_deliveries SET due_at = now() WHERE notification_id = :id", id=self.made.id)


@pytest.fixture
def telling(world: World, receiver: Receiver) -> Telling:
    return Telling(world, receiver)


def test_an_activity_is_told_and_the_published_library_verifies_it(world: World, receiver: Receiver, telling: Telling) -> None:
    group = world.make_group(1)
    with world.db.read() as connection:
        assert telling.made.id in work.claim_wake_ups(connection, DELIVERIES, limit=10)
    telling.deliver()
    ((headers, body),) = receiver.got
    told = Webhook(telling.secret).verify(body, headers)
    assert told["type"] == "TSG_GROUP_CREATE"
    assert told["data"]["group_id"] == group.id
    assert telling.states() == ["delivered"]
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(webhooks.make_secret()).verify(body, headers)


def test_a_workers_activities_are_told_and_only_those_that_were_asked_for(world: World, receiver: Receiver, telling: Telling) -> None:
    world.make_group(0)
    group = world.make_group(2)
    some = telling.add(receiver, kinds=["instance.*"], groups=[group.id])
    world.settle()
    Runner(world.db, telling.worker.reconciler, owner="worker").run(some.id)
    assert receiver.kinds == ["TSG_INSTANCE_LAUNCH"] * 2
    receiver.got.clear()
    telling.deliver()
    assert receiver.kinds.count("TSG_INSTANCE_LAUNCH") == 2
    assert receiver.kinds.count("TSG_GROUP_CREATE") == 2


def test_what_is_rolled_back_is_not_told(world: World, telling: Telling) -> None:
    group = world.make_group(1)

    def delete(connection: Connection) -> Group:
        return groups.delete_group(connection, world.account.id, group.id, request_id=None)

    with pytest.raises(ZeroDivisionError):
        world.db.transact(lambda connection: (delete(connection), 1 / 0))
    assert len(telling.states()) == 1
    world.db.transact(delete)
    assert len(telling.states()) == 2


def test_a_receiver_that_fails_is_tried_again_in_order_under_the_same_id(world: World, receiver: Receiver, telling: Telling) -> None:
    group = world.make_group(1)
    world.resize(group, 2)
    receiver.status = 500
    telling.deliver()
    telling.deliver()
    assert len(receiver.got) == 1, "the second waits for the first, and both for the pause"
    assert telling.states() == ["waiting", "waiting"]
    receiver.status = 200
    telling.now()
    telling.deliver()
    assert receiver.kinds == ["TSG_GROUP_CREATE", "TSG_GROUP_CREATE", "TSG_CAPACITY_CHANGE"]
    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert ids[0] == ids[1] != ids[2]
    assert telling.states() == ["delivered", "delivered"]


def test_one_that_fails_for_a_day_is_dead_and_can_be_replayed(world: World, receiver: Receiver, telling: Telling) -> None:
    world.make_group(1)
    world.sql("UPDATE tsg_deliveries SET first_at = now() - interval '25 hours' WHERE notification_id = :id", id=telling.made.id)
    receiver.status = 503
    telling.deliver()
    assert telling.states() == ["dead"]
    receiver.status = 200
    with world.db.read() as connection:
        (dead,) = deliveries.list_newest(connection, telling.made.id, limit=10, state="dead")
    world.db.transact(lambda made: deliveries.mark_replayed(made, telling.made.id, dead.id))
    telling.deliver()
    assert telling.states() == ["delivered"]


def test_a_receiver_that_is_gone_turns_its_notification_off(world: World, receiver: Receiver, telling: Telling) -> None:
    world.make_group(1)
    receiver.status = 410
    telling.deliver()
    assert telling.states() == ["dead"]
    with world.db.read() as connection:
        found = notifications.find(connection, telling.made.id)
    assert found is not None
    assert (found.enabled, found.disabled_why) == (False, "the receiver answered 410")
    world.make_group(1)
    assert telling.states() == ["dead"]


@pytest.mark.parametrize(
    "how", ["UPDATE tsg_notifications SET enabled = false WHERE id = :id", "DELETE FROM tsg_notifications WHERE id = :id"]
)
def test_what_was_under_way_when_nobody_wants_it_any_more_waits_for_nobody(
    world: World, receiver: Receiver, telling: Telling, how: str
) -> None:
    world.make_group(1)
    world.sql(how, id=telling.made.id)
    telling.deliver()
    assert (telling.states(), receiver.got) == (["dead"], [])


def test_a_redirect_is_not_followed(world: World, receiver: Receiver, telling: Telling) -> None:
    world.make_group(1)
    receiver.status = 302
    telling.deliver()
    assert len(receiver.got) == 1
    assert telling.states() == ["waiting"]


def test_a_worker_that_was_killed_after_sending_sends_it_again_as_the_same(world: World, receiver: Receiver, telling: Telling) -> None:
    world.make_group(1)
    telling.deliver()
    # As if the worker had been killed before it wrote down that it was sent.
    world.sql("UPDATE tsg_deliveries SET state = 'waiting', ended_at = NULL WHERE notification_id = :id", id=telling.made.id)
    telling.deliver()
    first, second = receiver.got
    assert (first[0]["webhook-id"], first[1]) == (second[0]["webhook-id"], second[1])


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest",
        "https://[::ffff:10.0.0.1]/",
        "https://100.64.0.1/",
        "https://[64:ff9b::a00:1]/",
        "https://[fd00::1]/",
        "https://[fec0::1]/",
        "https://[2002:a00:1::]/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "http://93.184.216.34/",
        "https://user:pw@example.com/",
        "https://example.com/#part",
        "ftp://example.com/",
        "https:///x",
        "https://exa mple.com/",
    ],
)
def test_addresses_that_are_not_public_and_urls_that_are_none_are_refused(url: str) -> None:
    assert webhooks.problem(url, Rules()) is not None
    with pytest.raises(Refused):
        Sender(Rules()).send(url, "id", b"{}", [webhooks.make_secret()])


def test_a_name_that_leads_to_a_private_address_is_refused_when_it_is_looked_up() -> None:
    assert webhooks.problem("https://localhost/x", Rules()) is None
    with pytest.raises(Refused, match="not public"):
        Sender(Rules()).send("https://localhost/x", "id", b"{}", [webhooks.make_secret()])


@contextmanager
def receiving(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """The URL of a receiver that answers over the bare connection; the event is set when the test is over."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError), listening.accept()[0] as connection:
                connection.recv(1 << 16)
                answer(connection, over)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/hook"
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize(
    ("begins", "goes_on", "ends"),
    [(b"", b"HTTP/1.1 100 Continue\r\n\r\n", b""), (b"HTTP/1.1 102 Processing\r\nx: ", b"a", b"\r\n\r\n")],
    ids=["continues", "headers"],
)
def test_an_answer_that_never_comes_to_its_status_is_waited_for_in_bounds(
    monkeypatch: pytest.MonkeyPatch, begins: bytes, goes_on: bytes, ends: bytes
) -> None:
    """However small its steps: a receiver would keep one of the threads that tell everybody's activities."""
    monkeypatch.setattr(webhooks, "READ", 0.5)

    def trickle(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(begins)
        for _ in range(100):
            if over.wait(0.05):
                return
            connection.sendall(goes_on)
        connection.sendall(ends + b"HTTP/1.1 204 No Content\r\n\r\n")

    with receiving(trickle) as url, pytest.raises(Failed, match="TimeoutError"):
        Sender(ANYWHERE).send(url, "id", b"{}", [webhooks.make_secret()])


def test_what_comes_after_the_status_is_not_waited_for() -> None:
    def answer(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\n")
        over.wait()

    with receiving(answer) as url:
        assert Sender(ANYWHERE).send(url, "id", b"{}", [webhooks.make_secret()]) == 202


def test_a_receiver_proves_who_it_is(receiver: Receiver, tmp_path: Path) -> None:
    secret = webhooks.make_secret()
    with Tls(receiver.url, tmp_path / "tls") as tls:
        trusting = Sender(Rules(private=True), str(tls.authority))
        assert trusting.send(f"{tls.url}/hook?a={{1}}", "id", b"{}", [secret]) == 204
        assert receiver.got[0][0]["host"] == tls.address
        for sender, url in ((Sender(Rules(private=True)), tls.url), (trusting, f"https://127.1:{tls.port}")):
            with pytest.raises(Failed, match="SSLCertVerificationError"):
                sender.send(f"{url}/hook", "id", b"{}", [secret])
    assert len(receiver.got) == 1


@pytest.mark.parametrize("host", ["a..b", f"{'x' * 64}.example"])
def test_a_name_that_no_dns_can_have_is_not_known(host: str) -> None:
    with pytest.raises(Failed, match="not known"):
        Sender(Rules()).send(f"https://{host}/", "id", b"{}", [webhooks.make_secret()])


def test_both_secrets_sign_while_they_overlap() -> None:
    old, new = webhooks.make_secret(), webhooks.make_secret()
    signature = webhooks.sign("msg", 1700000000, b"{}", [new, old])
    assert len(signature.split(" ")) == 2
    assert webhooks.sign("msg", 1700000000, b"{}", [old]) in signature


def test_the_published_vector() -> None:
    """Of the specification's own libraries."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    assert webhooks.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, [secret]) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
