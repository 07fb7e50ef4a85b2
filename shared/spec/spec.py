"""A template's spec: what its owner said of it, and what follows from that for an instance."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shared.spec import fields
from shared.spec.fields import Field
from shared.spec.machines import Instance
from shared.spec.tags import CMON_GROUPS
from shared.spec.values import SHORT_ID

#: The form of the document. A program that reads a later one would leave out what it says.
VERSION = 1


@dataclass(frozen=True)
class Spec:
    """A template's name, and the values of its fields that were given."""

    name: str
    values: Mapping[str, Any]

    def get(self, field: Field) -> Any:
        """The value of a field, or its default."""
        value = self.values.get(field.name)
        return field.default if value is None else value


def request(spec: Spec, instance: Instance) -> dict[str, Any]:
    """The body of the request for an instance. CloudAPI puts the first 8 characters of its id in the place of `{{shortId}}`.

    Of two fields that say one thing the first counts; `conflicts` refuses those that 2018 did not take.
    """
    body: dict[str, Any] = {f"tag.{key}": value for key, value in instance.tags.items()}
    for field in fields.FIELDS:
        for key, value in _part(field, spec, instance).items():
            body[key] = [*body.get(key, ()), *value] if isinstance(value, list) else body.get(key, value)
    # The alias of 2018; and Prometheus tells groups apart by CMON's.
    defaults = {"name": f"tsg-{instance.template_id[:8]}-{SHORT_ID}", f"tag.{CMON_GROUPS}": instance.group_id}
    return defaults | body


def _part(field: Field, spec: Spec, instance: Instance) -> Mapping[str, Any]:
    value = spec.get(field)
    value = field.implied if value is None else value
    return {} if value is None else field.send(value, instance)


#: Stands for any instance.
_ANY = Instance("0" * 36, "x", "0" * 36, "0" * 36)


def conflicts(spec: Spec) -> Iterator[tuple[str, str]]:
    """Fields that don't go together, each with the reason."""
    said: dict[str, Field] = {}
    for field in fields.FIELDS:
        if spec.values.get(field.name) is None:
            continue
        for key, value in _part(field, spec, _ANY).items():
            other = said.setdefault(key, field)
            # Those of 2018 may say one thing twice: its clients do.
            if other is not field and not isinstance(value, list) and not (field.column and other.column):
                new, old = (field, other) if field.column is None else (other, field)
                kind, _, name = key.partition(".")
                yield new.name, f"{new.name} is sent as the {kind} {name}, which {old.name} has too: give one of them"
    rules = request(spec, _ANY).get("affinity", [])
    if len({"~" in rule for rule in rules}) > 1 and "spread" in spec.values:
        mine, others = ("hard", "soft") if spec.values["spread"] == "require" else ("soft", "hard")
        both = f'spread "{spec.values["spread"]}" is a {mine} rule, and those of affinity are {others}'
        yield "spread", f"{both}: CloudAPI would drop the soft ones; give rules of one kind"


def hard_rules(spec: Spec) -> list[str]:
    """What leaves an instance fewer servers to be on, in the words of the template."""
    given = spec.values.get("affinity") or []
    rules = [f"affinity: {rule}" for rule in ([given] if isinstance(given, str) else given) if "~" not in rule]
    if spec.values.get("spread") == "require":
        rules.append("spread: require")
    if spec.values.get("encrypted"):
        rules.append("encrypted: true")
    return rules


def differing(one: Spec, other: Spec) -> list[str]:
    """The fields in which two templates differ: what instances made from them differ in. Their names do not matter."""
    return [field.name for field in fields.FIELDS if _text(_part(field, one, _ANY)) != _text(_part(field, other, _ANY))]


def is_in_place(names: list[str]) -> bool:
    """Can a running instance take over changes of these fields?"""
    by_name = fields.by_name()
    return all(by_name[name].is_in_place for name in names)


def _text(value: Any) -> str:
    """As JSON, in which true is not 1."""
    return json.dumps(value, sort_keys=True)


def to_columns(spec: Spec) -> dict[str, Any]:
    """What the columns of 2018 hold."""
    return {field.name: field.column.write(spec.get(field)) for field in fields.FIELDS if field.column}


def to_document(spec: Spec) -> str | None:
    """What they can't say, as the text of a JSON document; None when there is nothing."""
    more = {field.name: value for field in fields.FIELDS if (value := spec.values.get(field.name)) is not None and _exceeds(field, value)}
    return json.dumps({"version": VERSION, "fields": more}) if more else None


def _exceeds(field: Field, value: Any) -> bool:
    return field.column is None or _text(field.column.read(field.column.write(value))) != _text(value)


def from_document(text: str | None) -> dict[str, Any]:
    """The values in a document, by the same rules as when they came in. `ValueError` for what is not such a document."""
    if text is None:
        return {}
    document, known = json.loads(text), fields.by_name()
    if not isinstance(document, dict) or document.get("version") != VERSION or not isinstance(document.get("fields"), dict):
        raise ValueError("another version")
    if unknown := sorted(set(document["fields"]) - set(known)):
        raise ValueError(f"unknown: {', '.join(unknown)}")
    return {name: known[name].adapter.validate_python(value, strict=True) for name, value in document["fields"].items()}
