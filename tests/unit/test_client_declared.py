"""What a file declares against what is there: the steps between the two, in an order that works, and none when there is no difference."""

from typing import Any

import pytest
import yaml

from tsg_client.declared import CREATE, DELETE, GROUP, TEMPLATE, UPDATE, Actual, Change, Declared, differences, export, read
from tsg_client.errors import Misconfigured
from tsg_client.models import Group, Template

AT = "2026-11-27T07:53:51.687142Z"
FILE = """
templates:
  - {name: web-1, image: base-64-lts@23.4.0, package: sim-small, tags: {role: web, canary: true}}
groups:
  - {name: web, template: web-1, capacity: 3, health_check: {type: http, port: 80}}
  - {name: api, template: {image_id: of-api, package: sim-small}, capacity: 1}
"""


def declared(text: str) -> Declared:
    return read(yaml.safe_load(text), lambda name: f"id of {name}")


def template(name: str, **fields: Any) -> Template:
    row = {"id": f"id-of-{name}", "template_name": name, "package": "sim-small", "image_id": "of-api", "created_at": AT, "networks": []}
    return Template.model_validate(row | fields)


def group(name: str, of: str, capacity: int, **fields: Any) -> Group:
    row = {"id": name, "group_name": name, "template_id": f"id-of-{of}", "capacity": capacity, "created_at": AT, "updated_at": AT}
    return Group.model_validate(row | fields)


def there(wanted: Declared, **check: Any) -> Actual:
    """All that FILE declares, as the service shows it: with what it adds."""
    api = wanted.groups["api"]["template"]
    web = template("web-1", image_id="id of base-64-lts@23.4.0", tags={"role": "web", "canary": True})
    probes = {"type": "http", "port": 80, "path": "/", "expect": [200, 399]} | check
    return Actual.of([web, template(api)], [group("web", "web-1", 3, health_check=probes), group("api", api, 1, health_check=None)])


def test_what_is_not_there_is_made_templates_first() -> None:
    wanted = declared(FILE)
    steps = differences(wanted, Actual({}, {}), prune=True)
    assert [(step.verb, step.kind) for step in steps] == [(CREATE, TEMPLATE)] * 2 + [(CREATE, GROUP)] * 2
    tags = {"role": "web", "canary": True}
    assert steps[0].fields == {"template_name": "web-1", "image_id": "id of base-64-lts@23.4.0", "package": "sim-small", "tags": tags}
    assert steps[2].shown == ("template web-1", "capacity 3")


def test_what_is_as_declared_is_left_alone() -> None:
    wanted = declared(FILE)
    assert differences(wanted, there(wanted), prune=True) == []


def test_what_differs_is_shown_and_changed() -> None:
    wanted = declared(FILE.replace("capacity: 3", "capacity: 5"))
    (step,) = differences(wanted, there(wanted, port=8080), prune=False)
    assert (step.verb, step.kind, step.name) == (UPDATE, GROUP, "web")
    assert step.shown[0] == "capacity 3 -> 5"
    assert step.shown[1].startswith('health_check {"type": "http", "port": 8080')
    true_for_one = declared("groups: [{name: web, template: web-1, n: true}]")
    actual = Actual.of([template("web-1")], [group("web", "web-1", 3, n=1)])
    assert [one.shown for one in differences(true_for_one, actual, prune=False)] == [("n 1 -> true",)]


def test_a_template_is_named_after_its_content() -> None:
    first, again = declared(FILE), declared(FILE.replace("image_id: of-api, package: sim-small", "package: sim-small, image_id: of-api"))
    assert first.groups["api"]["template"] == again.groups["api"]["template"]
    other = declared(FILE.replace("of-api", "of-tomorrow"))
    steps = differences(other, there(first), prune=False)
    assert [(step.verb, step.kind) for step in steps] == [(CREATE, TEMPLATE), (UPDATE, GROUP)]
    assert steps[1].shown[0] == f"template {first.groups['api']['template']} -> {other.groups['api']['template']}"


def test_what_is_not_declared_goes_when_it_is_asked_for_groups_first() -> None:
    wanted = declared("groups: [{name: web, template: web-1, capacity: 3}]")
    actual = Actual.of([template("web-1"), template("old")], [group("web", "web-1", 3), group("gone", "old", 2)])
    assert differences(wanted, actual, prune=False) == []
    assert differences(wanted, actual, prune=True) == [Change(DELETE, GROUP, "gone", {}), Change(DELETE, TEMPLATE, "old", {})]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "declares nothing"),
        ("[]", "declares nothing"),
        ("group: []", "the file has group: it may have templates and groups"),
        ("groups: {web: 1}", "groups must be a list"),
        ("groups: [{template: a}]", "each of the groups needs a name"),
        ("groups: [{name: a, template: b}, {name: a, template: b}]", "groups has a more than once"),
        ("groups: [{name: a}]", "the group a needs a template"),
    ],
)
def test_a_file_that_is_wrong_says_how(text: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        declared(text)


def test_where_no_step_leads_is_said() -> None:
    with pytest.raises(Misconfigured, match="names the template b, which is neither in the file nor there"):
        differences(declared("groups: [{name: a, template: b}]"), Actual({}, {}), prune=False)
    wanted = declared("templates: [{name: web-1, image_id: another, package: sim-small}]")
    with pytest.raises(Misconfigured, match=r"of-api -> another.*a template never changes: give it another name"):
        differences(wanted, Actual.of([template("web-1")], []), prune=False)


def test_what_is_exported_declares_what_is_there() -> None:
    wanted = declared(FILE)
    actual = there(wanted)
    text = yaml.safe_dump(export(actual, ["web", "api"], most=100), sort_keys=False)
    assert differences(declared(text), actual, prune=True) == []
    assert [one["name"] for one in yaml.safe_load(text)["groups"]] == ["web", "api"]
    assert [one["name"] for one in export(actual, ["web"], most=100)["templates"]] == ["web-1"]


def test_what_everybody_has_is_not_exported() -> None:
    plain = group("a", "b", 3, min_capacity=0, max_capacity=100, drain=None, update={"strategy": "manual"}, suspended=[], ready_seconds=5)
    actual = Actual.of([template("b")], [plain])
    assert export(actual, ["a"], most=100)["groups"] == [{"name": "a", "template": "b", "capacity": 3, "ready_seconds": 5}]
    assert export(actual, ["a"], most=50)["groups"][0]["max_capacity"] == 100
