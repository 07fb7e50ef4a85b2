"""What a template can say beyond 2018: its rules, what is refused and in which words, what is stored, and what CloudAPI is asked for."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator

from dev.sim.cloudapi.catalog import (
    DEFAULT_IMAGE,
    DEFAULT_NETWORK,
    DEFAULT_PACKAGE,
    FLEXIBLE_PACKAGE,
    HVM_IMAGE,
    HVM_PACKAGE,
    PRIVATE_NETWORK,
)
from shared.errors import Invalid
from shared.rules import documented, refuse
from shared.spec import fields, sending
from shared.spec.fields import FIELDS, Field
from shared.spec.machines import Instance
from shared.spec.spec import Spec, differing, from_document, hard_rules, is_in_place, request, to_columns, to_document
from tests.integration.api.service import NOBODY, Api, Caller, error, field_errors, template_body
from tsg_api.schema import parse

OLD = {"id", "template_name", "package", "image_id", "firewall_enabled", "networks", "userdata", "metadata", "tags", "created_at"}
NEEDS_MEMORY, DISABLED, SHARED, ALSO_PUBLIC = (f"11111111-0000-4000-8000-00000000000{number}" for number in range(4))
INSTANCE = Instance(group_id="6d3a1a5e-0000-4000-8000-000000000001", group_name="Web_Servers.1", template_id="t" * 36, launch_id="l" * 36)


def read(**given: Any) -> Spec:
    return parse.body(parse.template_body(), json.dumps(template_body(**given)).encode(), max_capacity=100).spec()


def refused(**given: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        read(**given)
    return {one.field: one.message for one in caught.value.fields}


def asked(**given: Any) -> dict[str, Any]:
    """What CloudAPI is asked for, but for what every instance has."""
    body = request(read(**given), INSTANCE)
    usual = {"package", "image", "firewall_enabled"} | {f"tag.{name}" for name in INSTANCE.tags}
    return {key: value for key, value in body.items() if key not in usual}


USUAL = {"name": "tsg-tttttttt-{{shortId}}", "tag.triton.cmon.groups": INSTANCE.group_id, "allow_shared_images": True}


@pytest.mark.parametrize("field", FIELDS, ids=[field.name for field in FIELDS])
def test_every_example_of_a_field_is_taken_and_given_back_as_it_was_sent(tsg: Caller, field: Field) -> None:
    for number, example in enumerate(field.examples):
        body = template_body(template_name=f"{field.name}-{number}", **({} if field.is_required else {field.name: example}))
        body[field.name] = example
        made = tsg.ok("POST", "/templates", body)
        assert made[field.name] == example
        assert set(made) == OLD | {field.name}
        assert tsg.ok("GET", f"/templates/{made['id']}") == made
        assert made in tsg.ok("GET", "/templates")


def test_old_clients_see_the_old_ten_fields(tsg: Caller) -> None:
    nulls = {field.name: None for field in FIELDS if not field.is_required}
    for made in (tsg.ok("POST", "/templates", template_body()), tsg.ok("POST", "/templates", template_body(template_name="x", **nulls))):
        assert set(made) == OLD
    assert tsg.api.sql("SELECT more FROM tsg_templates WHERE account_id = :id", id=tsg.id) == [(None,), (None,)]


SENT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"affinity": "role!=~db"}, {"affinity": ["role!=~db"]}),
    ({"affinity": ["role!=~db", "instance==~/^db-[0-9]+$/"]}, {"affinity": ["role!=~db", "instance==~/^db-[0-9]+$/"]}),
    ({"spread": "none"}, {}),
    ({"spread": "prefer"}, {"affinity": [f"tsg.group!=~{INSTANCE.group_id}"]}),
    ({"spread": "require"}, {"affinity": [f"tsg.group!={INSTANCE.group_id}"]}),
    ({"spread": "require", "affinity": "role==web"}, {"affinity": ["role==web", f"tsg.group!={INSTANCE.group_id}"]}),
    ({"spread": "prefer", "affinity": "role==~web"}, {"affinity": ["role==~web", f"tsg.group!=~{INSTANCE.group_id}"]}),
    ({"volumes": [{"name": "shared", "mountpoint": "/data"}]}, {"volumes": [{"name": "shared", "mountpoint": "/data"}]}),
    ({"volumes": []}, {}),
    ({"networks": [DEFAULT_NETWORK.upper()]}, {"networks": [DEFAULT_NETWORK]}),
    (
        {"networks": [{"ipv4_uuid": DEFAULT_NETWORK.upper(), "ipv4_count": 1}]},
        {"networks": [{"ipv4_uuid": DEFAULT_NETWORK, "ipv4_count": 1}]},
    ),
    ({"disks": [{}, {"size": "remaining"}]}, {"disks": [{}, {"size": "remaining"}]}),
    ({"brand": "kvm"}, {"brand": "kvm"}),
    ({"delegate_dataset": True, "encrypted": True}, {"delegate_dataset": True, "encrypted": True}),
    ({"delegate_dataset": False, "encrypted": False}, {}),
    ({"user_script": "#!/bin/sh\n"}, {"metadata.user-script": "#!/bin/sh\n"}),
    ({"cloud_config": "#cloud-config\n"}, {"metadata.cloud-init:user-data": "#cloud-config\n"}),
    ({"userdata": "x", "metadata": {"a": 1, "b": True}}, {"metadata.user-data": "x", "metadata.a": 1, "metadata.b": True}),
    ({"userdata": "x", "metadata": {"user-data": "y"}}, {"metadata.user-data": "x"}),
    ({"tags": {"a": 1, "b": True, "c": 1.5}}, {"tag.a": 1, "tag.b": True, "tag.c": 1.5}),
    ({"tags": {"triton.cmon.groups": "mine"}}, {"tag.triton.cmon.groups": "mine"}),
    ({"cns_services": ["web", "api:80:priority=1:weight=2"]}, {"tag.triton.cns.services": "web,api:80:priority=1:weight=2"}),
    ({"instance_name": "{{group}}-x-{{shortId}}"}, {"name": "web-servers-1-x-{{shortId}}"}),
]


@pytest.mark.parametrize(("given", "sent"), SENT)
def test_what_cloudapi_is_asked_for(given: dict[str, Any], sent: dict[str, Any]) -> None:
    assert asked(**given) == USUAL | sent


def test_a_shared_image_may_be_launched_unless_the_template_says_no() -> None:
    assert "allow_shared_images" not in asked(allow_shared_images=False)
    of_2018 = Spec("old", {"package": DEFAULT_PACKAGE, "image_id": DEFAULT_IMAGE})
    assert request(of_2018, INSTANCE)["allow_shared_images"] is True


def test_a_package_by_name_goes_as_it_was_written() -> None:
    assert request(read(package="g4-HighCPU-1G"), INSTANCE)["package"] == "g4-HighCPU-1G"
    assert request(read(package=DEFAULT_PACKAGE.upper()), INSTANCE)["package"] == DEFAULT_PACKAGE


@pytest.mark.parametrize("pattern", ["{{group}}-{{shortId}}", "{{shortId}}-{{group}}", "x{{group}}" + "y" * 40 + "{{shortId}}"])
@pytest.mark.parametrize("group", ["g" * 182, "A_.-" * 40, "a", "a---", "web." * 14 + "x"])
def test_a_name_is_a_label_of_dns_however_long_the_groups_is(pattern: str, group: str) -> None:
    sent = request(read(instance_name=pattern), INSTANCE._replace(group_name=group))["name"]
    name = sent.replace("{{shortId}}", "01234567")
    assert len(name) <= 63
    assert sent.count("{{shortId}}") == 1
    assert "{{" not in name
    assert name[0].isalnum()
    assert name[-1].isalnum()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


# What is refused

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    *(({"affinity": rule}, "affinity", "needs an operator") for rule in ("web", "a=b", "", ["role!=x", "role"])),
    *(({"affinity": rule}, "affinity", "must begin with instance") for rule in ("a==b", "==b", "1a==b", "role == b", "rö==b")),
    *(({"affinity": f"role{rule}"}, "affinity", "needs a value") for rule in ("==", "!=~", "==a,b", "==a=b", "== b", "==b ", "==ä")),
    *(({"affinity": f"role==/{bad}/"}, "affinity", "regular expression") for bad in ("(", "[", "a**", "*", "a++", "(?i)a", "a)", "[z-a]")),
    ({"affinity": "image!=x"}, "affinity", "CloudAPI ignores"),
    ({"affinity": ["role==a", "role!=~b"]}, "affinity", "would drop the soft ones"),
    ({"affinity": ["role==a"] * 11}, "affinity", "more than 10 rules"),
    ({"affinity": "role==" + "x" * 250}, "affinity", "longer than 255"),
    *(({"affinity": wrong}, "affinity", "must be a rule, or an array of rules") for wrong in (5, True, {}, [5], [None], ["role==a", {}])),
    ({"spread": "yes"}, "spread", "one of: none, prefer, require"),
    ({"spread": "require", "affinity": "role!=~x"}, "spread", "would drop the soft ones"),
    ({"spread": "prefer", "affinity": "role!=x"}, "spread", "would drop the soft ones"),
    *(({"networks": [bad]}, "networks.0", "must be a valid UUID") for bad in ({}, {"ipv4_uuid": "x"}, {"ipv4_uuid": None}, ["x"], True)),
    ({"networks": [{"ipv4_uuid": DEFAULT_NETWORK, "ipv4_ips": ["10.0.0.1"]}]}, "networks.0", "cannot share an address"),
    *(({"networks": [{"ipv4_uuid": DEFAULT_NETWORK, "ipv4_count": n}]}, "networks.0", "can be 1 alone") for n in (0, 2, "1", True, None)),
    ({"networks": [{"ipv4_uuid": DEFAULT_NETWORK, "primary": True}]}, "networks.0", 'a network has no "primary"'),
    ({"networks": [DEFAULT_NETWORK, {"ipv4_uuid": PRIVATE_NETWORK}]}, "networks", "no mixture"),
    ({"networks": [DEFAULT_NETWORK, DEFAULT_NETWORK.upper()]}, "networks", "more than once"),
    ({"networks": [f"00000000-0000-4000-8000-{n:012}" for n in range(33)]}, "networks", "more than 32"),
    ({"volumes": [{"mountpoint": "/a"}]}, "volumes.0.name", "is required"),
    ({"volumes": [{"name": "data"}]}, "volumes.0.mountpoint", "is required"),
    *(({"volumes": [{"name": name, "mountpoint": "/a"}]}, "volumes.0.name", "2 to 256") for name in ("a", "-ab", "a b", "ä1", "x" * 257)),
    *(({"volumes": [{"name": "data", "mountpoint": at}]}, "volumes.0.mountpoint", "absolute path") for at in ("", "a", "/", "//", "/a\0")),
    ({"volumes": [{"name": "data", "mountpoint": "/a", "mode": "rx"}]}, "volumes.0.mode", "one of: ro, rw"),
    ({"volumes": [{"name": "data", "mountpoint": "/a", "type": "nfs"}]}, "volumes.0.type", "one of: tritonnfs"),
    ({"volumes": [{"name": "data", "mountpoint": "/a", "size": 5}]}, "volumes.0", 'a volume has no "size"'),
    ({"volumes": [{"name": "data", "mountpoint": "/a"}, {"name": "more", "mountpoint": "//a/"}]}, "volumes", "more than once"),
    ({"volumes": [{"name": "data", "mountpoint": f"/{n}"} for n in range(9)]}, "volumes", "more than 8"),
    ({"volumes": {"name": "data"}}, "volumes", "must be an array"),
    ({"volumes": ["data"]}, "volumes.0", "must be an object"),
    ({"disks": []}, "disks", "at least 1"),
    ({"disks": [{}] + [{"size": 1}] * 8}, "disks", "more than 8"),
    ({"disks": [{}, {}]}, "disks", "must have a size"),
    ({"disks": [{"size": "remaining"}, {"size": "remaining"}]}, "disks", "only one"),
    ({"disks": [{}, {"size": 5, "boot": True}]}, "disks", "only the first"),
    ({"disks": [{"boot": False}]}, "disks.0.boot", "boots from the first one"),
    ({"disks": [{}, {"size": 5, "id": NOBODY}]}, "disks.1", 'a disk has no "id"'),
    ({"disks": [{"block_size": 512}]}, "disks", "leave it out"),
    ({"disks": [{}, {"size": "remaining"}, {"size": "remaining"}]}, "disks", "only one"),
    *(({"disks": [{"size": size}]}, "disks.0.size", "whole number of MiB") for size in (0, -1, "5", 1.5, True, None, 2**60)),
    *(({"disks": [{}, {"size": 1, "block_size": size}]}, "disks.1.block_size", "power of two") for size in (0, 256, 513, 262_144)),
    ({"disks": [{"image": "x"}]}, "disks.0", 'a disk has no "image"'),
    ({"brand": "joyent"}, "brand", "one of: bhyve, kvm"),
    *(({name: "true"}, name, "must be a boolean") for name in ("delegate_dataset", "encrypted", "allow_shared_images")),
    ({"user_script": "ä" * 32_769}, "user_script", "65536 bytes"),
    ({"cloud_config": "x" * 65_537}, "cloud_config", "65536 bytes"),
    ({"user_script": "a\0"}, "user_script", "NUL"),
    ({"user_script": "x", "metadata": {"user-script": "y"}}, "user_script", "which metadata has too"),
    ({"cloud_config": "x", "metadata": {"cloud-init:user-data": "y"}}, "cloud_config", "which metadata has too"),
    ({"cns_services": ["web"], "tags": {"triton.cns.services": "api"}}, "cns_services", "which tags has too"),
    *(({"cns_services": [one]}, "cns_services.0", "NAME[:PORT]") for one in ("", "a,b", " web", "a_b", "web:0", "web:x", "web:cost=2")),
    *(({"metadata": {key: "x"}}, "metadata", "CloudAPI drops") for key in ("-a", ".a", "ä", "root_pw", "administrator_pw", "_pw")),
    *(({"metadata": {key: "x"}}, "metadata", f"cannot have {key}") for key in ("credentials", "root_authorized_keys")),
    ({"tags": {"triton.cns.reverse_ptr": "a.example.com"}}, "tags", "cannot serve all instances"),
    ({"tags": {"triton.cns.disable": "true"}}, "tags", "without quotes"),
    ({"tags": {"triton.cns.services": True}}, "tags", "must be a list"),
    ({"tags": {"triton.other": "x"}}, "tags", "CloudAPI has no tag"),
    *(({"instance_name": name}, "instance_name", "must have {{shortId}}") for name in ("", "web", "web-{{group}}", "{{shortid}}")),
    *(({"instance_name": name}, "instance_name", "letters, digits and '-'") for name in ("-{{shortId}}", "{{shortId}}-", "a.{{shortId}}")),
    *(({"instance_name": name}, "instance_name", "letters, digits and '-'") for name in ("{{x}}{{shortId}}", "ä{{shortId}}")),
    ({"instance_name": "x" * 56 + "{{shortId}}"}, "instance_name", "cannot be longer than 63"),
    ({"instance_name": "x" * 48 + "{{shortId}}{{group}}"}, "instance_name", "cannot be longer than 63"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "field", "words"), REFUSED)
def test_what_cloudapi_would_drop_or_refuse_is_refused_at_once(given: dict[str, Any], field: str, words: str) -> None:
    told = refused(**given)
    assert set(told) == {field}
    assert words in told[field]


NEAR_MISSES = {
    "deletion_protection": "protect single members",
    "locality": "write affinity",
    "default_networks": "write networks",
    "bootrom": "follows from the image",
    "administrator_pw": "a secret",
    "password": "a secret",
    "name": "template_name",
    "ipv4_ips": "cannot share an address",
    "user_data": "user_script",
    "user-data": "user_script",
    "script": "user_script",
    "affinities": "write affinity",
    "Affinities": "write affinity",
    "afinity": "write affinity",
    "volume": "write volumes",
    "network": "write networks",
    "image": "write image_id",
    "imageId": "write image_id",
    "tag": "write tags",
    "tag.role": 'write tags, an object with "role" in it',
    "metadata.user-script": 'write metadata, an object with "user-script" in it',
    "userScript": "write user_script",
    "user-script": "write user_script",
    "cloudConfig": "write cloud_config",
    "firewallEnabled": "write firewall_enabled",
    "allow_shared_image": "write allow_shared_images",
    "disk": "write disks",
    "cns_service": "write cns_services",
    "encrypt": "write encrypted",
    "template_names": "write template_name",
    "delegated_dataset": "write delegate_dataset",
    "meta_data": "write metadata",
    "package_name": "write package",
    "spreads": "write spread",
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_a_name_that_is_nearly_a_field_is_refused_with_what_to_write(name: str) -> None:
    told = refused(**{name: "x"})
    assert set(told) == {name}
    assert NEAR_MISSES[name] in told[name]
    assert read(**{name: None}) == read(), "null says nothing"


@pytest.mark.parametrize("name", ["zone", "id", "account_id", "created_at", "description", "group_name", "capacity", "version", "comment"])
def test_a_name_that_is_like_no_field_is_ignored_as_in_2018(name: str) -> None:
    assert read(**{name: "x"}) == read()


def test_near_misses_are_told_with_all_the_rest(tsg: Caller) -> None:
    told = field_errors(tsg("POST", "/templates", template_body(package="a b", script="x", spread="x", Tags={}, tags={})))
    assert set(told) == {"package", "script", "spread", "tags"}


def test_a_template_as_it_is_shown_can_be_made_again(tsg: Caller) -> None:
    made = tsg.ok("POST", "/templates", template_body(spread="prefer", tags={"a": True}))
    again = tsg.ok("POST", "/templates", made | {"template_name": "again", "account_id": "x", "description": "of other clients"})
    assert again == made | {"template_name": "again", "id": again["id"], "created_at": again["created_at"]}


def test_each_problem_has_a_code_as_cloudapis_have(tsg: Caller) -> None:
    body = error(tsg("POST", "/templates", {"package": "a b", "image_id": None, "volumes": [{"name": "data"}]}), 422, "InvalidArgument")
    assert {one["field"]: one["code"] for one in body["errors"]} == {
        "template_name": "Missing",
        "package": "Invalid",
        "image_id": "Missing",
        "volumes.0.mountpoint": "Missing",
    }
    group = error(tsg("POST", "/groups", {"group_name": "", "capacity": -1}), 422, "InvalidArgument")
    assert {one["field"]: one["code"] for one in group["errors"]} == {
        "group_name": "Invalid",
        "template_id": "Missing",
        "capacity": "Invalid",
    }
    page = error(tsg("GET", "/groups?limit=x"), 422, "InvalidArgument")
    assert [one["code"] for one in page["errors"]] == ["Invalid"]


# What is stored

TYPED = {"networks": [{"ipv4_uuid": DEFAULT_NETWORK}], "tags": {"a": True, "b": 2}, "metadata": {"c": 1.5}, "spread": "prefer"}


def test_the_columns_of_2018_hold_what_they_can_say_and_the_document_the_rest(tsg: Caller) -> None:
    template_id = tsg.ok("POST", "/templates", template_body(**TYPED, userdata="x"))["id"]
    statement = "SELECT networks, tags, metadata, userdata, more FROM tsg_templates WHERE id = :id"
    ((networks, tags, metadata, userdata, more),) = tsg.api.sql(statement, id=template_id)
    assert (networks, userdata) == (DEFAULT_NETWORK, "x")
    assert (json.loads(tags), json.loads(metadata)) == ({"a": "true", "b": "2"}, {"c": "1.5"}), "strings, as the 2018 service reads them"
    assert json.loads(more) == {"version": 1, "fields": TYPED}


BAD_DOCUMENTS = [
    "", "{", "[]", "null", '{"version": 2, "fields": {}}', '{"fields": {}}', '{"version": 1}', '{"version": 1, "fields": []}',
    *(f'{{"version": 1, "fields": {{{field}}}}}' for field in ('"spread": "always"', '"newer": 1', '"encrypted": 1')),
]  # fmt: skip


@pytest.mark.parametrize("document", BAD_DOCUMENTS)
def test_a_document_that_is_none_of_ours_is_not_launched_from(tsg: Caller, document: str) -> None:
    with pytest.raises(ValueError):
        from_document(document)
    template_id = tsg.ok("POST", "/templates", template_body(**TYPED))["id"]
    tsg.api.sql("UPDATE tsg_templates SET more = :more WHERE id = :id", more=document, id=template_id)
    assert set(tsg.ok("GET", f"/templates/{template_id}")) == OLD, "its other columns are read"
    told = tsg.ok("GET", f"/templates/{template_id}/verification")
    assert [one["field"] for one in told["errors"]] == ["more"]


@pytest.mark.parametrize(("given", "_sent"), SENT)
def test_a_spec_that_was_stored_is_read_as_it_was(given: dict[str, Any], _sent: object) -> None:
    spec = read(**given)
    stored = {name: value for name, value in to_columns(spec).items() if value is not None}
    values = {field.name: field.column.read(stored[field.name]) for field in FIELDS if field.column and field.name in stored}
    again = Spec(spec.name, values | from_document(to_document(spec)))
    assert request(again, INSTANCE) == request(spec, INSTANCE)
    assert differing(again, spec) == []


# What differs


@pytest.mark.parametrize(
    ("one", "other", "names", "in_place"),
    [
        ({}, {}, [], True),
        ({}, {"spread": "none", "volumes": [], "allow_shared_images": True, "encrypted": False, "tags": {}}, [], True),
        ({"networks": [DEFAULT_NETWORK]}, {"networks": [DEFAULT_NETWORK.upper()]}, [], True),
        ({"tags": {"a": 1}}, {"tags": {"a": True}}, ["tags"], True),
        ({"tags": {"a": "1"}}, {"firewall_enabled": True, "metadata": {"b": "c"}}, ["firewall_enabled", "metadata", "tags"], True),
        ({"cns_services": ["web"]}, {}, ["cns_services"], True),
        ({"tags": {"a": "1"}}, {"tags": {"a": "2"}, "package": "g4"}, ["package", "tags"], False),
        *(({}, {name: value}, [name], False) for name, value in {"spread": "prefer", "user_script": "x", "userdata": "x"}.items()),
    ],
)
def test_what_differs_between_two_templates(one: dict[str, Any], other: dict[str, Any], names: list[str], in_place: bool) -> None:
    assert differing(read(**one), read(template_name="another", **other)) == names
    assert is_in_place(names) is in_place


def test_the_hard_rules_of_a_template() -> None:
    assert hard_rules(read(affinity=["role!=db", "instance==web"], spread="require", encrypted=True)) == [
        *("affinity: role!=db", "affinity: instance==web"),
        *("spread: require", "encrypted: true"),
    ]
    assert hard_rules(read(affinity="role!=~db", spread="prefer")) == []


# One more field


def _even(value: int) -> int:
    if value % 2:
        raise refuse("swap must be even")
    return value


SWAP = Field(
    *("swap", Annotated[int, AfterValidator(_even), documented(multipleOf=2)], "an even number of MiB", sending.as_field("max_swap")),
    *("`max_swap`", "The swap of an instance", (512,)),
)


def test_a_new_option_of_cloudapi_is_one_entry(make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "FIELDS", (*FIELDS, SWAP))
    api = make_api()
    tsg = api.new_account()
    described = api.request("GET", "/v1/tsg/openapi.json").json()["components"]["schemas"]
    assert described["NewTemplate"]["properties"]["swap"] == {
        "type": ["integer", "null"],
        "multipleOf": 2,
        "description": "The swap of an instance",
        "examples": [512],
        "default": None,
    }
    assert described["Template"]["properties"]["swap"]["type"] == "integer"
    assert field_errors(tsg("POST", "/templates", template_body(swap=3))) == {"swap": "swap must be even"}
    assert field_errors(tsg("POST", "/templates", template_body(swaps=4))) == {"swaps": "a template has no swaps: write swap"}
    made = tsg.ok("POST", "/templates", template_body(swap=4))
    assert made["swap"] == 4
    assert tsg.ok("GET", f"/templates/{made['id']}") == made
    spec = read(swap=4)
    assert request(spec, INSTANCE)["max_swap"] == 4
    assert differing(spec, read()) == ["swap"]
    assert not is_in_place(["swap"])


def test_a_field_has_a_column_if_2018_knew_it() -> None:
    assert {field.name for field in FIELDS if field.column} == OLD - {"id", "template_name", "created_at"}


# Verification


def test_a_template_that_can_be_launched_is_verified(tsg: Caller) -> None:
    answer = tsg("POST", "/templates?verify=true", template_body(networks=[DEFAULT_NETWORK, PRIVATE_NETWORK], package="sim-small"))
    assert answer.status_code == 201
    assert tsg.ok("GET", f"/templates/{answer.json()['id']}/verification") == {
        "template_id": answer.json()["id"],
        "launchable": True,
        "errors": [],
    }


def test_all_that_is_not_there_is_told_at_once(tsg: Caller) -> None:
    body = template_body(
        package="no-such", image_id=NOBODY, networks=[DEFAULT_NETWORK, NOBODY], volumes=[{"name": "none", "mountpoint": "/a"}]
    )
    told = field_errors(tsg("POST", "/templates?verify=true", body))
    assert set(told) == {"package", "image_id", "networks.1", "volumes.0"}
    assert tsg.ok("GET", "/templates") == []
    made = tsg.ok("POST", "/templates", body)
    verified = tsg.ok("GET", f"/templates/{made['id']}/verification")
    assert (verified["launchable"], {one["field"]: one["message"] for one in verified["errors"]}) == (False, told)


MISFITS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"package": HVM_PACKAGE}, {"package": "for virtual machines (bhyve)"}),
    ({"package": HVM_PACKAGE, "image_id": HVM_IMAGE, "brand": "kvm"}, {"brand": "do not fit each other (package: bhyve, brand: kvm)"}),
    ({"brand": "bhyve"}, {"brand": "this one is a zone's"}),
    ({"disks": [{}]}, {"disks": "CloudAPI would ignore them"}),
    ({"package": HVM_PACKAGE, "image_id": HVM_IMAGE, "disks": [{}]}, {"disks": "flexible_disk"}),
    ({"package": FLEXIBLE_PACKAGE, "image_id": HVM_IMAGE, "disks": [{"size": 5}]}, {"disks": "the image's 10240 MiB"}),
    (
        {"package": FLEXIBLE_PACKAGE, "image_id": HVM_IMAGE, "disks": [{}, {"size": 41_000}]},
        {"disks": "take 51240 MiB, and the package has 51200"},
    ),
    ({"networks": [PRIVATE_NETWORK], "volumes": [{"name": "sim-volume", "mountpoint": "/a"}]}, {"volumes.0": "can't be reached"}),
    ({"volumes": [{"name": "sim-volume", "mountpoint": "/a"}]}, {"volumes.0": "can't be reached"}),
    ({"image_id": NEEDS_MEMORY}, {"package": "the image needs 1024 MiB of memory, and the package has 512"}),
    ({"image_id": DISABLED}, {"image_id": "is disabled, not active"}),
    ({"image_id": SHARED, "allow_shared_images": False}, {"allow_shared_images": "must not be false"}),
    ({"image_id": SHARED}, {}),
    ({"networks": [DEFAULT_NETWORK, ALSO_PUBLIC]}, {"networks": "one public network"}),
]


@pytest.fixture(scope="module")
def misfits(api: Api) -> Caller:
    """An account of a cloud in which not all goes together."""
    tsg, cloud = api.new_account(), api.sim.cloud
    image = cloud.images[DEFAULT_IMAGE]
    cloud.images[NEEDS_MEMORY] = dataclasses.replace(image, id=NEEDS_MEMORY, min_ram=1024)
    cloud.images[DISABLED] = dataclasses.replace(image, id=DISABLED, state="disabled")
    cloud.images[SHARED] = dataclasses.replace(image, id=SHARED, public=False, owner=NOBODY, acl=(tsg.triton.id,))
    cloud.networks[ALSO_PUBLIC] = dataclasses.replace(cloud.networks[DEFAULT_NETWORK], id=ALSO_PUBLIC, owners=(tsg.triton.id,))
    return tsg


@pytest.mark.parametrize(("fields", "words"), MISFITS)
def test_what_does_not_fit_each_other_is_told(misfits: Caller, fields: dict[str, Any], words: dict[str, str]) -> None:
    made = misfits.make_template(**fields)
    verified = misfits.ok("GET", f"/templates/{made}/verification")
    assert {one["field"] for one in verified["errors"]} == set(words)
    assert all(words[one["field"]] in one["message"] for one in verified["errors"])
    assert verified["launchable"] is not bool(words)


def test_verify_is_true_or_false(tsg: Caller) -> None:
    for value in ("yes", "1", "", "true&verify=false"):
        assert set(field_errors(tsg("POST", f"/templates?verify={value}", template_body()))) == {"verify"}
    before = tsg.api.asked("GetPackage")
    assert tsg("POST", "/templates?verify=false", template_body()).status_code == 201
    assert tsg.api.asked("GetPackage") == before


def test_nothing_is_verified_while_cloudapi_cannot_be_asked(make_api: Callable[..., Api]) -> None:
    api = make_api()
    tsg = api.new_account()
    template_id = tsg.make_template()
    api.sim.knobs.turn({"error_share": 1.0})
    error(tsg("POST", "/templates?verify=true", template_body()), 503, "ServiceUnavailable")
    error(tsg("GET", f"/templates/{template_id}/verification"), 503, "ServiceUnavailable")
    api.sim.knobs.turn({"error_share": 0.0})
    assert len(tsg.ok("GET", "/templates")) == 1


def test_the_verification_of_anothers_template_is_not_found(tsg: Caller, stranger: Caller) -> None:
    template_id = tsg.make_template()
    for who, wanted in ((stranger, template_id), (tsg, NOBODY), (tsg, "x")):
        error(who("GET", f"/templates/{wanted}/verification"), 404, "ResourceNotFound")


# The page about templates

PAGE = (Path(__file__).parents[3] / "docs" / "templates.md").read_text()
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("example", EXAMPLES, ids=[example["template_name"] for example in EXAMPLES])
def test_an_example_of_the_page_is_taken_and_can_be_launched(tsg: Caller, example: dict[str, Any]) -> None:
    made = tsg.ok("POST", "/templates?verify=true", example)
    assert {name: made[name] for name in example} == example


def test_the_page_has_an_example_for_all_that_needs_one() -> None:
    shown = {name for example in EXAMPLES for name in example}
    assert {"spread", "affinity", "volumes", "user_script", "cloud_config", "cns_services", "instance_name", "tags", "disks"} <= shown
