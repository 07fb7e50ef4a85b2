"""Groups and templates as a file declares them, and what differs from what is there. Pure: it reads and changes nothing.

    templates:
      - name: web-1
        image: base-64-lts@23.4.0
        package: sim-small
    groups:
      - name: web
        template: web-1
        capacity: 3
        policies:
          - {name: evenings, kind: schedule, schedule: {cron: "0 18 * * *"}, set: {capacity: 2}}

Further keys are fields of the API. A group's `template` may be an object instead of a name: the fields of a template that is named after
the group and its own content, so that another content makes another template.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tsg_client.errors import Misconfigured
from tsg_client.models import Group, Json, Policy, Template

CREATE, UPDATE, DELETE = "create", "update", "delete"
TEMPLATE, GROUP, POLICY = "template", "group", "policy"

#: What a group has where nobody has said anything: it is not exported.
DEFAULTS: Mapping[str, Any] = {
    "min_capacity": 0,
    "ready_seconds": 0,
    "termination_policy": ["outdated", "oldest"],
    "update": {"strategy": "manual"},
    "suspended": [],
}
#: What the service adds to a policy as it was asked for.
ADDED = frozenset({"id", "out_until", "in_until", "failures", "created_at", "updated_at", "webhook_url"})
_NOT_DECLARED = ADDED | {"id", "created_at", "updated_at", "template_id", "group_name", "template_name", "policy_name"}


class Change(NamedTuple):
    """One step from what is there to what is declared. `fields` are those to send, `shown` what a person reads.

    The name of a policy is that of its group, a slash and its own.
    """

    verb: str
    kind: str
    name: str
    fields: Json
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Declared:
    """What a file says. A group's `template` is the name of one."""

    templates: Mapping[str, Json]
    groups: Mapping[str, Json]
    #: Of the groups that say something of policies: all of theirs.
    policies: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)


@dataclass(frozen=True)
class Actual:
    """What is there, by names."""

    templates: Mapping[str, Template]
    groups: Mapping[str, Group]
    #: Of the groups whose policies matter.
    policies: Mapping[str, Mapping[str, Policy]] = field(default_factory=dict)

    @classmethod
    def of(cls, templates: Iterable[Template], groups: Iterable[Group]) -> "Actual":
        return cls({one.template_name: one for one in templates}, {one.group_name: one for one in groups})

    def with_policies(self, found: Mapping[str, Iterable[Policy]]) -> "Actual":
        """With the policies of these groups."""
        return replace(self, policies={group: {one.policy_name: one for one in policies} for group, policies in found.items()})

    def template_of(self, group: Group) -> str:
        """The name of a group's template, or the id of one that is deleted."""
        return next((name for name, one in self.templates.items() if one.id == group.template_id), group.template_id)


def read(document: object, image_id: Callable[[str], str]) -> Declared:
    """What a document declares; `image_id` finds the id of an image by its name. `Misconfigured` says what is wrong in it."""
    if not isinstance(document, dict) or not document:
        raise Misconfigured("the file declares nothing: it needs templates, groups, or both")
    if unknown := document.keys() - {"templates", "groups"}:
        raise Misconfigured(f"the file has {', '.join(sorted(map(str, unknown)))}: it may have templates and groups")
    templates = {name: _template(fields, image_id) for name, fields in _items(document, "templates").items()}
    groups = _items(document, "groups")
    policies = {name: _policies(name, fields.pop("policies")) for name, fields in groups.items() if "policies" in fields}
    for name, fields in groups.items():
        wanted = fields.get("template")
        if isinstance(wanted, dict):
            inline = _template(wanted, image_id)
            digest = hashlib.sha256(json.dumps(inline, sort_keys=True).encode()).hexdigest()[:8]
            fields["template"] = f"{name}-{digest}"
            templates[fields["template"]] = inline
        elif not isinstance(wanted, str):
            raise Misconfigured(f"the group {name} needs a template: the name of one, or its fields")
    return Declared(templates, groups, policies)


def differences(wanted: Declared, actual: Actual, *, prune: bool) -> list[Change]:
    """The steps in the order in which they can be done. `prune` deletes what is not declared. `Misconfigured` where no step leads there."""
    steps = [change for name, fields in wanted.templates.items() for change in _of_template(name, fields, actual.templates.get(name))]
    for name, fields in wanted.groups.items():
        if fields["template"] not in wanted.templates and fields["template"] not in actual.templates:
            raise Misconfigured(f"the group {name} names the template {fields['template']}, which is neither in the file nor there")
        steps += _of_group(name, fields, actual)
        if name in wanted.policies:
            steps += _of_policies(name, wanted.policies[name], actual.policies.get(name, {}), prune=prune)
    if prune:
        steps += [Change(DELETE, GROUP, name, {}) for name in actual.groups if name not in wanted.groups]
        needed = wanted.templates.keys() | {fields["template"] for fields in wanted.groups.values()}
        steps += [Change(DELETE, TEMPLATE, name, {}) for name in actual.templates if name not in needed]
    return steps


def export(actual: Actual, names: Sequence[str], *, most: int | None) -> Json:
    """A document that declares these groups and their templates, as they are. `most` is the capacity that the operator allows."""
    groups = [actual.groups[name] for name in names]
    used = dict.fromkeys(actual.template_of(group) for group in groups)
    return {
        "templates": [{"name": name, **_plain(actual.templates[name].as_json(), {})} for name in used if name in actual.templates],
        "groups": [
            {
                "name": group.group_name,
                "template": actual.template_of(group),
                **_plain(group.as_json(), {**DEFAULTS, "max_capacity": most}),
                **_exported_policies(actual.policies.get(group.group_name, {})),
            }
            for group in groups
        ],
    }


def _exported_policies(policies: Mapping[str, Policy]) -> Json:
    rows = [{"name": name, **_plain(policy.as_json(), {})} for name, policy in policies.items()]
    return {"policies": rows} if rows else {}


def _plain(fields: Json, defaults: Mapping[str, Any]) -> Json:
    """The fields that say something."""
    empty: tuple[Any, ...] = (None, "", [], {})
    return {
        name: value
        for name, value in fields.items()
        if name not in _NOT_DECLARED and value not in empty and not (name in defaults and value == defaults[name])
    }


def _items(document: Json, kind: str) -> dict[str, Json]:
    """The objects of a kind by their names, without them."""
    rows = document.get(kind) or []
    if not isinstance(rows, list):
        raise Misconfigured(f"{kind} must be a list")
    found: dict[str, Json] = {}
    for row in rows:
        name = row.get("name") if isinstance(row, dict) else None
        if not isinstance(name, str):
            raise Misconfigured(f"each of the {kind} needs a name")
        if name in found:
            raise Misconfigured(f"{kind} has {name} more than once")
        found[name] = {key: value for key, value in row.items() if key != "name"}
    return found


def _policies(group: str, rows: object) -> dict[str, Json]:
    """The policies of a group by their names. YAML reads a bare `off` as false."""
    found = _items({f"policies of {group}": rows}, f"policies of {group}")
    return {name: fields | {"mode": "off"} if fields.get("mode") is False else fields for name, fields in found.items()}


def _template(fields: Json, image_id: Callable[[str], str]) -> Json:
    if "image" not in fields:
        return dict(fields)
    return {"image_id": image_id(str(fields["image"])), **{key: value for key, value in fields.items() if key != "image"}}


def _of_template(name: str, fields: Json, there: Template | None) -> list[Change]:
    if there is None:
        return [Change(CREATE, TEMPLATE, name, {"template_name": name, **fields})]
    shown = _different(fields, there.as_json())
    if shown:
        raise Misconfigured(f"the template {name} is another one ({'; '.join(shown)}), and a template never changes: give it another name")
    return []


def _of_group(name: str, fields: Json, actual: Actual) -> list[Change]:
    there = actual.groups.get(name)
    if there is None:
        said = (f"template {fields['template']}", f"capacity {fields.get('capacity', 0)}")
        return [Change(CREATE, GROUP, name, {"group_name": name, **fields}, said)]
    shown = _different(fields, there.as_json() | {"template": actual.template_of(there)})
    return [Change(UPDATE, GROUP, name, fields, shown)] if shown else []


def _of_policies(group: str, wanted: Mapping[str, Json], there: Mapping[str, Policy], *, prune: bool) -> list[Change]:
    steps = []
    for name, fields in wanted.items():
        body, called = {"policy_name": name, **fields}, f"{group}/{name}"
        if name not in there:
            steps.append(Change(CREATE, POLICY, called, body, (str(fields.get("kind")),)))
        elif shown := _different(fields, there[name].as_json()):
            steps.append(Change(UPDATE, POLICY, called, body, shown))
    return steps + [Change(DELETE, POLICY, f"{group}/{name}", {}) for name in there if prune and name not in wanted]


def _different(fields: Json, there: Json) -> tuple[str, ...]:
    """What a person reads of the fields that are not as declared."""
    return tuple(
        f"{name} {_shown(there.get(name))} -> {_shown(value)}" for name, value in fields.items() if not _is_in(value, there.get(name))
    )


def _is_in(declared: Any, there: Any) -> bool:
    """Is it what is declared? An object there may say more: the service's defaults."""
    if isinstance(declared, dict) and isinstance(there, dict):
        return all(_is_in(value, there.get(name)) for name, value in declared.items())
    if isinstance(declared, list) and isinstance(there, list):
        return len(declared) == len(there) and all(map(_is_in, declared, there))
    return bool(declared == there) and isinstance(declared, bool) == isinstance(there, bool)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
