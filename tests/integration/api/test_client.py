"""The client against the service itself: it lacks no route, and its keys are let in."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from dev.sim.cloudapi import accounts as triton
from shared.reasons import Reason
from tests.integration.api.service import PAIR, Api, Caller, template_body
from tests.integration.api.test_explain import instances, looked_at
from tests.integration.api.test_signers import KINDS, Key, owner, ssh_keys  # noqa: F401 - fixtures
from tsg_api.schema.openapi import OPERATIONS
from tsg_client import errors
from tsg_client.client import Client
from tsg_client.keys.key import read
from tsg_client.models import Status
from tsg_client.signer import Signer

#: Routes (`operationId`) that the client has no method for yet. A new route needs one in tsg_client/client.py, and a command.
TO_COME: set[str] = set()


def client_of(caller: Caller, *, user: str | None = None) -> Client:
    return Client(caller.api.url, Signer(caller.login, read(PAIR.private_pem), user=user), patience=5)


@pytest.fixture
def client(tsg: Caller) -> Client:
    return client_of(tsg)


def test_the_client_lacks_no_route() -> None:
    snake = {re.sub("([A-Z])", r"_\1", one.name).lower(): one.name for one in OPERATIONS}
    lacking = {name for method, name in snake.items() if not hasattr(Client, method)}
    assert lacking == TO_COME


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_account_is_let_in_with_any_key(api: Api, owner: triton.Account, ssh_keys: dict[str, Key], kind: str) -> None:  # noqa: F811
    key = read(ssh_keys[kind].file.read_text())
    for user in (None, "ops.user"):
        with Client(api.url, Signer(owner.login, key, user=user), patience=5) as client:
            assert list(client.list_groups()) == []


def test_a_stranger_is_told_so(api: Api) -> None:
    account = api.new_triton()
    with (
        Client(api.url, Signer(account.login, read(PAIR.private_pem)), patience=0) as client,
        pytest.raises(errors.Forbidden, match="not enabled"),
    ):
        list(client.list_groups())
    with Client(api.url, Signer("nobody-of-triton", read(PAIR.private_pem)), patience=0) as client, pytest.raises(errors.Unauthenticated):
        list(client.list_groups())


def test_a_template_and_a_group_live(client: Client) -> None:
    template = client.create_template(template_body(tags={"a": True}, spread="prefer"))
    assert client.get_template(template.id) == template
    assert template.as_json()["spread"] == "prefer"
    assert client.verify_template(template.id).launchable
    group = client.create_group({"group_name": "web", "template_id": template.id, "capacity": 3})
    assert [one.id for one in client.list_groups()] == [group.id]
    client.increment_group(group.id, 2, 10)
    client.decrement_group(group.id, 1, 0)
    changed = client.get_group(group.id)
    assert changed.capacity == 4
    fields = {"group_name": "web", "template_id": template.id, "capacity": 1}
    with pytest.raises(errors.Changed):
        client.update_group(group.id, fields, if_match=group.etag)
    assert client.update_group(group.id, fields, if_match=changed.etag).capacity == 1
    assert client.update_group_by_name({**fields, "capacity": 2}).capacity == 2
    with pytest.raises(errors.Conflict, match="in use"):
        client.delete_template(template.id)
    assert [one.kind for one in client.list_activities(group.id, limit=2)][-1] == "TSG_GROUP_CREATE", "all pages of it"
    assert [one.group_id for one in client.list_statuses()] == [group.id]
    assert list(client.list_instances(group.id)) == []
    client.delete_group(group.id)
    client.delete_template(template.id)
    with pytest.raises(errors.NotFound):
        client.get_group(group.id)


def test_what_is_wrong_is_told_field_by_field(client: Client) -> None:
    with pytest.raises(errors.Invalid) as told:
        client.create_template({"package": "a b", "script": "x"})
    assert {one.field: one.code for one in told.value.fields} == {
        "template_name": "Missing",
        "package": "Invalid",
        "image_id": "Missing",
        "script": "Invalid",
    }


def test_a_list_of_many_pages_is_whole(client: Client, tsg: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsg_client.client.PAGE", 2)
    made = [tsg.make_group()["id"] for _ in range(5)]
    assert [one.id for one in client.list_groups()] == made
    assert [one.group_id for one in client.list_statuses()] == made


def test_the_service_describes_itself_to_who_does_not_sign(api: Api) -> None:
    with Client(api.url, None) as client:
        assert client.is_alive()["status"] == "alive"
        assert client.get_description()["openapi"] == "3.1.0"
        assert client.get_page().startswith("<!")
        assert client.ask("GET", "/v1/tsg/openapi.json").ok


def test_each_change_of_a_status_is_seen_until_it_is_settled(api: Api, tsg: Caller, client: Client) -> None:
    group = tsg.make_group(1)
    seen: list[Status] = []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: client.wait_settled(group["id"], timeout=60, on_progress=seen.append))
        looked_at(api, group, Reason.PROVISIONING)
        instances(api, group, "running")
        looked_at(api, group, Reason.SETTLED)
        assert waiting.result(timeout=30).settled
    assert [one.settled for one in seen][-1]
    assert len({one.etag for one in seen}) == len(seen)


def test_a_group_that_needs_a_change_is_not_waited_for(api: Api, tsg: Caller, client: Client) -> None:
    group = tsg.make_group(1)
    looked_at(api, group, Reason.QUOTA_EXCEEDED)
    with pytest.raises(errors.NotSettled, match="have its limits raised") as told:
        client.wait_settled(group["id"], timeout=600)
    assert told.value.code == "QuotaExceeded"


def test_a_wait_ends_with_its_time(tsg: Caller, client: Client) -> None:
    group = tsg.make_group(1)
    with pytest.raises(errors.NotSettled, match="not settled after 0 s: 0 of 1 instances run") as told:
        client.wait_settled(group["id"], timeout=0.01)
    assert told.value.code == "Timeout"
