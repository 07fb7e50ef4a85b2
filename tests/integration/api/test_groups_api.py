"""Groups, as the contract has them."""

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.api.service import JSON, NOBODY, TIMESTAMP, Api, Caller, error, field_errors, together
from tsg_api.resources.groups import NO_CAPACITY

NEGATIVE = "group capacity cannot be a negative number"
#: What clients of 2018 do not know of.
AS_IN_2018 = {
    "health_check_interval": 300,
    "min_capacity": 0,
    "max_capacity": 100,
    "ready_seconds": 0,
    "health_check": None,
    "drain": None,
    "termination_policy": ["outdated", "oldest"],
    "update": {"strategy": "manual"},
    "suspended": [],
    "suspend_reason": None,
    "suspended_until": None,
}
OVER_100 = "group capacity cannot be more than 100 compute instances"


def test_a_group_is_given_back_as_it_was_sent(tsg: Caller) -> None:
    template_id = tsg.make_template()
    answer = tsg("POST", "/groups", {"group_name": "web.front-1_a", "template_id": template_id, "capacity": 3})
    assert answer.status_code == 201
    assert answer.headers["Content-Type"] == JSON
    made = answer.json()
    assert answer.headers["Location"] == f"/v1/tsg/groups/{made['id']}"
    assert str(uuid.UUID(made["id"])) == made["id"]
    assert re.fullmatch(TIMESTAMP, made["created_at"])
    assert made == {
        "id": made["id"],
        "group_name": "web.front-1_a",
        "template_id": template_id,
        "capacity": 3,
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
        **AS_IN_2018,
    }


def test_a_group_is_read_as_it_was_made(tsg: Caller) -> None:
    made = tsg.make_group(3)
    answer = tsg("GET", f"/groups/{made['id']}")
    assert (answer.status_code, answer.headers["Content-Type"], answer.json()) == (200, JSON, made)
    assert tsg.ok("GET", "/groups") == [made]
    assert tsg.ok("GET", f"/groups/{made['id'].upper()}") == made


@pytest.mark.parametrize("fields", [{}, {"capacity": None}, {"capacity": 0}])
def test_a_capacity_left_out_is_0(tsg: Caller, fields: dict[str, Any]) -> None:
    template_id = tsg.make_template()
    made = tsg.ok("POST", "/groups", {"group_name": "g", "template_id": template_id, **fields})
    assert made["capacity"] == 0


@pytest.mark.parametrize("fields", [{}, {"capacity": None}, {"capacity": 0}])
def test_a_capacity_left_out_of_a_change_is_0_too(tsg: Caller, fields: dict[str, Any]) -> None:
    group = tsg.make_group(7)
    changed = tsg.ok("PUT", f"/groups/{group['id']}", {"group_name": group["group_name"], "template_id": group["template_id"], **fields})
    assert changed["capacity"] == tsg.capacity(group) == 0


@pytest.mark.parametrize("by_id", [True, False])
@pytest.mark.parametrize("fields", [{}, {"capacity": None}, {"Capacity": None}, {"capacty": 4}])
def test_a_change_without_a_capacity_is_loud(tsg: Caller, fields: dict[str, Any], by_id: bool) -> None:
    group = tsg.make_group(7)
    body = {"group_name": group["group_name"], "template_id": group["template_id"], **fields}
    path, key = f"/groups/{group['id']}" if by_id else "/groups", {"Idempotency-Key": f"loud {group['id']}"}
    first = tsg("PUT", path, body, headers=key)
    again = tsg("PUT", path, body, headers=key)
    assert (first.status_code, first.json()["capacity"], again.content) == (200, 0, first.content)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert first.headers["Warning"] == again.headers["Warning"] == NO_CAPACITY
    told = tsg.ok("GET", f"/groups/{group['id']}/activities?kind=TSG_CAPACITY_CHANGE")
    assert [one["description"].partition(" by ")[0] for one in told] == ["capacity 7 -> 0 (the request had no capacity, which means 0)"]


def test_a_change_with_a_capacity_is_not(tsg: Caller) -> None:
    group = tsg.make_group(7)
    body = {"group_name": group["group_name"], "template_id": group["template_id"], "capacity": 0}
    answer = tsg("PUT", f"/groups/{group['id']}", body)
    assert (answer.status_code, "Warning" in answer.headers) == (200, False)
    told = tsg.ok("GET", f"/groups/{group['id']}/activities?kind=TSG_CAPACITY_CHANGE")
    assert [one["description"].partition(" by ")[0] for one in told] == ["capacity 7 -> 0"]


@pytest.mark.parametrize("path", ["/groups", "/groups/ID"])
@pytest.mark.parametrize("spell", [str.upper, str.title, str.swapcase, lambda name: name.replace("s", "\u017f").replace("k", "\u212a")])
def test_names_of_fields_are_taken_in_any_case_as_in_2018(tsg: Caller, spell: Callable[[str], str], path: str) -> None:
    group, template_id = tsg.make_group(7), tsg.make_template()
    body = {"group_name": group["group_name"], "template_id": template_id, "capacity": 4}
    changed = tsg.ok("PUT", path.replace("ID", group["id"]), {spell(name): value for name, value in body.items()})
    assert {name: changed[name] for name in body} == body
    for step, bound in (("increment", "max_instance"), ("decrement", "min_instance")):
        assert tsg("PUT", f"/groups/{group['id']}/{step}", {spell("instance_count"): 1, spell(bound): 4}).status_code in {202, 400}
    body = {"group_name": "other", "template_id": template_id, "capacity": 3, "health_check_interval": 60}
    made = tsg.ok("POST", "/groups", {spell(name): value for name, value in body.items()})
    assert (made["group_name"], made["capacity"]) == ("other", 3)
    assert tsg.api.sql("SELECT health_check_interval FROM tsg_groups WHERE id = :id", id=made["id"]) == [(60,)]


@pytest.mark.parametrize("values", [(4, 4), (4, 5), (None, 4), (4, None), ("x", 4)])
@pytest.mark.parametrize("names", [("capacity", "Capacity"), ("CAPACITY", "Capacity")])
def test_two_spellings_of_one_field_are_refused(tsg: Caller, names: tuple[str, str], values: tuple[Any, Any]) -> None:
    group = tsg.make_group(7)
    body = {"template_id": group["template_id"], "GROUP_NAME": 5, **dict(zip(names, values, strict=True))}
    told = field_errors(tsg("PUT", f"/groups/{group['id']}", body))
    assert set(told) == {"capacity", "group_name"}
    assert tsg.ok("GET", "/groups") == [group]
    for step in ("increment", "decrement"):
        told = field_errors(tsg("PUT", f"/groups/{group['id']}/{step}", {"instance_count": 1, "Instance_Count": 1}))
        assert told["instance_count"] == "instance_count is given 2 times, as instance_count, Instance_Count: give it once"


def test_unknown_fields_are_ignored(tsg: Caller) -> None:
    made = tsg.make_group(2, id=NOBODY, check_at="x", archived=True)
    assert made["id"] != NOBODY
    assert set(made) == {"id", "group_name", "template_id", "capacity", "created_at", "updated_at", *AS_IN_2018}
    assert tsg.ok("GET", "/groups") == [made]


# Names


@pytest.mark.parametrize("name", ["a", "0", "x" * 182, "A.b_c-d", "9..--__"])
def test_a_name_that_will_do(tsg: Caller, name: str) -> None:
    assert tsg.make_group(group_name=name)["group_name"] == name


@pytest.mark.parametrize("name", ["-a", ".a", "_a", "a b", 'a"b', "a'b", "ä", "a/b", "a\n", "\n", "a\0", "x" * 181 + "😀", "{a}", "a%"])
def test_a_name_that_will_not_do_in_nomad_or_cloudapi_is_refused(tsg: Caller, name: str) -> None:
    told = field_errors(tsg("POST", "/groups", {"group_name": name, "template_id": tsg.make_template()}))
    assert set(told) == {"group_name"}
    assert tsg.ok("GET", "/groups") == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "group name cannot be empty"),
        (None, "group name cannot be empty"),
        ("x" * 183, "group name cannot be more than 182 characters"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_the_messages_of_2018_about_names(tsg: Caller, method: str, name: str | None, message: str) -> None:
    assert field_errors(tsg(method, "/groups", {"group_name": name, "template_id": tsg.make_template()})) == {"group_name": message}


def test_a_name_is_taken_once(tsg: Caller) -> None:
    first = tsg.make_group(3, group_name="web")
    told = error(tsg("POST", "/groups", {"group_name": "web", "template_id": first["template_id"], "capacity": 9}), 409, "Conflict")
    assert told["message"] == 'Cannot create group "web", group name conflicts with existing group.'
    assert tsg.ok("GET", "/groups") == [first]


def test_names_differ_by_case(tsg: Caller) -> None:
    tsg.make_group(group_name="web")
    tsg.make_group(group_name="Web")
    assert len(tsg.ok("GET", "/groups")) == 2


def test_another_account_may_have_the_same_name(tsg: Caller, stranger: Caller) -> None:
    assert tsg.make_group(group_name="web")["id"] != stranger.make_group(group_name="web")["id"]


def test_of_twenty_creates_of_one_name_at_once_one_succeeds(tsg: Caller) -> None:
    body = {"group_name": "web", "template_id": tsg.make_template(), "capacity": 1}
    statuses = together(20, lambda _number: tsg("POST", "/groups", body).status_code)
    assert sorted(statuses) == [201] + [409] * 19
    assert len(tsg.ok("GET", "/groups")) == 1


# Templates of groups


@pytest.mark.parametrize("value", ["", None, "x", f"{{{NOBODY}}}", f"urn:uuid:{NOBODY}", NOBODY.replace("-", ""), f"{NOBODY}\n"])
def test_a_template_id_is_a_uuid_in_its_plain_form(tsg: Caller, value: str | None) -> None:
    told = field_errors(tsg("POST", "/groups", {"group_name": "web", "template_id": value}))
    assert told == {"template_id": "template ID must be a valid UUID"}


def test_a_template_that_is_not_there_is_422(tsg: Caller, stranger: Caller) -> None:
    gone = tsg.make_template()
    tsg.ok("DELETE", f"/templates/{gone}")
    for template_id in (NOBODY, gone, stranger.make_template()):
        told = field_errors(tsg("POST", "/groups", {"group_name": "web", "template_id": template_id}))
        assert told == {"template_id": f"there is no template {template_id}"}
    assert tsg.ok("GET", "/groups") == []


def test_a_template_id_in_upper_case_is_the_same_template(tsg: Caller) -> None:
    template_id = tsg.make_template()
    group = tsg.make_group(template_id=template_id.upper())
    assert group["template_id"] == template_id
    changed = tsg.ok("PUT", f"/groups/{group['id']}", {"group_name": group["group_name"], "template_id": template_id.upper()})
    assert changed["template_id"] == template_id


# Capacities

BAD_CAPACITIES = [
    (-1, NEGATIVE),
    (-(10**30), None),
    (101, OVER_100),
    (2**31, OVER_100),
    (2**63, OVER_100),
    (10**30, None),
    ("5", "capacity must be an integer"),
    (1.5, "capacity must be an integer"),
    (True, "capacity must be an integer"),
    ([], "capacity must be an integer"),
    ({}, "capacity must be an integer"),
]


@pytest.mark.parametrize(("capacity", "message"), BAD_CAPACITIES)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_capacity_out_of_bounds_or_of_another_type_is_refused(tsg: Caller, method: str, capacity: object, message: str | None) -> None:
    group = tsg.make_group(5)
    path = "/groups" if method == "POST" else f"/groups/{group['id']}"
    name = group["group_name"] if method == "PUT" else "other"
    told = field_errors(tsg(method, path, {"group_name": name, "template_id": group["template_id"], "capacity": capacity}))
    assert told == {"capacity": message} if message else set(told) == {"capacity"}
    assert tsg.ok("GET", "/groups") == [group]


@pytest.mark.parametrize("literal", ["10.0", "1e1", "1E+1", "1e400", "-0.0", "1" * 5000])
def test_a_number_that_is_no_integer_in_json_is_refused(tsg: Caller, literal: str) -> None:
    data = f'{{"group_name": "web", "template_id": "{tsg.make_template()}", "capacity": {literal}}}'
    assert tsg("POST", "/groups", data=data).status_code == 422


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "010", "+1", "0x5"])
def test_a_number_that_json_does_not_have_is_malformed(tsg: Caller, literal: str) -> None:
    data = f'{{"group_name": "web", "template_id": "{tsg.make_template()}", "capacity": {literal}}}'
    answer = tsg("POST", "/groups", data=data)
    assert answer.status_code == 422
    assert tsg.ok("GET", "/groups") == []


def test_the_bounds_themselves_will_do(tsg: Caller) -> None:
    assert tsg.make_group(0)["capacity"] == 0
    assert tsg.make_group(100)["capacity"] == 100


def test_the_upper_bound_is_a_setting(make_api: Callable[..., Api]) -> None:
    tsg = make_api(max_capacity=5).new_account()
    group = tsg.make_group(5)
    told = field_errors(tsg("POST", "/groups", {"group_name": "web", "template_id": group["template_id"], "capacity": 6}))
    assert told == {"capacity": "group capacity cannot be more than 5 compute instances"}
    told = field_errors(tsg("PUT", f"/groups/{group['id']}/increment", {"instance_count": 1, "max_instance": 6}))
    assert set(told) == {"max_instance"}


# The interval between checks


def interval(tsg: Caller, group: dict[str, Any]) -> int:
    return int(tsg.api.sql("SELECT health_check_interval FROM tsg_groups WHERE id = :id", id=group["id"])[0][0])


@pytest.mark.parametrize(("given", "stored"), [({}, 300), ({"health_check_interval": None}, 300), ({"health_check_interval": 10}, 10)])
def test_the_interval_between_checks_may_be_given_and_has_a_default(tsg: Caller, given: dict[str, Any], stored: int) -> None:
    made = tsg.make_group(1, **given)
    assert interval(tsg, made) == stored
    assert made["health_check_interval"] == stored


def test_a_change_without_an_interval_keeps_it(tsg: Caller) -> None:
    made = tsg.make_group(1, health_check_interval=60)
    body = {"group_name": made["group_name"], "template_id": made["template_id"], "capacity": 2}
    tsg.ok("PUT", f"/groups/{made['id']}", body)
    assert interval(tsg, made) == 60
    tsg.ok("PUT", "/groups", {**body, "health_check_interval": 86_400})
    assert interval(tsg, made) == 86_400


BAD_INTERVALS = [
    *((number, "must be 10 to 86400 seconds") for number in (-1, 0, 9, 86_401)),
    *((other, "must be an integer") for other in ("60", 60.0, True, [])),
]


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(("value", "message"), BAD_INTERVALS)
def test_an_interval_out_of_bounds_or_of_another_type_is_refused(tsg: Caller, method: str, value: object, message: str) -> None:
    made = tsg.make_group(1, health_check_interval=60)
    path = "/groups" if method == "POST" else f"/groups/{made['id']}"
    body = {"group_name": made["group_name"], "template_id": made["template_id"], "capacity": 2, "health_check_interval": value}
    assert field_errors(tsg(method, path, body)) == {"health_check_interval": f"health_check_interval {message}"}
    assert (interval(tsg, made), tsg.capacity(made)) == (60, 1)


def test_all_that_is_wrong_is_told_at_once(tsg: Caller) -> None:
    assert field_errors(tsg("POST", "/groups", {"capacity": -1})) == {
        "group_name": "group name cannot be empty",
        "template_id": "template ID must be a valid UUID",
        "capacity": NEGATIVE,
    }


@pytest.mark.parametrize(("field", "value"), [("group_name", 5), ("group_name", ["web"]), ("template_id", 5), ("template_id", {})])
def test_a_wrong_json_type_is_refused(tsg: Caller, field: str, value: object) -> None:
    body = {"group_name": "web", "template_id": tsg.make_template(), field: value}
    assert field_errors(tsg("POST", "/groups", body)) == {field: f"{field} must be a string"}


# Lists


def test_the_list_is_empty_at_first(tsg: Caller) -> None:
    answer = tsg("GET", "/groups")
    assert (answer.status_code, answer.headers["Content-Type"], answer.json()) == (200, JSON, [])


def test_the_list_is_the_accounts_own_the_oldest_first(tsg: Caller, stranger: Caller) -> None:
    stranger.make_group()
    made = [tsg.make_group(group_name=name) for name in ("zebra", "ant", "Mouse", "0")]
    assert tsg.ok("GET", "/groups") == made
    tsg.ok("PUT", f"/groups/{made[0]['id']}", {"group_name": "zebra", "template_id": made[0]["template_id"], "capacity": 2})
    tsg.ok("DELETE", f"/groups/{made[2]['id']}")
    assert [group["group_name"] for group in tsg.ok("GET", "/groups")] == ["zebra", "ant", "0"]


# Changes


@pytest.mark.parametrize("by_name", [False, True])
def test_template_and_capacity_may_change(tsg: Caller, *, by_name: bool) -> None:
    group, other = tsg.make_group(3), tsg.make_template()
    path = "/groups" if by_name else f"/groups/{group['id']}"
    answer = tsg("PUT", path, {"group_name": group["group_name"], "template_id": other, "capacity": 8})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, JSON)
    changed = answer.json()
    assert re.fullmatch(TIMESTAMP, changed["updated_at"])
    assert changed["updated_at"] > group["updated_at"]
    assert changed == {**group, "template_id": other, "capacity": 8, "updated_at": changed["updated_at"]}
    assert tsg.ok("GET", f"/groups/{group['id']}") == changed


def test_the_name_may_not_change(tsg: Caller) -> None:
    group = tsg.make_group(3)
    answer = tsg("PUT", f"/groups/{group['id']}", {"group_name": "other", "template_id": group["template_id"], "capacity": 8})
    assert error(answer, 400, "BadRequest")["message"] == 'The group name "other" does not match the name on the record.'
    assert tsg.ok("GET", "/groups") == [group]


def test_a_change_to_a_template_that_is_not_there_is_422(tsg: Caller, stranger: Caller) -> None:
    group = tsg.make_group(3)
    for template_id in (NOBODY, stranger.make_template()):
        answer = tsg("PUT", f"/groups/{group['id']}", {"group_name": group["group_name"], "template_id": template_id, "capacity": 8})
        assert set(field_errors(answer)) == {"template_id"}
    assert tsg.ok("GET", "/groups") == [group]


def test_no_group_changes_to_a_template_that_goes_at_the_same_time(tsg: Caller) -> None:
    group = tsg.make_group(3)
    outcomes = []
    for _ in range(15):
        template_id = tsg.make_template()
        body = {"group_name": group["group_name"], "template_id": template_id}
        requests = [("DELETE", f"/templates/{template_id}", None), ("PUT", f"/groups/{group['id']}", body)]
        outcomes.append(tuple(together(2, lambda which, requests=requests: tsg(*requests[which]).status_code)))
    assert set(outcomes) <= {(204, 422), (409, 200)}


def test_a_change_by_a_name_that_is_not_there_is_404(tsg: Caller, stranger: Caller) -> None:
    theirs = stranger.make_group(3)
    body = {"group_name": theirs["group_name"], "template_id": tsg.make_template(), "capacity": 8}
    error(tsg("PUT", "/groups", body), 404, "ResourceNotFound")
    assert stranger.ok("GET", "/groups") == [theirs]


def test_a_change_by_name_finds_the_living_group(tsg: Caller) -> None:
    old = tsg.make_group(3, group_name="web")
    body = {"group_name": "web", "template_id": old["template_id"], "capacity": 8}
    tsg.ok("DELETE", f"/groups/{old['id']}")
    error(tsg("PUT", "/groups", body), 404, "ResourceNotFound")
    new = tsg.ok("POST", "/groups", {**body, "capacity": 1})
    assert tsg.ok("PUT", "/groups", body)["id"] == new["id"]


def test_a_request_id_goes_with_the_change_to_the_worker(tsg: Caller) -> None:
    def noted(group: dict[str, Any]) -> str:
        ((found,),) = tsg.api.sql("SELECT request_id FROM tsg_groups WHERE id = :id", id=group["id"])
        return str(found)

    group = tsg.make_group(3)
    body = {"group_name": group["group_name"], "template_id": group["template_id"], "capacity": 5}
    for number, (method, path, sent) in enumerate(
        [
            ("PUT", f"/groups/{group['id']}", body),
            ("PUT", "/groups", body),
            ("PUT", f"/groups/{group['id']}/increment", {"instance_count": 1, "max_instance": 9}),
            ("PUT", f"/groups/{group['id']}/decrement", {"instance_count": 1, "min_instance": 0}),
            ("DELETE", f"/groups/{group['id']}", None),
        ]
    ):
        tsg(method, path, sent, headers={"X-Request-Id": f"request-{number}"})
        assert noted(group) == f"request-{number}"
    posted = tsg("POST", "/groups", {**body, "group_name": "new"}, headers={"X-Request-Id": "posted"}).json()
    assert noted(posted) == "posted"


# Increment and decrement


def step(tsg: Caller, group: dict[str, Any], verb: str, by: object, bound: object) -> int:
    name = "max_instance" if verb == "increment" else "min_instance"
    return tsg("PUT", f"/groups/{group['id']}/{verb}", {"instance_count": by, name: bound}).status_code


@pytest.mark.parametrize(
    ("verb", "capacity", "by", "bound", "then"),
    [
        ("increment", 3, 2, 10, 5),
        ("increment", 3, 9, 10, 10),
        ("increment", 3, 7, 10, 10),
        ("increment", 3, 0, 10, 3),
        ("increment", 0, 100, 100, 100),
        ("increment", 3, 2**63, 10, 10),
        ("increment", 3, 10**40, 100, 100),
        ("decrement", 5, 2, 1, 3),
        ("decrement", 5, 9, 1, 1),
        ("decrement", 5, 5, 0, 0),
        ("decrement", 5, 0, 0, 5),
        ("decrement", 5, 2**63, 2, 2),
        ("decrement", 5, 10**40, 0, 0),
    ],
)
def test_a_step_goes_as_far_as_its_bound(tsg: Caller, verb: str, capacity: int, by: int, bound: int, then: int) -> None:
    group = tsg.make_group(capacity)
    assert step(tsg, group, verb, by, bound) == 202
    assert tsg.capacity(group) == then


@pytest.mark.parametrize("verb", ["increment", "decrement"])
def test_a_step_is_answered_without_a_body(tsg: Caller, verb: str) -> None:
    group = tsg.make_group(5)
    body = {"instance_count": 1, "max_instance": 9, "min_instance": 0, "unknown": "ignored"}
    answer = tsg("PUT", f"/groups/{group['id']}/{verb}", body)
    assert (answer.status_code, answer.content) == (202, b"")
    assert "Content-Type" not in answer.headers
    assert answer.headers["Content-Length"] == "0"
    assert tsg.ok("GET", f"/groups/{group['id']}")["updated_at"] > group["updated_at"]


@pytest.mark.parametrize(
    ("verb", "capacity", "bound"),
    [("increment", 5, 5), ("increment", 5, 4), ("increment", 0, 0), ("decrement", 5, 5), ("decrement", 5, 6), ("decrement", 0, 0),
     ("decrement", 5, 10**40)],
)  # fmt: skip
def test_a_group_at_or_beyond_its_bound_takes_no_step(tsg: Caller, verb: str, capacity: int, bound: int) -> None:
    group = tsg.make_group(capacity)
    name = "max_instance" if verb == "increment" else "min_instance"
    error(tsg("PUT", f"/groups/{group['id']}/{verb}", {"instance_count": 1, name: bound}), 400, "BadRequest")
    assert tsg.ok("GET", "/groups") == [group]


COUNTS = "only positive integers are allowed for instance count & max and min range"


@pytest.mark.parametrize(("verb", "bound"), [("increment", "max_instance"), ("decrement", "min_instance")])
@pytest.mark.parametrize("value", [None, -1, -(10**40)])
def test_both_numbers_of_a_step_are_required_and_not_negative(tsg: Caller, verb: str, bound: str, value: int | None) -> None:
    group = tsg.make_group(5)
    path = f"/groups/{group['id']}/{verb}"
    for field in ("instance_count", bound):
        assert field_errors(tsg("PUT", path, {"instance_count": 1, bound: 7, field: value})) == {field: COUNTS}
    assert field_errors(tsg("PUT", path, {})) == {"instance_count": COUNTS, bound: COUNTS}
    assert tsg.ok("GET", "/groups") == [group]


@pytest.mark.parametrize("value", ["1", 1.5, 1.0, True, [], {}])
@pytest.mark.parametrize(("verb", "bound"), [("increment", "max_instance"), ("decrement", "min_instance")])
def test_a_wrong_json_type_in_a_step_is_refused(tsg: Caller, verb: str, bound: str, value: object) -> None:
    group = tsg.make_group(5)
    for field in ("instance_count", bound):
        told = field_errors(tsg("PUT", f"/groups/{group['id']}/{verb}", {"instance_count": 1, bound: 7, field: value}))
        assert set(told) == {field}
    assert tsg.ok("GET", "/groups") == [group]


@pytest.mark.parametrize("maximum", [101, 2**31, 10**40])
def test_no_increment_goes_over_the_bound_of_all_groups(tsg: Caller, maximum: int) -> None:
    group = tsg.make_group(5)
    told = field_errors(tsg("PUT", f"/groups/{group['id']}/increment", {"instance_count": 1, "max_instance": maximum}))
    assert set(told) == {"max_instance"}
    assert tsg.ok("GET", "/groups") == [group]


@pytest.mark.parametrize("verb", ["increment", "decrement"])
@pytest.mark.parametrize("data", ["", "nonsense", "null", "{}", '{"instance_count": -1}', '{"instance_count": 1, "max_instance": 500}'])
def test_a_step_of_an_unknown_group_is_404_whatever_the_body(tsg: Caller, verb: str, data: str) -> None:
    error(tsg("PUT", f"/groups/{NOBODY}/{verb}", data=data), 404, "ResourceNotFound")


def test_fifty_increments_at_once_all_count(tsg: Caller) -> None:
    group = tsg.make_group(0)
    statuses = together(50, lambda _number: step(tsg, group, "increment", 1, 100))
    assert statuses == [202] * 50
    assert tsg.capacity(group) == 50


def test_increments_and_decrements_at_once_all_count(tsg: Caller) -> None:
    group = tsg.make_group(50)
    verbs = [("increment", 3, 100), ("decrement", 2, 0)]
    statuses = together(20, lambda number: step(tsg, group, *verbs[number % 2]))
    assert statuses == [202] * 20
    assert tsg.capacity(group) == 50 + 10 * 3 - 10 * 2


def test_of_increments_at_once_no_more_are_taken_than_there_is_room(tsg: Caller) -> None:
    group = tsg.make_group(0)
    statuses = together(20, lambda _number: step(tsg, group, "increment", 1, 12))
    assert sorted(statuses) == [202] * 12 + [400] * 8
    assert tsg.capacity(group) == 12


# Deleting


def test_a_deleted_group_is_gone(tsg: Caller) -> None:
    group = tsg.make_group(3)
    answer = tsg("DELETE", f"/groups/{group['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert not {"Content-Type", "Content-Length", "Transfer-Encoding"} & set(answer.headers)
    assert tsg.ok("GET", "/groups") == []
    for method, path, body in every_route(group):
        error(tsg(method, path, body), 404, "ResourceNotFound")
    assert tsg.api.sql("SELECT archived FROM tsg_groups WHERE id = :id", id=group["id"]) == [(True,)]


def test_its_name_is_free_at_once(tsg: Caller) -> None:
    first = tsg.make_group(3, group_name="web")
    tsg.ok("DELETE", f"/groups/{first['id']}")
    second = tsg.make_group(1, group_name="web")
    assert second["id"] != first["id"]
    assert tsg.ok("GET", "/groups") == [second]


def test_of_ten_deletes_at_once_one_succeeds(tsg: Caller) -> None:
    group = tsg.make_group(3)
    statuses = together(10, lambda _number: tsg("DELETE", f"/groups/{group['id']}").status_code)
    assert sorted(statuses) == [204] + [404] * 9


# Whose


def every_route(group: dict[str, Any]) -> list[tuple[str, str, object]]:
    """Every route with a group's id in it, with a body that would do."""
    path = f"/groups/{group['id']}"
    return [
        ("GET", path, None),
        ("PUT", path, {"group_name": group["group_name"], "template_id": group["template_id"], "capacity": 1}),
        ("PUT", f"{path}/increment", {"instance_count": 1, "max_instance": 10}),
        ("PUT", f"{path}/decrement", {"instance_count": 1, "min_instance": 0}),
        ("GET", f"{path}/instances", None),
        ("DELETE", path, None),
    ]


@pytest.mark.parametrize("group_id", [NOBODY, "x", "5", "%00", f"{{{NOBODY}}}", NOBODY[:-1], "%F0%28", "a%0Ab", "increment"])
def test_an_id_that_is_nobodys_or_none_at_all_is_not_found(tsg: Caller, group_id: str) -> None:
    template_id = tsg.make_template()
    for method, path, body in every_route({"id": group_id, "group_name": "web", "template_id": template_id}):
        error(tsg(method, path, body), 404, "ResourceNotFound")
