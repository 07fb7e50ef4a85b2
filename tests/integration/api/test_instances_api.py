"""The machines of a group, as CloudAPI tells them."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE
from shared.clients import keys
from shared.spec.machines import TAG_GROUP, TAG_NAME
from tests.integration.api.service import JSON, KEY_NAME, PAIR, Api, Caller, error, legacy, now


def launch(caller: Caller, **tags: str) -> str:
    """A machine of the account, made as the workers make theirs; its id."""
    sent = {"package": DEFAULT_PACKAGE, "image": DEFAULT_IMAGE, **{f"tag.{name}": value for name, value in tags.items()}}
    # Signed by the account itself, to CloudAPI itself.
    headers = legacy(caller.key_id, now())
    answer = caller.api.session.post(f"{caller.api.sim.url}/{caller.login}/machines", json=sent, headers=headers, timeout=30)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def launch_for(caller: Caller, group: dict[str, Any]) -> str:
    return launch(caller, **{TAG_NAME: group["group_name"], TAG_GROUP: group["id"]})


def listed(caller: Caller, group: dict[str, Any]) -> set[str]:
    return {machine["id"] for machine in caller.ok("GET", f"/groups/{group['id']}/instances")}


def test_a_group_without_machines_has_an_empty_list(tsg: Caller) -> None:
    answer = tsg("GET", f"/groups/{tsg.make_group(3)['id']}/instances")
    assert (answer.status_code, answer.headers["Content-Type"], answer.json()) == (200, JSON, [])


def test_the_machines_of_a_group_are_told_as_cloudapi_tells_them(tsg: Caller) -> None:
    group = tsg.make_group(3)
    machine_id = launch_for(tsg, group)
    path = f"{tsg.api.sim.url}/{tsg.login}/machines/{machine_id}"
    told = tsg.api.session.get(path, headers=legacy(tsg.key_id, now()), timeout=30).json()
    assert tsg.ok("GET", f"/groups/{group['id']}/instances") == [told]


def test_only_the_groups_own_machines_are_listed(tsg: Caller, stranger: Caller) -> None:
    group, other = tsg.make_group(3), tsg.make_group(3)
    theirs = stranger.make_group(3, group_name=group["group_name"])
    own = {launch_for(tsg, group) for _ in range(2)}
    others = {launch_for(tsg, other)}
    strangers = {launch_for(stranger, theirs)}
    launch(tsg)
    launch(tsg, **{TAG_NAME: group["group_name"], TAG_GROUP: str(uuid.uuid4())})
    launch(tsg, **{TAG_NAME: "another"})
    assert listed(tsg, group) == own
    assert listed(tsg, other) == others
    assert listed(stranger, theirs) == strangers


def test_a_new_group_does_not_list_the_machines_of_the_old_one_of_its_name(tsg: Caller) -> None:
    old = tsg.make_group(3, group_name="web")
    launch_for(tsg, old)
    tsg.ok("DELETE", f"/groups/{old['id']}")
    new = tsg.make_group(3, group_name="web")
    assert listed(tsg, new) == set()
    assert listed(tsg, new) | {launch_for(tsg, new)} == listed(tsg, new)


def test_a_group_of_2018_lists_the_machines_of_its_name(tsg: Caller) -> None:
    group = tsg.make_group(3, group_name="web")
    old = launch(tsg, **{TAG_NAME: "web"})
    assert listed(tsg, group) == set()
    tsg.api.sql("UPDATE tsg_groups SET by_name = true WHERE id = :id", id=group["id"])
    assert listed(tsg, group) == {old}


def test_a_group_has_more_machines_than_one_page(make_api: Callable[..., Api]) -> None:
    api = make_api()
    tsg = api.new_account()
    group = tsg.make_group(100)
    launch_for(tsg, group)
    (machine,) = api.sim.cloud.all_machines()
    for number in range(1_004):
        tsg.triton.add(replace(machine, id=str(uuid.uuid4()), name=f"web-{number}", _rendered=None))
    assert len(listed(tsg, group)) == 1_005


@pytest.mark.parametrize(
    "knobs",
    [
        {"down": True},
        {"bad_json": True},
        {"error_share": 1.0, "error_endpoints": ["ListMachines"]},
        {"error_share": 1.0, "error_endpoints": ["ListMachines"], "error_status": 429},
        {"lost_answer_share": 1.0, "lost_answer_endpoints": ["ListMachines"]},
    ],
)
def test_instances_are_503_when_cloudapi_can_not_be_asked(make_api: Callable[..., Api], knobs: dict[str, Any]) -> None:
    api = make_api()
    tsg = api.new_account()
    group = tsg.make_group(3)
    machine_id = launch_for(tsg, group)
    api.sim.knobs.turn(knobs)
    answer = tsg("GET", f"/groups/{group['id']}/instances")
    error(answer, 503, "ServiceUnavailable")
    assert int(answer.headers["Retry-After"]) > 0
    api.sim.knobs.turn({"down": False, "bad_json": False, "error_share": 0.0, "lost_answer_share": 0.0})
    assert listed(tsg, group) == {machine_id}


def test_an_unknown_group_is_404_even_while_cloudapi_is_away(make_api: Callable[..., Api]) -> None:
    api = make_api()
    tsg = api.new_account()
    tsg.ok("GET", "/groups")
    api.sim.knobs.turn({"down": True})
    error(tsg("GET", f"/groups/{uuid.uuid4()}/instances"), 404, "ResourceNotFound")


def test_a_throttle_that_a_launch_has_used_up_delays_the_instances_and_no_more(make_api: Callable[..., Api]) -> None:
    api = make_api()
    tsg = api.new_account()
    group = tsg.make_group(3)
    assert listed(tsg, group) == set()
    api.sim.knobs.turn({"throttle": True, "throttle_burst": 1, "throttle_rate": 4})
    answers = [tsg("GET", f"/groups/{group['id']}/instances") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert api.sim.cloud.counters.to_json()["by_endpoint"]["ListMachines"]["429"] >= 1, "nothing was throttled"


def test_a_management_key_that_cloudapi_has_lost_is_503_and_not_401(api: Api) -> None:
    account = api.new_triton()
    api.enable(account)
    tsg = Caller(api, account)
    group = tsg.make_group(3)
    account.keys.remove(KEY_NAME)
    error(tsg("GET", f"/groups/{group['id']}/instances"), 503, "ServiceUnavailable")


def test_a_management_key_that_does_not_open_is_503(api: Api) -> None:
    tsg = api.new_account()
    group = tsg.make_group(3)
    other = keys.Sealer([b"x" * 32]).seal(PAIR.private_pem, row=str(uuid.uuid4()))
    api.sql("UPDATE tsg_keys SET material = :material WHERE account_id = :id", material=other, id=tsg.id)
    error(tsg("GET", f"/groups/{group['id']}/instances"), 503, "ServiceUnavailable")
