"""Templates, as the contract has them."""

import json
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_NETWORK, DEFAULT_PACKAGE, PRIVATE_NETWORK
from tests.integration.api.service import JSON, NOBODY, TIMESTAMP, Caller, error, field_errors, template_body, together

FULL = template_body(
    firewall_enabled=True,
    networks=[DEFAULT_NETWORK, PRIVATE_NETWORK],
    userdata="#!/bin/sh\necho 'ü' \"§\"\n",
    metadata={"role": "web", "leer": ""},
    tags={"env": "prod", "größe": "{klein}"},
)


def test_a_template_is_given_back_as_it_was_sent(tsg: Caller) -> None:
    answer = tsg("POST", "/templates", FULL)
    assert answer.status_code == 201
    assert answer.headers["Content-Type"] == JSON
    made = answer.json()
    assert answer.headers["Location"] == f"/v1/tsg/templates/{made['id']}"
    assert str(uuid.UUID(made["id"])) == made["id"]
    assert re.fullmatch(TIMESTAMP, made["created_at"])
    assert made == {"id": made["id"], "created_at": made["created_at"], **FULL}


def test_a_template_is_read_as_it_was_made(tsg: Caller) -> None:
    made = tsg.ok("POST", "/templates", FULL)
    answer = tsg("GET", f"/templates/{made['id']}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, JSON)
    assert answer.json() == made
    assert tsg.ok("GET", "/templates") == [made]


def test_what_is_left_out_gets_its_default(tsg: Caller) -> None:
    made = tsg.ok("POST", "/templates", template_body())
    del made["id"], made["created_at"]
    assert made == {
        "template_name": "template",
        "package": DEFAULT_PACKAGE,
        "image_id": DEFAULT_IMAGE,
        "firewall_enabled": False,
        "networks": [],
        "userdata": "",
        "metadata": None,
        "tags": None,
    }
    assert tsg.ok("GET", "/templates")[0]["networks"] == []


def test_null_is_as_good_as_left_out(tsg: Caller) -> None:
    nulls: dict[str, Any] = dict.fromkeys(("firewall_enabled", "networks", "userdata", "metadata", "tags"))
    made = tsg.ok("POST", "/templates", template_body(**nulls))
    assert (made["firewall_enabled"], made["networks"], made["userdata"]) == (False, [], "")
    assert (made["metadata"], made["tags"]) == (None, None)


def test_empty_metadata_and_tags_stay_empty(tsg: Caller) -> None:
    made = tsg.ok("POST", "/templates", template_body(metadata={}, tags={}))
    assert (made["metadata"], made["tags"]) == ({}, {})
    assert tsg.ok("GET", f"/templates/{made['id']}") == made


def test_unknown_fields_are_ignored(tsg: Caller) -> None:
    made = tsg.ok("POST", "/templates", template_body(id=NOBODY, account_id="x", created_at=5, zone={"a": [1]}))
    assert made["id"] != NOBODY
    assert "zone" not in made


@pytest.mark.parametrize("spell", [str.upper, str.title, str.swapcase])
def test_names_of_fields_are_taken_in_any_case_as_in_2018(tsg: Caller, spell: Callable[[str], str]) -> None:
    made = tsg.ok("POST", "/templates", {spell(name): value for name, value in FULL.items()})
    assert {name: made[name] for name in FULL} == FULL
    assert made["tags"] == {"env": "prod", "größe": "{klein}"}, "names inside it are the user's own"


def test_two_spellings_of_one_field_are_refused(tsg: Caller) -> None:
    told = field_errors(tsg("POST", "/templates", {**FULL, "UserData": "x", "userData": "y", "Tags": FULL["tags"]}))
    assert told == {
        "userdata": "userdata is given 3 times, as userdata, UserData, userData: give it once",
        "tags": "tags is given 2 times, as tags, Tags: give it once",
    }
    assert tsg.ok("GET", "/templates") == []


def test_tags_that_differ_by_case_are_two(tsg: Caller) -> None:
    assert tsg.ok("POST", "/templates", template_body(tags={"a": "1", "A": "2"}))["tags"] == {"a": "1", "A": "2"}


@pytest.mark.parametrize("name", ["x", "ü" * 255, 'quotes "and" spaces', "😀", "50%", "{0}", "a/b"])
def test_a_name_may_be_anything_of_1_to_255_characters(tsg: Caller, name: str) -> None:
    assert tsg.ok("POST", "/templates", template_body(template_name=name))["template_name"] == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "template name cannot be empty"),
        (None, "template name cannot be empty"),
        ("x" * 256, "template name cannot be more than 255 characters"),
        ("a\nb", "template name cannot contain control characters"),
        ("a\0b", "template name cannot contain control characters"),
        ("a\x7fb", "template name cannot contain control characters"),
        ("a\x85b", "template name cannot contain control characters"),
    ],
)
def test_a_name_that_will_not_do_is_told(tsg: Caller, name: str | None, message: str) -> None:
    assert field_errors(tsg("POST", "/templates", template_body(template_name=name))) == {"template_name": message}


NOT_NAMES = ["", f"{{{DEFAULT_PACKAGE}}}", f"urn:uuid:{DEFAULT_PACKAGE}", f"{DEFAULT_PACKAGE}\n", f" {DEFAULT_PACKAGE}"]
NOT_UUIDS = [*NOT_NAMES, "g4-highcpu-1G", DEFAULT_PACKAGE.replace("-", ""), DEFAULT_PACKAGE[:-1] + "g", DEFAULT_PACKAGE + "0"]


@pytest.mark.parametrize("value", NOT_UUIDS)
def test_an_image_is_a_uuid_in_its_plain_form(tsg: Caller, value: str) -> None:
    assert field_errors(tsg("POST", "/templates", template_body(image_id=value))) == {"image_id": "imageID must be a valid UUID"}


@pytest.mark.parametrize("value", [*NOT_NAMES, "-g4", "g4 highcpu", "g4/highcpu", "gr\u00f6\u00dfe", "x" * 256])
def test_a_package_is_a_uuid_or_a_name(tsg: Caller, value: str) -> None:
    told = field_errors(tsg("POST", "/templates", template_body(package=value)))
    assert set(told) == {"package"}
    assert told["package"].startswith("package must be a valid UUID or the name of a package")


@pytest.mark.parametrize("value", NOT_UUIDS)
def test_each_network_is_a_uuid(tsg: Caller, value: str) -> None:
    told = field_errors(tsg("POST", "/templates", template_body(networks=[DEFAULT_NETWORK, value])))
    assert set(told) == {"networks.1"}
    assert "must be a valid UUID" in told["networks.1"]


def test_upper_case_uuids_are_given_back_as_sent(tsg: Caller) -> None:
    upper = {"package": DEFAULT_PACKAGE.upper(), "image_id": DEFAULT_IMAGE.upper(), "networks": [DEFAULT_NETWORK.upper()]}
    made = tsg.ok("POST", "/templates", template_body(**upper))
    assert {name: made[name] for name in upper} == upper
    assert tsg.ok("GET", f"/templates/{made['id']}") == made


def test_all_that_is_wrong_is_told_at_once(tsg: Caller) -> None:
    body = {"image_id": "x", "firewall_enabled": "yes", "networks": ["a", 5], "tags": {"a": None}, "userdata": []}
    told = field_errors(tsg("POST", "/templates", body))
    assert set(told) == {
        *("template_name", "package", "image_id", "firewall_enabled"),
        *("networks.0", "networks.1", "tags.a", "userdata"),
    }
    assert told["package"].startswith("package must be a valid UUID or the name of a package")
    assert told["image_id"] == "imageID must be a valid UUID"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("template_name", value) for value in (5, True, ["a"], {"a": "b"})),
        *(("package", value) for value in (5, [DEFAULT_PACKAGE])),
        *(("image_id", value) for value in (False, {})),
        *(("firewall_enabled", value) for value in ("yes", "true", 1, 0, "", [])),
        *(("networks", value) for value in (DEFAULT_NETWORK, {}, 5)),
        *(("userdata", value) for value in (5, {}, False)),
        *(("metadata", value) for value in ("a=b", [], 5)),
        *(("tags", value) for value in ("a=b", [["a", "b"]], True)),
    ],
)
def test_a_wrong_json_type_is_refused(tsg: Caller, field: str, value: object) -> None:
    assert set(field_errors(tsg("POST", "/templates", template_body(**{field: value})))) == {field}


@pytest.mark.parametrize("value", [None, ["x"], {"y": "z"}, 2**53, -(2**60)])
@pytest.mark.parametrize("field", ["tags", "metadata"])
def test_the_value_of_a_tag_is_a_string_a_number_or_a_boolean(tsg: Caller, field: str, value: object) -> None:
    assert set(field_errors(tsg("POST", "/templates", template_body(**{field: {"good": "x", "bad": value}})))) == {f"{field}.bad"}


@pytest.mark.parametrize("field", ["tags", "metadata"])
def test_a_tag_has_a_name(tsg: Caller, field: str) -> None:
    assert set(field_errors(tsg("POST", "/templates", template_body(**{field: {"": "x"}})))) == {field}


def test_tags_of_the_service_are_not_the_users_to_give(tsg: Caller) -> None:
    told = field_errors(tsg("POST", "/templates", template_body(tags={"tsg.group": "mine"})))
    assert told == {"tags": "tags cannot begin with 'tsg.': those are this service's own"}


@pytest.mark.parametrize("fields", [{"userdata": "a\0b"}, {"metadata": {"a": "\0"}}, {"tags": {"\0": "a"}}])
def test_a_nul_which_no_database_stores_is_refused(tsg: Caller, fields: dict[str, Any]) -> None:
    assert len(field_errors(tsg("POST", "/templates", template_body(**fields)))) == 1


@pytest.mark.parametrize("text", [r'"\ud800"', r'"a\udfffb"'])
def test_half_a_character_is_refused(tsg: Caller, text: str) -> None:
    data = f'{{"template_name": {text}, "package": "{DEFAULT_PACKAGE}", "image_id": "{DEFAULT_IMAGE}"}}'
    answer = tsg("POST", "/templates", data=data)
    assert answer.status_code == 422
    assert tsg.ok("GET", "/templates") == []


def test_what_cloudapi_could_not_make_an_instance_from_is_refused(tsg: Caller) -> None:
    body = template_body(userdata="x" * 99_600)
    assert len(json.dumps(body)) < 100_000, "it is not the body of this very request that is too large"
    told = field_errors(tsg("POST", "/templates", body))
    assert re.fullmatch(
        r"the template is \d+ bytes too large for CloudAPI: of 100000 bytes, \d+ are left for all but package .*", told["userdata"]
    )
    assert field_errors(tsg("POST", "/templates", template_body(tags={"triton.nonsense": "x"}))).keys() == {"tags"}
    assert tsg.ok("GET", "/templates") == []


def test_a_name_is_taken_once(tsg: Caller) -> None:
    name = 'the "one"'
    first = tsg.ok("POST", "/templates", template_body(template_name=name))
    told = error(tsg("POST", "/templates", template_body(template_name=name, userdata="other")), 409, "Conflict")
    assert told["message"] == f'Cannot create template "{name}", conflicts with another template.'
    assert tsg.ok("GET", "/templates") == [first]


def test_another_account_may_have_the_same_name(tsg: Caller, stranger: Caller) -> None:
    assert tsg.ok("POST", "/templates", FULL)["id"] != stranger.ok("POST", "/templates", FULL)["id"]


def test_of_twenty_creates_of_one_name_at_once_one_succeeds(tsg: Caller) -> None:
    statuses = together(20, lambda number: tsg("POST", "/templates", template_body(userdata=str(number))).status_code)
    assert sorted(statuses) == [201] + [409] * 19
    assert len(tsg.ok("GET", "/templates")) == 1


def test_the_list_is_empty_at_first(tsg: Caller) -> None:
    answer = tsg("GET", "/templates")
    assert (answer.status_code, answer.headers["Content-Type"], answer.json()) == (200, JSON, [])


def test_the_list_is_the_accounts_own_the_oldest_first(tsg: Caller, stranger: Caller) -> None:
    stranger.make_template()
    made = [tsg.ok("POST", "/templates", template_body(template_name=name)) for name in ("zebra", "ant", "Mouse", "0")]
    assert tsg.ok("GET", "/templates") == made
    stamps = [template["created_at"] for template in made]
    assert stamps == sorted(set(stamps))


def test_a_deleted_template_is_gone(tsg: Caller) -> None:
    template_id = tsg.make_template()
    answer = tsg("DELETE", f"/templates/{template_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert not {"Content-Type", "Content-Length", "Transfer-Encoding"} & set(answer.headers)
    assert tsg.ok("GET", "/templates") == []
    for method in ("GET", "DELETE"):
        error(tsg(method, f"/templates/{template_id}"), 404, "ResourceNotFound")


def test_deleting_sets_archived(tsg: Caller) -> None:
    template_id = tsg.make_template()
    tsg.ok("DELETE", f"/templates/{template_id}")
    assert tsg.api.sql("SELECT archived FROM tsg_templates WHERE id = :id", id=template_id) == [(True,)]


def test_the_name_of_a_deleted_template_is_free_again(tsg: Caller) -> None:
    for _ in range(3):
        made = tsg.ok("POST", "/templates", FULL)
        tsg.ok("DELETE", f"/templates/{made['id']}")
    assert tsg("POST", "/templates", FULL).status_code == 201


def test_a_template_in_use_is_not_deleted(tsg: Caller) -> None:
    template_id, other = tsg.make_template(), tsg.make_template()
    group = tsg.make_group(template_id=template_id)
    told = error(tsg("DELETE", f"/templates/{template_id}"), 409, "Conflict")
    assert told["message"] == f'Cannot delete template "{template_id}" while in use, must be removed from all groups first.'
    assert tsg("GET", f"/templates/{template_id}").status_code == 200
    tsg.ok("PUT", f"/groups/{group['id']}", {"group_name": group["group_name"], "template_id": other})
    assert tsg("DELETE", f"/templates/{template_id}").status_code == 204
    assert tsg("DELETE", f"/templates/{other}").status_code == 409


def test_the_template_of_a_deleted_group_is_deleted(tsg: Caller) -> None:
    template_id = tsg.make_template()
    group = tsg.make_group(3, template_id=template_id)
    tsg.ok("DELETE", f"/groups/{group['id']}")
    assert tsg("DELETE", f"/templates/{template_id}").status_code == 204


def test_no_group_comes_to_use_a_template_that_goes_at_the_same_time(tsg: Caller) -> None:
    """Whoever is second is refused: never a group without its template."""
    outcomes = []
    for number in range(15):
        template_id = tsg.make_template()
        body = {"group_name": f"racer-{number}", "template_id": template_id}
        requests = [("DELETE", f"/templates/{template_id}", None), ("POST", "/groups", body)]
        outcomes.append(tuple(together(2, lambda which, requests=requests: tsg(*requests[which]).status_code)))
    assert set(outcomes) <= {(204, 422), (409, 201)}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("template_id", [NOBODY, "x", "5", "%00", f"{{{NOBODY}}}", NOBODY[:-1], "%F0%28", "a%0Ab", "..%2f.."])
def test_an_id_that_is_nobodys_or_none_at_all_is_not_found(tsg: Caller, method: str, template_id: str) -> None:
    error(tsg(method, f"/templates/{template_id}"), 404, "ResourceNotFound")


def test_an_upper_case_id_is_the_same_id(tsg: Caller) -> None:
    template_id = tsg.make_template()
    assert tsg.ok("GET", f"/templates/{template_id.upper()}")["id"] == template_id
    assert tsg("DELETE", f"/templates/{template_id.upper()}").status_code == 204


@pytest.mark.parametrize(
    "left", [{"networks": None, "metadata": None, "tags": None, "userdata": None}, {"networks": "", "metadata": "", "tags": "null"}]
)
def test_a_template_that_the_2018_service_left_is_read(tsg: Caller, left: dict[str, str | None]) -> None:
    template_id = tsg.make_template()
    columns = ", ".join(f"{name} = :{name}" for name in left)
    tsg.api.sql(f"UPDATE tsg_templates SET {columns}, firewall_enabled = NULL WHERE id = :id", id=template_id, **left)
    read = tsg.ok("GET", f"/templates/{template_id}")
    assert (read["networks"], read["metadata"], read["tags"], read["userdata"]) == ([], None, None, "")
    assert read["firewall_enabled"] is False


def test_half_a_character_that_a_row_of_2018_holds_is_read_as_one_that_is_not_known(tsg: Caller) -> None:
    template_id, left = tsg.make_template(), r'{"a\ud800": "b\udfff", "whole": "\ud83d\ude00"}'
    tsg.api.sql("UPDATE tsg_templates SET tags = :left WHERE id = :id", id=template_id, left=left)
    read = tsg.ok("GET", f"/templates/{template_id}")
    assert read["tags"] == {"a\ufffd": "b\ufffd", "whole": "😀"}
    assert tsg.ok("GET", "/templates") == [read]


@pytest.mark.parametrize("left", ['{"a": 5}', '{"a": null, "b": {"c": [1.5, true]}}'])
def test_a_template_with_other_values_than_strings_is_read_as_it_is(tsg: Caller, left: str) -> None:
    template_id = tsg.make_template()
    tsg.api.sql("UPDATE tsg_templates SET tags = :left WHERE id = :id", id=template_id, left=left)
    assert tsg.ok("GET", f"/templates/{template_id}")["tags"] == json.loads(left)


@pytest.mark.parametrize("column", ["tags", "metadata"])
def test_a_template_with_a_column_that_is_unreadable_is_read_without_it(tsg: Caller, column: str) -> None:
    template_id = tsg.make_template()
    for left in ("{not json", "[]", "5"):
        tsg.api.sql(f"UPDATE tsg_templates SET {column} = :left WHERE id = :id", id=template_id, left=left)
        read = tsg.ok("GET", f"/templates/{template_id}")
        assert read[column] is None
        assert tsg.ok("GET", "/templates") == [read]
