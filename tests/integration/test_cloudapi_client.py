"""The client of CloudAPI against its simulator, and against servers that are worse: each error by its cause."""

import gzip
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from dev.processes import free_port
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_NETWORK, DEFAULT_PACKAGE, PRIVATE_NETWORK
from dev.sim.cloudapi.order import Order
from dev.sim.cloudapi.simulator import Simulator
from shared.clients import cloudapi, keys
from shared.clients.access import Timeouts
from shared.clients.budget import Budget
from shared.clients.cloudapi import (
    BODIES_A_PAGE,
    CNS_STATUS,
    PAGE,
    THROTTLED_TRIES,
    AnswerLost,
    Broken,
    Client,
    CloudAPI,
    CloudAPIError,
    Forbidden,
    NoCapacity,
    NotFound,
    QuotaExceeded,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
    Withheld,
)
from shared.clients.keys import KeyPair
from shared.clients.signature import Signer
from shared.spec.machines import TAG_LAUNCH, Instance
from shared.spec.spec import Spec, request
from shared.state.accounts import Account
from tests.conftest import new_pair, order
from tests.integration.conftest import DELETE_SECONDS, PROVISION_SECONDS
from tsg_api.resources.verification import find_problems
from tsg_workers.cloud.list import Listing

NOBODY = "00000000-0000-4000-8000-000000000000"
TIMEOUTS = Timeouts(connect=5, read=30)
#: Of the simulator's job that changes tags and metadata.
JOB_SECONDS = 0.5


@pytest.fixture
def clouds(sim: Simulator, pair: KeyPair) -> Iterator[CloudAPI]:
    sim.cloud.add_account("demo", [f"{pair.public_line} laptop"])
    opened = CloudAPI(sim.url, TIMEOUTS)
    yield opened
    opened.close()


@pytest.fixture
def signer(pair: KeyPair) -> Signer:
    return Signer("demo", pair.fingerprint, pair.private_pem)


@pytest.fixture
def demo(clouds: CloudAPI, signer: Signer) -> Client:
    return clouds.as_account("demo", signer)


def create(client: Client, **tags: str) -> cloudapi.Machine:
    return client.create_machine(order("web-{{shortId}}", tags))


def refusal(work: Callable[[], object]) -> CloudAPIError:
    with pytest.raises(CloudAPIError) as caught:
        work()
    return caught.value


def answers(sim: Simulator, endpoint: str) -> dict[str, int]:
    """How often an endpoint was asked, by the status that was sent."""
    counted: dict[str, int] = sim.cloud.counters.to_json()["by_endpoint"].get(endpoint, {})
    return counted


# What it asks for


def test_an_account_and_its_keys_are_read(demo: Client, sim: Simulator, pair: KeyPair) -> None:
    account = sim.cloud.accounts["demo"]
    assert demo.account() == (account.id, "demo")
    assert demo.key_fingerprint("laptop") == pair.fingerprint
    assert demo.key_fingerprint("no such key/with a slash") is None


def test_a_key_is_added_once(demo: Client) -> None:
    other = keys.generate()
    demo.add_key("TSG_Management_us-east-1", other.public_line)
    assert demo.key_fingerprint("TSG_Management_us-east-1") == other.fingerprint
    error = refusal(lambda: demo.add_key("TSG_Management_us-east-1", keys.generate().public_line))
    assert type(error) is Rejected
    assert (error.status, error.code) == (409, "InvalidArgument")


def test_public_keys_are_listed_with_their_names(demo: Client, pair: KeyPair) -> None:
    (found,) = demo.list_keys()
    assert (found.name, found.fingerprint) == ("laptop", pair.fingerprint)
    assert found.line.split()[:2] == pair.public_line.split()


def test_the_keys_of_a_sub_user_that_is_not_there_are_not_found(demo: Client) -> None:
    assert isinstance(refusal(lambda: demo.list_keys(user="nobody")), NotFound)


def test_a_machine_is_made_with_all_that_was_asked_for(demo: Client, sim: Simulator) -> None:
    values = {
        "package": DEFAULT_PACKAGE.upper(),
        "image_id": DEFAULT_IMAGE.upper(),
        "firewall_enabled": True,
        "networks": [DEFAULT_NETWORK.upper()],
        "userdata": "#!/bin/sh",
        "metadata": {"role": "web", "user-data": "of the metadata"},
        "tags": {"mine": "1", "tsg.group": "forged"},
    }
    made = demo.create_machine(request(Spec("template", values), Instance("g1", "web", "t" * 36, "l1")))
    assert (made.state, made.protected) == ("provisioning", False)
    own = {"tsg.name": "web", "tsg.group": "g1", "tsg.template": "t" * 36, "tsg.launch": "l1", "triton.cmon.groups": "g1"}
    assert made.tags == {"mine": "1", **own}
    (machine,) = sim.cloud.all_machines()
    assert machine.name == f"tsg-tttttttt-{machine.id[:8]}"
    assert machine.firewall_enabled
    assert [network.id for network in machine.networks] == [DEFAULT_NETWORK]
    assert (machine.metadata["role"], machine.metadata["user-data"]) == ("web", "#!/bin/sh")


def test_a_list_has_what_matches_and_a_single_machine_is_had_in_any_state(demo: Client, sim: Simulator) -> None:
    web, db = create(demo, **{"tsg.name": "web"}), create(demo, **{"tsg.name": "db"})
    assert {machine.id for machine in demo.machines(**{"tag.tsg.name": "*"})} == {web.id, db.id}
    assert [machine.id for machine in demo.machines(**{"tag.tsg.name": "web"})] == [web.id]
    sim.cloud.advance(PROVISION_SECONDS)
    found = demo.machine(web.id)
    assert found is not None
    assert (found.state, found.tags) == ("running", {"tsg.name": "web"})
    demo.delete_machine(web.id)
    sim.cloud.advance(DELETE_SECONDS)
    assert demo.machine(web.id) is None
    assert type(refusal(lambda: demo.machine(NOBODY))) is NotFound


def test_the_machine_of_a_launch_is_had_whatever_became_of_it(demo: Client, sim: Simulator) -> None:
    sim.knobs.turn({"fail_next_creates": 1})
    failed, gone = create(demo, **{"tsg.launch": "one"}), create(demo, **{"tsg.launch": "two"})
    sim.cloud.advance(PROVISION_SECONDS)
    demo.delete_machine(gone.id)
    sim.cloud.advance(DELETE_SECONDS)
    assert demo.machines() == []
    found = [demo.find_machine(TAG_LAUNCH, launch_id) for launch_id in ("one", "two", "three")]
    assert [machine and (machine.id, machine.state) for machine in found] == [(failed.id, "failed"), (gone.id, "deleted"), None]


def test_a_machine_is_described_with_its_server_and_its_addresses(demo: Client, sim: Simulator) -> None:
    networks = [{"ipv4_uuid": PRIVATE_NETWORK}, {"ipv4_uuid": DEFAULT_NETWORK}]
    made = demo.create_machine(order("web", {}, networks=networks, firewall_enabled=True))
    assert (made.name, made.primary_ip, dict(made.addresses), made.cns_status) == ("web", "", {}, None)
    sim.cloud.advance(PROVISION_SECONDS)
    (found,) = demo.machines()
    (machine,) = sim.cloud.all_machines()
    assert (found.compute_node, found.firewall_enabled) == (machine.compute_node, True)
    assert found.addresses == {nic.network: nic.ip for nic in machine.nics}
    assert found.primary_ip == found.addresses[DEFAULT_NETWORK], "the public one"


def test_a_machine_leaves_dns_and_comes_back(demo: Client, sim: Simulator) -> None:
    made = demo.create_machine(order("web", {}, **{"metadata.role": "web"}))
    for value in ("down", "up"):
        demo.add_metadata(made.id, {CNS_STATUS: value})
        sim.cloud.advance(JOB_SECONDS)
        found = demo.machine(made.id)
        assert found is not None
        assert (found.cns_status, found.body["metadata"]["role"]) == (value, "web")
    for _ in range(2):
        demo.delete_metadata(made.id, CNS_STATUS)
        sim.cloud.advance(JOB_SECONDS)
    assert answers(sim, "DeleteMachineMetadata") == {"204": 1, "404": 1}
    assert [machine.cns_status for machine in demo.machines()] == [None]


def test_tags_are_set_and_taken_off_one_by_one(demo: Client, sim: Simulator) -> None:
    made = create(demo, mine="1", **{"tsg.group": "g1"})
    other = create(demo)
    demo.add_tags(made.id, {"count": 3, "machine": other.id})
    for _ in range(2):
        demo.delete_tag(made.id, "tsg.group")
        sim.cloud.advance(JOB_SECONDS)
    assert {machine.id: machine.tags for machine in demo.machines()} == {made.id: {"mine": "1", "count": 3}, other.id: {}}
    error = refusal(lambda: demo.add_tags(made.id, {"triton.nonsense": "x"}))
    assert (type(error), error.code) == (Rejected, "ValidationFailed")


def test_a_firewall_is_switched_once_the_machine_has_its_server(demo: Client, sim: Simulator) -> None:
    made = create(demo)
    error = refusal(lambda: demo.set_firewall(made.id, enabled=True))
    assert (type(error), error.code) == (Rejected, "UnallocatedVM")
    sim.cloud.advance(PROVISION_SECONDS)
    for enabled in (True, False):
        demo.set_firewall(made.id, enabled=enabled)
        sim.cloud.advance(JOB_SECONDS)
        assert [machine.firewall_enabled for machine in demo.machines()] == [enabled]


def test_a_change_of_a_machine_that_is_gone_finds_none(demo: Client, sim: Simulator) -> None:
    made = create(demo)
    demo.delete_machine(made.id)
    sim.cloud.advance(DELETE_SECONDS)
    for machine_id, status in ((made.id, 410), (NOBODY, 404)):
        for change in (lambda: demo.add_metadata(machine_id, {CNS_STATUS: "down"}), lambda: demo.add_tags(machine_id, {"a": "b"})):  # noqa: B023
            error = refusal(change)
            assert (type(error), error.status) == (NotFound, status)
        demo.delete_tag(machine_id, "a")
        demo.delete_metadata(machine_id, CNS_STATUS)


def test_a_change_of_a_machine_leaves_no_doubt_since_it_may_be_asked_for_again(demo: Client, sim: Simulator) -> None:
    made = create(demo)
    sim.knobs.turn({"error_share": 1})
    assert type(refusal(lambda: demo.add_metadata(made.id, {CNS_STATUS: "down"}))) is Unavailable


def test_a_list_of_more_machines_than_fit_on_two_pages_is_whole(demo: Client, sim: Simulator) -> None:
    fill(sim, 2 * PAGE + 17)
    assert len({machine.id for machine in demo.machines(**{"tag.tsg.name": "*"})}) == 2 * PAGE + 17
    assert answers(sim, "ListMachines") == {"200": 3}


def test_a_list_of_exactly_one_page_asks_for_another(demo: Client, sim: Simulator) -> None:
    fill(sim, PAGE)
    assert len(demo.machines()) == PAGE
    assert answers(sim, "ListMachines") == {"200": 2}


def test_bodies_come_on_small_pages_and_share_the_long_texts_of_their_template(demo: Client, sim: Simulator) -> None:
    fill(sim, 2 * BODIES_A_PAGE + 1, metadata={"user-data": "x" * 60_000})
    texts = [machine.body["metadata"]["user-data"] for machine in demo.machine_bodies()]
    assert len(texts) == 2 * BODIES_A_PAGE + 1
    assert len({id(text) for text in texts}) == 1, "or 1,000 machines of one template would take 60 MB"
    assert answers(sim, "ListMachines") == {"200": 3}
    assert all(machine.body == {} for machine in demo.machines())


def fill(sim: Simulator, count: int, **more: Any) -> None:
    """So many machines at once, as only the cloud itself can make them."""
    made_of = {
        "image": sim.cloud.images[DEFAULT_IMAGE],
        "package": sim.cloud.packages[DEFAULT_PACKAGE],
        "name": None,
        "networks": [],
        "tags": {"tsg.name": "web"},
        **more,
    }
    for _ in range(count):
        sim.cloud.create_machine(sim.cloud.accounts["demo"], Order(**made_of))


# Refusals, each from its cause


def test_409s_are_told_apart(demo: Client, sim: Simulator) -> None:
    bad_package = refusal(lambda: demo.create_machine(order("x", {}, package="no-such-name")))
    assert (type(bad_package), bad_package.status, bad_package.code) == (Rejected, 409, "InvalidArgument")
    bad_tag = refusal(lambda: demo.create_machine(order("x", {"triton.nonsense": "x"})))
    assert (type(bad_tag), bad_tag.code) == (Rejected, "ValidationFailed")
    assert "tags.triton.nonsense" in str(bad_tag), "the field that is wrong is named"
    bad_id = refusal(lambda: demo.machine("NOT-A-UUID"))
    assert (type(bad_id), bad_id.status) == (Rejected, 409)
    sim.knobs.turn({"capacity": 0})
    full = refusal(lambda: create(demo))
    assert (type(full), full.status, full.code) == (NoCapacity, 409, "NoAllocatableServersError")


def test_a_protected_machine_is_not_deleted_and_the_reason_is_told(demo: Client, sim: Simulator) -> None:
    made = create(demo)
    sim.cloud.advance(PROVISION_SECONDS)
    (machine,) = sim.cloud.all_machines()
    sim.cloud.set_deletion_protection(machine, True)
    sim.cloud.advance(1)
    error = refusal(lambda: demo.delete_machine(made.id))
    assert (type(error), error.code) == (Rejected, "CannotDestroyMachineError")
    found = demo.machine(made.id)
    assert found is not None
    assert found.protected


def test_an_image_that_is_not_there_is_not_found(demo: Client) -> None:
    error = refusal(lambda: demo.create_machine(order("x", {}, image=NOBODY)))
    assert (type(error), error.status, str(error)) == (NotFound, 404, "image not found")


def test_a_quota_is_not_just_any_403(demo: Client, sim: Simulator) -> None:
    sim.knobs.turn({"default_quota": 0})
    assert type(refusal(lambda: create(demo))) is QuotaExceeded
    sim.cloud.accounts["demo"].disabled = True
    error = refusal(demo.account)
    assert (type(error), error.status, error.code) == (Forbidden, 403, "NotAuthorized")


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (403, "NotAuthorized", "Quota exceeded", QuotaExceeded),
        (403, "QuotaExceeded", "no more", QuotaExceeded),
        (409, "QuotaExceeded", "no more", QuotaExceeded),
        (409, "InvalidArgument", "The size of the disks must not be greater than the package quota", Rejected),
        (503, "InsufficientCapacity", "no room", NoCapacity),
        (409, "InsufficientCapacityError", "no room", NoCapacity),
        (420, "RequestThrottled", "slow down", Throttled),
        (408, "", "", Unavailable),
    ],
)
def test_what_documents_and_gateways_say_otherwise_than_cloudapi_means_the_same(status: int, code: str, message: str, kind: type) -> None:
    body = json.dumps({"code": code, "message": message}).encode()
    with misbehaving(lambda request: request.reply(status, body, {"x-request-id": "r1"})) as (client, _):
        error = refusal(lambda: create(client))
    assert (type(error), error.request_id) == (kind, "r1")


def test_a_key_that_cloudapi_does_not_know_is_unauthorized(clouds: CloudAPI) -> None:
    other = keys.generate()
    error = refusal(clouds.as_account("demo", Signer("demo", other.fingerprint, other.private_pem)).account)
    assert (type(error), error.status, error.code) == (Unauthorized, 401, "InvalidCredentials")


def test_an_account_of_somebody_else_is_forbidden(clouds: CloudAPI, signer: Signer, sim: Simulator) -> None:
    sim.cloud.add_account("other")
    assert type(refusal(clouds.as_account("other", signer).account)) is Forbidden


def test_the_request_s_id_is_in_the_error(demo: Client, sim: Simulator) -> None:
    sim.knobs.turn({"default_quota": 0})
    assert len(refusal(lambda: create(demo)).request_id) == 36


def test_a_machine_that_is_gone_is_as_good_as_deleted_whatever_the_answer(demo: Client, sim: Simulator) -> None:
    sim.knobs.turn({"delete_flip_seconds": 5.0})
    made = create(demo)
    sim.cloud.advance(PROVISION_SECONDS)
    demo.delete_machine(made.id)
    demo.delete_machine(made.id)
    assert answers(sim, "DeleteMachine") == {"204": 2}
    sim.cloud.advance(DELETE_SECONDS)
    demo.delete_machine(made.id)  # 410, the body a string
    sim.cloud.advance(5)
    demo.delete_machine(made.id)  # 410, the body a machine
    demo.delete_machine(NOBODY)  # 404
    assert answers(sim, "DeleteMachine") == {"204": 2, "410": 2, "404": 1}


# CloudAPI in trouble


@pytest.mark.parametrize(("status", "kind"), [(500, Broken), (503, Unavailable), (502, AnswerLost), (504, AnswerLost)])
def test_a_5xx_to_a_create_leaves_doubt_unless_it_says_not_now(demo: Client, sim: Simulator, status: int, kind: type) -> None:
    machine_id = create(demo).id
    sim.knobs.turn({"error_share": 1, "error_status": status})
    assert type(refusal(lambda: create(demo))) is kind
    assert type(refusal(lambda: demo.machine(machine_id))) is Unavailable
    assert type(refusal(lambda: demo.delete_machine(machine_id))) is Unavailable


def test_a_503_that_took_long_came_from_a_gateway_and_leaves_doubt_of_a_create(
    demo: Client, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloudapi, "GATEWAY_SECONDS", 0.3)  # 10 in earnest
    sim.knobs.turn({"error_share": 1, "error_status": 503, "latency_by_endpoint": {"CreateMachine": 0.4}})
    error = refusal(lambda: create(demo))
    assert (type(error), error.status) == (AnswerLost, 503)
    sim.knobs.turn({"error_status": 500})
    assert type(refusal(lambda: create(demo))) is Broken, "CloudAPI itself said it, however long it took"


def test_maintenance_refuses_writes_and_nothing_else(demo: Client, sim: Simulator) -> None:
    sim.knobs.turn({"read_only": True})
    error = refusal(lambda: create(demo))
    assert (type(error), error.status) == (Unavailable, 503)
    assert "being upgraded" in str(error)
    assert demo.machines() == []


def test_a_refused_connection_leaves_no_doubt_even_for_a_create(signer: Signer) -> None:
    nowhere = CloudAPI(f"http://127.0.0.1:{free_port()}", Timeouts(1, 1)).as_account("demo", signer)
    for work in (lambda: create(nowhere), nowhere.machines, lambda: nowhere.delete_machine(NOBODY)):
        error = refusal(work)
        assert type(error) is Unavailable
        assert (error.status, "Connection refused" in str(error)) == (0, True)


def test_a_name_that_does_not_resolve_leaves_no_doubt(signer: Signer) -> None:
    nowhere = CloudAPI("http://cloudapi.invalid", Timeouts(1, 1)).as_account("demo", signer)
    assert type(refusal(lambda: create(nowhere))) is Unavailable


def test_an_answer_that_comes_too_late_leaves_doubt_of_a_create_alone(clouds: CloudAPI, sim: Simulator, signer: Signer) -> None:
    hasty = CloudAPI(sim.url, Timeouts(connect=5, read=0.3)).as_account("demo", signer)
    sim.knobs.turn({"hang_seconds": 1.0})
    assert type(refusal(lambda: create(hasty))) is AnswerLost
    assert type(refusal(hasty.machines)) is Unavailable
    (machine,) = sim.cloud.all_machines()
    assert type(refusal(lambda: hasty.delete_machine(machine.id))) is Unavailable
    assert len(sim.cloud.all_machines()) == 1, "it was made all the same"


def test_an_answer_that_is_cut_off_leaves_doubt_of_a_create_alone(demo: Client, sim: Simulator) -> None:
    sim.knobs.turn({"lost_answers_next": 1})
    assert type(refusal(lambda: create(demo))) is AnswerLost
    (machine,) = sim.cloud.all_machines()
    sim.knobs.turn({"lost_answers_next": 2, "lost_answer_endpoints": []})
    error = refusal(demo.machines)
    assert (type(error), "(" in str(error), "closed" in str(error) or "reset" in str(error)) == (Unavailable, False, True)
    assert type(refusal(lambda: demo.delete_machine(machine.id))) is Unavailable
    assert machine.destroying


def test_an_answer_that_is_not_json_leaves_doubt_of_a_create_alone(demo: Client, sim: Simulator) -> None:
    sim.knobs.turn({"bad_json": True})
    assert type(refusal(lambda: create(demo))) is AnswerLost
    for work in (demo.account, demo.machines, lambda: demo.machine(sim.cloud.all_machines()[0].id)):
        assert type(refusal(work)) is Unavailable


def test_an_error_that_is_not_json_is_told_by_its_status() -> None:
    with misbehaving(lambda request: request.reply(400, b"<html>Bad request</html>")) as (client, _):
        error = refusal(client.account)
    assert (type(error), error.status, error.code, str(error)) == (Rejected, 400, "", "CloudAPI answered 400")


@pytest.mark.parametrize("body", [{}, [], "machines", None, {"code": "InternalError"}])
def test_a_list_that_is_none_is_not_an_empty_list(body: object) -> None:
    with misbehaving(lambda request: request.reply(200, json.dumps(body).encode())) as (client, _):
        if body == []:
            assert client.machines() == []
        else:
            assert type(refusal(client.machines)) is Unavailable


ODD = [
    *(1, None, "a\0\ud800", [], {}),
    *({"id": 1, "state": "running"}, {"id": None}, {"name": "\ud800\0"}, {"id": "vm-7", "state": "running", "tags": {TAG_LAUNCH: "l1"}}),
]


@pytest.mark.parametrize("odd", ODD)
def test_a_machine_that_nobody_can_name_is_left_out_of_lists_and_costs_the_others_nothing(odd: object) -> None:
    rows = [odd, {"id": named(1), "state": "running"}]
    with misbehaving(lambda request: request.reply(200, json.dumps(rows).encode(), {"x-resource-count": "2"})) as (client, _):
        assert [machine.id for machine in client.machines()] == [named(1)]
        assert [machine.id for machine in client.machine_bodies()] == [named(1)]
        assert list(Listing(client).machines) == [named(1)]


def test_a_launch_whose_machine_nobody_can_name_has_not_come_to_nothing() -> None:
    body = json.dumps(ODD).encode()
    with misbehaving(lambda request: request.reply(200, body)) as (client, _):
        assert "no UUID: vm-7" in str(refusal(lambda: client.find_machine(TAG_LAUNCH, "l1")))
        assert client.find_machine(TAG_LAUNCH, "l2") is None


@pytest.mark.parametrize("odd", ODD)
def test_a_machine_that_nobody_can_name_is_no_answer_about_one(odd: object) -> None:
    with misbehaving(lambda request: request.reply(201, json.dumps(odd).encode())) as (client, _):
        assert type(refusal(lambda: client.machine(named(1)))) is Unavailable
        assert type(refusal(lambda: create(client))) is AnswerLost


def test_an_answer_about_another_machine_says_nothing_of_the_one_that_was_asked_for() -> None:
    with misbehaving(lambda request: request.reply(200, json.dumps({"id": named(2).upper(), "state": "failed"}).encode())) as (client, _):
        assert type(refusal(lambda: client.machine(named(1)))) is Unavailable
        assert client.machine(named(2)) is not None


def test_of_a_machine_anything_but_its_id_may_be_missing_or_be_odd() -> None:
    bare: dict[str, Any] = {"id": named(1).upper()}
    fields = (
        "state",
        "created",
        "name",
        "tags",
        "metadata",
        "nics",
        "primaryIp",
        "compute_node",
        "deletion_protection",
        "firewall_enabled",
    )
    odd = [{**bare, **dict.fromkeys(fields, value)} for value in (None, 7, "x", [None], {"x": None}, True)]
    with misbehaving(lambda request: request.reply(200, json.dumps([bare, *odd]).encode())) as (client, _):
        found = [(machine.id, machine.state, machine.created) for machine in client.machine_bodies()]
    assert found == [(named(1), "unknown", "")] * (1 + len(odd))


@pytest.mark.parametrize("more", [{"disks": [{"size": 1}, {"size": "remaining"}], "brand": "bhyve"}, {"volumes": [{"name": "v"}]}])
@pytest.mark.parametrize("odd", [None, 7, -1, "x", "zvol", [None], [{}], {"x": None}, True])
def test_of_what_a_template_is_made_of_anything_may_be_odd(odd: object, more: Mapping[str, Any]) -> None:
    fields = ("state", "acl", "owner", "type", "requirements", "brand", "memory", "disk", "image_size", "networks", "public", "active")
    described = {**dict.fromkeys(fields, odd), "flexible_disk": True, "name": "v"}

    def answer(request: "Request") -> None:
        request.reply(200, json.dumps([described] if "/volumes" in request.path else described).encode())

    spec = Spec("t", {"package": DEFAULT_PACKAGE, "image_id": DEFAULT_IMAGE, "networks": [DEFAULT_NETWORK], **more})
    with misbehaving(answer) as (client, _):
        assert all(
            isinstance(message, str)
            for _, message in find_problems(client, Account("1", "demo", NOBODY, enabled=True, has_registered_key=True), spec)
        )


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2026-11-27T17:29:04.430Z", "2026-11-27T17:29:04.430Z"),
        ("2026-11-27T17:29:04Z", "2026-11-27T17:29:04.000Z"),
        ("2026-11-27T19:29:04.430917+02:00", "2026-11-27T17:29:04.430Z"),
        ("2026-11-27 17:29", "2026-11-27T17:29:00.000Z"),
        ("0001-01-01T00:00:00+14:00", ""),
        ("9999-12-31T23:59:59-14:00", ""),
        ("yesterday", ""),
    ],
)
def test_times_of_machines_are_in_one_form_whose_order_is_theirs(said: str, meant: str) -> None:
    body = json.dumps([{"id": named(1), "state": "running", "created": said}]).encode()
    with misbehaving(lambda request: request.reply(200, body)) as (client, _):
        assert [machine.created for machine in client.machines()] == [meant]


def test_a_list_that_is_shorter_than_it_says_is_refused() -> None:
    def answer(request: "Request") -> None:
        request.reply(200, listed(1), {"x-resource-count": "2"})

    with misbehaving(answer) as (client, _):
        assert "announced 2 machines and sent 1" in str(refusal(client.machines))


@pytest.mark.parametrize("count", ["\xb2", "9" * 5000, "-1", "two", ""], ids=["superscript", "long", "negative", "word", "none"])
def test_a_list_that_says_no_number_is_read_for_it(count: str) -> None:
    with misbehaving(lambda request: request.reply(200, listed(1), {"x-resource-count": count})) as (client, _):
        assert [machine.id for machine in client.machines()] == [named(0)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("says", ["its own and the limit", "those of all pages", "nothing"])
def test_pages_are_smaller_where_cloudapi_says_so_and_may_say_how_many_there_are_on_all(says: str, count: int) -> None:
    most = 2 if says == "its own and the limit" else BODIES_A_PAGE

    def answer(request: "Request") -> None:
        query = dict(parse_qsl(urlsplit(request.path).query))
        offset, limit = int(query["offset"]), min(most, int(query["limit"]))
        here = min(limit, max(0, total - offset))
        said = {"its own and the limit": {"x-query-limit": str(limit), "x-resource-count": str(here)}, "nothing": {}}
        request.reply(200, listed(here, offset), said.get(says, {"x-resource-count": str(total)}))

    total = count if says == "its own and the limit" else count * BODIES_A_PAGE // 2
    with misbehaving(answer) as (client, asked):
        found = [machine.id for machine in client.machine_bodies()]
    assert found == [named(number) for number in range(total)]
    assert len(asked) <= total // most + 1


def test_a_list_whose_pages_are_all_the_same_ends() -> None:
    with misbehaving(lambda request: request.reply(200, listed(PAGE), {"x-resource-count": str(PAGE)})) as (client, asked):
        assert "the same machines" in str(refusal(client.machines))
        assert len(asked) == 2


def test_a_destroyed_machine_in_a_list_is_none_and_a_state_that_nobody_knows_is_unknown() -> None:
    said = ("running", "deleted", "destroyed", "failed", "rebooting", "incomplete", "unreachable", None, 7, "")
    rows = [{"id": named(number), "state": state} for number, state in enumerate(said)]
    with misbehaving(lambda request: request.reply(200, json.dumps(rows).encode(), {"x-resource-count": str(len(rows))})) as (client, _):
        states = ["running", "failed", "unknown", "provisioning", "offline", *["unknown"] * 3]
        assert [machine.state for machine in client.machines()] == states
        assert [machine.state for machine in client.machine_bodies()] == states
        assert [machine.state for machine in Listing(client).machines.values()] == states


def test_a_list_that_breaks_off_on_its_second_page_is_no_list(demo: Client) -> None:
    def answer(request: "Request") -> None:
        if "offset=0" in request.path:
            request.reply(200, listed(PAGE), {"x-resource-count": str(PAGE)})
        else:
            request.reply(500, b"{}")

    with misbehaving(answer) as (client, asked):
        assert type(refusal(client.machines)) is Unavailable
        assert len(asked) == 2


def listed(count: int, offset: int = 0) -> bytes:
    """A list of running machines."""
    return json.dumps([{"id": named(number), "state": "running"} for number in range(offset, offset + count)]).encode()


def named(number: int) -> str:
    """The id of a machine."""
    return f"00000000-0000-4000-8000-{number:012x}"


def test_a_body_that_ends_too_soon_is_no_answer() -> None:
    def answer(request: "Request") -> None:
        request.reply(200, listed(1), {"Content-Length": "1000"})

    with misbehaving(answer) as (client, _):
        assert isinstance(refusal(client.machines), Unavailable)


@pytest.mark.parametrize("name", [".", ".."])
def test_no_name_leads_to_another_place_in_cloudapi(name: str) -> None:
    """Whoever sends a path with such a segment leaves it away, and what was before it: a package `..` would be the account."""
    with misbehaving(lambda request: request.reply(200, b"{}")) as (client, asked):
        assert client.find("packages", name) is None
        assert client.key_fingerprint(name) is None
        client.delete_machine(name)
        client.delete_key(name)
        for ask in (lambda: client.machine(name), lambda: client.list_keys(user=name)):
            assert type(refusal(ask)) is NotFound
        for odd in ("a/../b", "a?b#c", "a%2e"):
            client.find("packages", odd)
        assert [one.path for one in asked] == [f"/demo/packages/{quote(odd, safe='')}" for odd in ("a/../b", "a?b#c", "a%2e")]


def test_no_cookie_of_one_account_comes_with_the_request_of_another() -> None:
    account = json.dumps({"id": NOBODY, "login": "demo"}).encode()
    with misbehaving(lambda request: request.reply(200, account, {"Set-Cookie": "session=demo; Path=/"})) as (client, asked):
        assert (client.account(), client.account()) == ((NOBODY, "demo"), (NOBODY, "demo"))
        assert [one.headers["Cookie"] for one in asked] == [None, None]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_answer_that_never_ends_is_waited_for_in_bounds_and_kept_in_bounds(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """However small its steps: each byte would begin the read timeout anew."""
    monkeypatch.setattr(cloudapi, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(cloudapi, "MAX_ANSWER_BYTES", 100_000)
    given_up = threading.Event()

    def trickle(request: "Request") -> None:
        request.reply(200, b"[", {"Content-Length": "1000000"})
        while not given_up.wait(0.05):
            request.wfile.write(b" ")

    def flood(request: "Request") -> None:
        request.reply(200, b"[" + b" " * 1_000_000)

    def bomb(request: "Request") -> None:
        request.reply(200, gzip.compress(b" " * 10_000_000), {"Content-Encoding": "gzip"})

    def elsewhere(request: "Request") -> None:
        request.reply(302, b" " * 1_000_000, {"Location": "/elsewhere"})

    late, large = "not complete after 0.5 s", "more than 100000 bytes"
    for answer, told in ((trickle, late), (flood, large), (bomb, large), (elsewhere, large)):
        with misbehaving(answer) as (client, _):
            error = refusal(client.machines if method == "GET" else lambda client=client: create(client))
            given_up.set()
        given_up.clear()
        assert type(error) is (Unavailable if method == "GET" else AnswerLost)
        assert told in str(error)


@pytest.mark.parametrize(
    ("begins", "goes_on", "ends"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"a", b"\r\nContent-Length: 2\r\n\r\n[]"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No\r\n\r\n"),
    ],
    ids=["a header", "continues"],
)
def test_headers_that_dribble_are_waited_for_no_longer_than_silence(begins: bytes, goes_on: bytes, ends: bytes) -> None:
    given_up = threading.Event()

    def dribble(request: "Request") -> None:
        request.wfile.write(begins)
        for _ in range(60):
            if given_up.wait(0.05):
                return
            request.wfile.write(goes_on)
        request.wfile.write(ends)

    with misbehaving(dribble, read=0.5) as (client, _):
        error = refusal(lambda: create(client))
        given_up.set()
    assert (type(error), "timed out" in str(error)) == (AnswerLost, True)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"id": "\xff", "login": "demo"}',
        rb'{"id": "a\u0000b", "login": "demo"}',
        rb'{"id": "a", "login": "\ud800"}',
        b'{"id": "a", "login": ["demo"]}',
    ],
)
def test_an_answer_that_nobody_could_use_or_store_is_none(body: bytes) -> None:
    with misbehaving(lambda request: request.reply(200, body)) as (client, _):
        assert type(refusal(client.account)) is Unavailable


@pytest.mark.parametrize(
    "body", [{"errors": 5}, {"errors": "no"}, {"errors": {"field": "x"}}, {"errors": [1, None]}, {"message": {}}, [], 5]
)
def test_an_error_of_any_form_is_told_by_its_status(body: object) -> None:
    with misbehaving(lambda request: request.reply(403, json.dumps(body).encode())) as (client, _):
        assert type(refusal(client.account)) is Forbidden


@pytest.mark.parametrize(
    ("status", "body", "allowed"),
    [(403, {}, False), (409, {"code": "MissingParameter"}, True), (403, {"message": "Quota exceeded"}, False)],
)
def test_cloudapi_is_asked_who_may_create_machines_for_one_that_it_cannot_make(status: int, body: object, *, allowed: bool) -> None:
    with misbehaving(lambda request: request.reply(status, json.dumps(body).encode())) as (client, asked):
        assert client.may_create_machines() is allowed
        assert (asked[0].command, asked[0].path, asked[0].headers["Content-Length"]) == ("POST", "/demo/machines", "2")


@pytest.mark.parametrize("status", [200, 201, 302, 400, 401, 404, 429, 500, 503])
def test_no_other_answer_says_who_may_create_machines(status: int) -> None:
    with misbehaving(lambda request: request.reply(status, b"{}")) as (client, _):
        refusal(client.may_create_machines)


# The throttle and the budget


def test_without_a_budget_a_429_is_told_at_once(demo: Client, sim: Simulator) -> None:
    sim.knobs.turn({"throttle": True, "throttle_burst": 1, "throttle_rate": 0.001})
    demo.machines()
    error = refusal(demo.machines)
    assert (type(error), error.status, error.code) == (Throttled, 429, "TooManyRequestsError")
    assert answers(sim, "ListMachines") == {"200": 1, "429": 1}


def test_within_a_budget_a_429_empties_it_and_is_tried_again(clouds: CloudAPI, sim: Simulator, signer: Signer) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        sim.cloud.advance(seconds)

    budget = Budget(10, 30, now=sim.cloud.now, sleep=sleep)
    client = clouds.as_account("demo", signer, budget)
    sim.knobs.turn({"throttle": True, "throttle_burst": 1, "throttle_rate": 5})
    client.machines()
    client.machines()
    assert answers(sim, "ListMachines") == {"200": 2, "429": 2}
    assert slept == pytest.approx([0.1, 0.1])


def test_a_429_that_does_not_end_is_told_after_so_many_tries(clouds: CloudAPI, sim: Simulator, signer: Signer) -> None:
    budget = Budget(10, 30, now=sim.cloud.now, sleep=lambda _seconds: None)
    client = clouds.as_account("demo", signer, budget)
    sim.knobs.turn({"error_share": 1, "error_status": 429})
    assert type(refusal(client.machines)) is Throttled
    assert answers(sim, "ListMachines") == {"429": THROTTLED_TRIES}


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize(
    ("said", "least", "most"),
    [("7", 7, 7), ("Fri, 01 Jan 2100 00:00:00 GMT", 1e8, 1e10), ("soon", 0, 0), ("0", 0, 0)],
)
def test_a_cloudapi_that_asks_to_be_left_alone_is_not_asked_again(status: int, said: str, least: float, most: float) -> None:
    with misbehaving(lambda request: request.reply(status, b"{}", {"Retry-After": said})) as (_, asked):
        clouds = CloudAPI(f"http://{asked.address}", TIMEOUTS)
        error = refusal(clouds.as_account("demo", Signer("demo", "00", PAIR.private_pem), Budget(10_000, 100)).machines)
        clouds.close()
    assert least <= error.retry_after <= most
    assert (len(asked) == 1) == (least > 0)


def test_a_create_is_never_sent_twice_but_after_a_429(clouds: CloudAPI, sim: Simulator, signer: Signer) -> None:
    budget = Budget(10_000, 100)
    client = clouds.as_account("demo", signer, budget)
    for status in (400, 403, 404, 409, 500, 502, 503, 504):
        sim.cloud.counters.reset()
        sim.knobs.turn({"error_share": 1, "error_status": status})
        refusal(lambda: create(client))
        assert answers(sim, "CreateMachine") == {str(status): 1}


def test_each_request_takes_its_share_of_the_budget_and_a_paid_one_took_it_before(clouds: CloudAPI, sim: Simulator, signer: Signer) -> None:
    budget = Budget(10, 30, now=lambda: 0.0)
    client = clouds.as_account("demo", signer, budget)
    client.machines()
    client.account()
    assert budget.left == 28
    assert client.turn(within=0)
    made = create(client)
    assert client.turn(within=0)
    client.delete_machine(made.id)
    assert budget.left == 26


def test_whoever_has_no_budget_has_always_a_turn(demo: Client) -> None:
    assert demo.turn(within=-1)


# The guard


def test_what_changes_something_is_withheld_when_the_guard_says_no_and_reading_goes_on(
    clouds: CloudAPI, sim: Simulator, signer: Signer
) -> None:
    made = create(clouds.as_account("demo", signer))
    sim.cloud.counters.reset()
    client = clouds.as_account("demo", signer, None, lambda: False)
    for work in (lambda: create(client), lambda: client.delete_machine(made.id), lambda: client.add_key("k", "ssh-rsa AAAA")):
        assert type(refusal(work)) is Withheld
    assert [machine.id for machine in client.machines()] == [made.id]
    assert list(sim.cloud.counters.to_json()["by_endpoint"]) == ["ListMachines"]


# What goes over the wire


def test_a_request_is_dated_now_and_says_what_it_reads() -> None:
    with misbehaving(lambda request: request.reply(200, b"[]")) as (client, asked):
        client.machines(**{"tag.tsg.name": "a b&c=*"})
    (request,) = asked
    assert urlsplit(request.path).query == "tag.tsg.name=a+b%26c%3D%2A&limit=1000&offset=0"
    assert request.headers["Accept"] == "application/json"
    assert request.headers["Accept-Version"] == "~9||~8"
    assert "(request-target) date" in request.headers["Authorization"]


def test_an_account_s_name_cannot_leave_its_place_in_the_path(clouds: CloudAPI, signer: Signer) -> None:
    with misbehaving(lambda request: request.reply(404, b"{}"), account="a/../b?c") as (client, asked):
        refusal(client.account)
    assert asked[0].path == "/a%2F..%2Fb%3Fc"


def test_a_caller_s_own_signature_is_passed_on_as_it_is(clouds: CloudAPI) -> None:
    with misbehaving(lambda request: request.reply(200, b'{"id": "u", "login": "demo"}')) as (_, asked):
        url = f"http://{asked.address}"
        assert CloudAPI(url, TIMEOUTS).as_caller("demo", "a date", "Signature x").account() == ("u", "demo")
    assert (asked[0].headers["Date"], asked[0].headers["Authorization"]) == ("a date", "Signature x")


@pytest.mark.parametrize(
    ("status", "location"),
    [(301, "/elsewhere"), (302, "/elsewhere"), (303, "http://["), (307, "\xff"), (308, "http://elsewhere:port/"), (302, "//")],
)
def test_a_redirect_is_not_followed_and_is_no_success(status: int, location: str) -> None:
    def answer(request: "Request") -> None:
        request.reply(status, b"", {"Location": location})

    with misbehaving(answer) as (client, asked):
        for work in (client.machines, lambda: create(client), lambda: client.delete_machine(NOBODY)):
            assert isinstance(refusal(work), CloudAPIError)
    assert len(asked) == 3
    assert all(request.path != "/elsewhere" for request in asked)


def test_a_netrc_has_no_say_and_loopback_no_proxy(demo: Client, sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert demo.machines() == []
    assert answers(sim, "ListMachines") == {"200": 1}


def test_many_threads_share_the_connections_of_a_process(demo: Client, sim: Simulator) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(create(demo).id)) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == len(sim.cloud.all_machines()) == 24


# A server that does what it is told


class Request(http.server.BaseHTTPRequestHandler):
    """One request; the test answers it."""

    server: "Misbehaving"

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self)
        self.server.answer(self)

    do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Asked(list[Request]):
    address = ""


class Misbehaving(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answer: Callable[[Request], None]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answer = answer
        self.asked = Asked()
        self.asked.address = f"127.0.0.1:{self.server_port}"


@contextmanager
def misbehaving(answer: Callable[[Request], None], account: str = "demo", *, read: float = 5) -> Iterator[tuple[Client, Asked]]:
    """A client of a server that answers as the test says, and what the server was asked."""
    server = Misbehaving(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    clouds = CloudAPI(f"http://{server.asked.address}", Timeouts(connect=5, read=read))
    try:
        yield clouds.as_account(account, Signer("demo", "00", PAIR.private_pem)), server.asked
    finally:
        clouds.close()
        server.shutdown()
        server.server_close()
        thread.join()


PAIR = new_pair()
