"""How a field's value goes into the body of CloudAPI's CreateMachine."""

from collections.abc import Callable, Mapping
from typing import Any

from shared.rules import is_uuid
from shared.spec.machines import TAG_GROUP, Instance
from shared.spec.values import instance_name

#: What a value adds to the body, for one instance.
Send = Callable[[Any, Instance], Mapping[str, Any]]


def as_field(name: str) -> Send:
    """As it is, under this name."""
    return lambda value, _instance: {name: value}


def as_ids(name: str) -> Send:
    """UUIDs in lower case, as CloudAPI writes them; other texts as they are."""
    return lambda value, _instance: {name: value.lower() if is_uuid(value) else value}


def as_array(name: str) -> Send:
    """An array, unless it is empty."""
    return lambda value, _instance: {name: value} if value else {}


def when_true(name: str) -> Send:
    """Only when it is true: CloudAPI ignores anything else."""
    return lambda value, _instance: {name: True} if value else {}


def as_metadata(key: str) -> Send:
    """A text, unless it is empty, as metadata."""
    return lambda value, _instance: {f"metadata.{key}": value} if value else {}


def as_pairs(kind: str) -> Send:
    """Each value by itself, as `tag.KEY` or `metadata.KEY`."""
    return lambda value, _instance: {f"{kind}.{key}": one for key, one in value.items()}


def as_tag(key: str) -> Send:
    """Texts, unless there are none, as one tag."""
    return lambda value, _instance: {f"tag.{key}": ",".join(value)} if value else {}


def networks(value: list[Any], _instance: Instance) -> Mapping[str, Any]:
    """UUIDs in lower case. Without networks CloudAPI chooses them."""
    ids = [{**one, "ipv4_uuid": one["ipv4_uuid"].lower()} if isinstance(one, dict) else one.lower() for one in value]
    return {"networks": ids} if ids else {}


def affinity(value: str | list[str], _instance: Instance) -> Mapping[str, Any]:
    """Always an array, which another field's rules can join."""
    rules = [value] if isinstance(value, str) else value
    return {"affinity": rules} if rules else {}


def spread(value: str, instance: Instance) -> Mapping[str, Any]:
    """The rule that keeps an instance off servers that have another one of its group."""
    operators = {"prefer": "!=~", "require": "!="}
    return {"affinity": [f"{TAG_GROUP}{operators[value]}{instance.group_id}"]} if value in operators else {}


def name(value: str, instance: Instance) -> Mapping[str, Any]:
    """The pattern with the group's name; CloudAPI fills in the id."""
    return {"name": instance_name(value, group_name=instance.group_name)}
