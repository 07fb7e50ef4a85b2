"""What is accepted can be launched: a template at CloudAPI's limits becomes an instance, and one beyond them is refused when it is made."""

import dataclasses
import json
import random
from typing import Any

import pytest

from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_NETWORK, DEFAULT_PACKAGE, PRIVATE_NETWORK
from dev.sim.cloudapi.errors import ApiError
from dev.sim.cloudapi.tags import check_tags
from shared.errors import Invalid
from shared.reasons import Reason
from shared.spec import tags
from shared.spec.spec import Spec
from tests.integration.conftest import World
from tsg_api.schema import parse

LONGEST_NAME = "g" * parse.MAX_GROUP_NAME
SEED = 20180414
#: One to four bytes of UTF-8, and what JSON has to escape.
CHARACTERS = 'x "\\\n\t\x01\x7fä§€中\u2028😀'


def template(**fields: Any) -> Spec:
    """As it is taken from the wire."""
    body = {"template_name": "t", "package": DEFAULT_PACKAGE, "image_id": DEFAULT_IMAGE, **fields}
    # The bytes of a client that escapes nothing: what is counted is what goes to CloudAPI.
    return parse.body(parse.template_body(), json.dumps(body).encode(), max_capacity=100).spec()


def refused(**fields: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        template(**fields)
    return {error.field: error.message for error in caught.value.fields}


def bytes_too_many(**fields: Any) -> int:
    (message,) = refused(**fields).values()
    return int(message.removeprefix("the template is ").partition(" ")[0])


def fill(**fields: Any) -> dict[str, Any]:
    """The fields with userdata that takes them to the limit exactly."""
    padding = 200_000
    return {**fields, "userdata": "x" * (padding - bytes_too_many(**fields, userdata="x" * padding))}


def launch(world: World, spec: Spec) -> Any:
    """An instance of it, in a group of the longest name."""
    made = world.make_template(name=f"{spec.name}-{world.login}", **spec.values)
    group = world.make_group(1, name=LONGEST_NAME, template=made)
    world.converge()
    found = world.machines(group)
    assert found, world.group_row(group).last_error
    assert world.group_row(group).reason == Reason.PROVISIONING
    return found[0]


@pytest.mark.parametrize("number", range(8))
def test_whatever_is_at_the_limit_is_created(world: World, number: int) -> None:
    chance = random.Random(SEED + number)

    def text(most: int) -> str:
        return "".join(chance.choices(CHARACTERS, k=chance.randint(1, most)))

    fields = fill(
        template_name="ä" * parse.MAX_TEMPLATE_NAME if number == 0 else "t",
        firewall_enabled=chance.random() < 0.5,
        networks=[DEFAULT_NETWORK.upper(), PRIVATE_NETWORK][: chance.randint(0, 2)],
        metadata={f"m{one}{text(5)}m": text(3000) for one in range(chance.randint(0, 9))},
        tags={f"{one}{text(5)}": text(3000) for one in range(chance.randint(0, 9))},
    )
    machine = launch(world, dataclasses.replace(template(**fields), name="t"))
    own = {name: value for name, value in machine.tags.items() if not name.startswith(("tsg.", tags.CMON_GROUPS))}
    assert own == fields["tags"]
    assert machine.metadata["user-data"] == fields["userdata"]
    assert {name: machine.metadata[name] for name in fields["metadata"]} == fields["metadata"]
    assert machine.tags["tsg.name"] == LONGEST_NAME
    assert bytes_too_many(**{**fields, "userdata": fields["userdata"] + "x"}) == 1


def test_one_byte_over_the_limit_is_what_cloudapi_refuses(world: World) -> None:
    fields = fill()
    made = world.make_template(**{**template(**fields).values, "userdata": fields["userdata"] + "x"})
    group = world.make_group(1, name=LONGEST_NAME, template=made)
    world.converge()
    row = world.group_row(group)
    assert (row.reason, row.last_error) == (Reason.TEMPLATE_REJECTED, "Request body size exceeds 100000")


def test_36_kilobytes_of_emoji_are_36_kilobytes(world: World) -> None:
    userdata = "😀" * 9_000
    assert launch(world, template(userdata=userdata)).metadata["user-data"] == userdata


def test_half_a_character_that_a_row_of_2018_holds_keeps_no_instance_back(world: World) -> None:
    made = world.make_template()
    world.sql("UPDATE tsg_templates SET metadata = :told WHERE id = :id", told='{"odd": "a\\ud800"}', id=made.id)
    group = world.make_group(1, template=made)
    world.converge()
    (machine,) = world.machines(group)
    assert machine.metadata["odd"] == "a\ufffd"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("userdata", "ä" * 60_000),
        ("metadata", {"a": "x" * 100_000}),
        ("tags", {f"tag-{number}": "x" * 90 for number in range(1_000)}),
    ],
)
def test_the_field_that_takes_most_is_named_with_the_bytes_that_are_too_many(field: str, value: Any) -> None:
    (message,) = (told := refused(**{field: value, "template_name": "t"})).values()
    assert set(told) == {field}
    assert "too large for CloudAPI: of 100000 bytes, " in message


def test_too_large_and_spelled_twice_are_told_at_once() -> None:
    assert set(refused(userdata="x" * 100_000, Tags={}, tags={})) == {"userdata", "tags"}


TRITON_TAGS: list[tuple[str, str | bool]] = [
    ("triton.cns.services", value)
    for value in (
        *("web", "web:80", "web:80:priority=1", "a,b", " a , b ", "a-b", "web:80:priority=1:weight=65535", "x" * 63),
        *("", "web:0", "web:65536", "web:80:other=1", "web:weight=65536", "-a", "a_b", "a,", "x" * 64, "web\n", "web:80:priority=", "wéb"),
    )
]
TRITON_TAGS += [
    ("triton.cmon.groups", value) for value in ("a", "a,b_c-d", "", "a b", "x" * 100, "x" * 101, ",".join("a" * 100), ",".join("a" * 101))
]
TRITON_TAGS += [
    (f"triton.{name}", value) for name in ("cns.disable", "placement.exclude_virtual_servers") for value in ("true", "", True, False)
]
TRITON_TAGS += [("triton.network.public", "any"), ("triton.nonsense", "x"), ("triton.", "x"), ("triton", "x"), ("Triton.nonsense", "x")]


@pytest.mark.parametrize(("name", "value"), TRITON_TAGS)
def test_tags_of_tritons_own_are_taken_where_cloudapi_takes_them(name: str, value: str | bool) -> None:
    try:
        check_tags({name: value}, "making")
        taken = True
    except ApiError:
        taken = False
    assert (tags.problem(name, value) is None) == taken
    if not taken:
        assert name in refused(tags={"fine": "x", name: value})["tags"]
