"""Random templates, made of the definitions of the fields: posted, read back equal, launched, and the machine is what was asked for.

`TSG_RANDOM_TEMPLATES=1000` makes so many.
"""

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dev.sim.cloudapi.catalog import (
    DEFAULT_IMAGE,
    DEFAULT_NETWORK,
    DEFAULT_PACKAGE,
    FABRIC_NETWORK,
    FLEXIBLE_PACKAGE,
    HVM_IMAGE,
    LX_IMAGE,
    PRIVATE_NETWORK,
    Volume,
)
from dev.sim.cloudapi.machine import Machine
from shared.clients.access import Timeouts
from shared.clients.cloudapi import CloudAPI
from shared.reasons import Reason
from shared.spec.fields import FIELDS, Field
from shared.spec.spec import Spec, hard_rules
from tests.integration.api.service import Api, Caller
from tests.integration.conftest import LIMITS
from tsg_api.schema import openapi
from tsg_workers.reconcilers.groups import GroupReconciler, Pace
from tsg_workers.runner import Runner

MANY = int(os.environ.get("TSG_RANDOM_TEMPLATES", "25"))
SCHEMAS = openapi.document(max_capacity=100, signed=False)["components"]["schemas"]["NewTemplate"]["properties"]

#: What exists in the simulated cloud: zones, and virtual machines.
PLACES: dict[str, Any] = {"networks": st.lists(st.sampled_from([DEFAULT_NETWORK, PRIVATE_NETWORK, FABRIC_NETWORK]), unique=True)}
ZONES = {
    "package": st.sampled_from([DEFAULT_PACKAGE, DEFAULT_PACKAGE.upper(), "sim-large"]),
    "image_id": st.sampled_from([DEFAULT_IMAGE, LX_IMAGE]),
}
VIRTUAL = {"package": st.sampled_from([FLEXIBLE_PACKAGE, "sim-flexible"]), "image_id": st.sampled_from([HVM_IMAGE, HVM_IMAGE.upper()])}
#: What only one of the two can have.
OF_ZONES, OF_VIRTUAL = {"volumes", "delegate_dataset"}, {"disks", "brand"}

NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "integer": st.integers(1, 1_000),
    "number": st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False, width=32),
}
DISKS = ([{}], [{}, {"size": 5}, {"size": "remaining"}], [{"size": 20_000}, {"size": 9, "block_size": 512}])

_names = itertools.count(1)


def values(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a JSON Schema, as far as the fields use it."""
    if "enum" in schema:
        return st.sampled_from([one for one in schema["enum"] if one is not None])
    if "const" in schema:
        return st.just(schema["const"])
    if "anyOf" in schema:
        return st.one_of(*map(values, schema["anyOf"]))
    kinds = schema["type"]
    return st.one_of(*(_of_kind(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind != "null"))


def _of_kind(kind: str, schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    if kind in NUMBERS:
        return NUMBERS[kind]
    if kind == "array":
        return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=min(5, schema.get("maxItems", 5)))
    if kind == "object" and "properties" in schema:
        known = {name: values(one) for name, one in schema["properties"].items()}
        required = {name: known.pop(name) for name in schema.get("required", ())}
        return st.fixed_dictionaries(required, optional=known)
    if kind == "object":
        return st.dictionaries(values({"type": "string", **schema["propertyNames"]}), values(schema["additionalProperties"]), max_size=5)
    texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
    return st.from_regex(schema["pattern"], fullmatch=True) if "pattern" in schema and "\\u0000" not in schema["pattern"] else texts


def of_field(field: Field) -> st.SearchStrategy[Any]:
    """Values that the field takes."""

    def is_right(value: Any) -> bool:
        try:
            field.adapter.validate_python(value, strict=True)
        except ValidationError:
            return False
        return "\n" not in str(value) or field.name in {"userdata", "user_script", "cloud_config", "metadata", "tags"}

    return st.sampled_from(list(field.examples)) | values(SCHEMAS[field.name]).filter(is_right)


@st.composite
def templates(draw: st.DrawFn) -> dict[str, Any]:
    is_virtual = draw(st.booleans())
    there = {**PLACES, **(VIRTUAL if is_virtual else ZONES)}
    body: dict[str, Any] = {"template_name": f"template-{next(_names)}"}
    for field in FIELDS:
        if field.name in (OF_ZONES if is_virtual else OF_VIRTUAL) or not (field.is_required or draw(st.booleans())):
            continue
        body[field.name] = draw(there[field.name] if field.name in there else of_field(field))
    if draw(st.booleans()) and "networks" in body:
        body["networks"] = [{"ipv4_uuid": one} for one in body["networks"]]
    # What does not go together is refused, which other tests see to.
    if body.get("brand") == "kvm":
        del body["brand"]
    if "disks" in body:
        body["disks"] = draw(
            st.sampled_from([[{}], [{}, {"size": 5}, {"size": "remaining"}], [{"size": 20_000}, {"size": 9, "block_size": 512}]])
        )
    rules = body.get("affinity", [])
    is_hard = "~" not in (rules if isinstance(rules, str) else "".join(rules[:1]))
    if rules and body.get("spread") in ({"prefer"} if is_hard else {"require"}):
        del body["spread"]
    for name, key, others in (("user_script", "user-script", "metadata"), ("cloud_config", "cloud-init:user-data", "metadata")):
        if name in body:
            body.get(others, {}).pop(key, None)
    if "cns_services" in body:
        body.get("tags", {}).pop("triton.cns.services", None)
    return body


@pytest.fixture(scope="module")
def worker(api: Api) -> Iterator[Runner[Any]]:
    clouds = CloudAPI(api.sim.url, Timeouts(connect=5, read=30))
    pace = Pace(rate=10_000, burst=10_000, lease_seconds=30, limits=LIMITS)
    yield Runner(api.db, GroupReconciler(api.db, clouds, api.sealer, pace, owner="worker"), owner="worker")
    clouds.close()


@pytest.fixture(scope="module")
def owner(api: Api) -> Caller:
    return api.new_account()


@settings(max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(body=templates())
def test_a_random_template_becomes_the_machine_that_was_asked_for(owner: Caller, worker: Runner[Any], body: dict[str, Any]) -> None:
    made = owner.ok("POST", "/templates", body | {"template_name": f"t-{next(_names)}"})
    assert {name: made[name] for name in body if name != "template_name"} == {name: body[name] for name in body if name != "template_name"}
    assert owner.ok("GET", f"/templates/{made['id']}") == made
    cloud = owner.api.sim.cloud
    for volume in body.get("volumes", []):
        networks = (DEFAULT_NETWORK, PRIVATE_NETWORK, FABRIC_NETWORK)
        cloud.volumes[volume["name"]] = Volume(volume["name"], volume["name"], networks=networks, owners=(owner.triton.id,))
    group = owner.make_group(1, template_id=made["id"], group_name=f"Group_{next(_names)}")
    worker.run(owner.id)
    machines = [machine for machine in cloud.all_machines() if machine.tags.get("tsg.group") == group["id"]]
    event("launched" if machines else "no capacity")
    if machines:
        check(machines[0], body, group)
    else:
        status = owner.ok("GET", f"/groups/{group['id']}/status")
        rules = hard_rules(Spec("t", body))
        assert (status["reason"], all(rule in status["last_error"] for rule in rules)) == (Reason.NO_CAPACITY, True), status
        assert any(rule.startswith("affinity: ") for rule in rules)
    owner.ok("DELETE", f"/groups/{group['id']}")
    worker.run(owner.id)


def check(machine: Machine, body: dict[str, Any], group: dict[str, Any]) -> None:
    """The machine has what was asked for, and nothing else."""
    tags = {
        "triton.cmon.groups": group["id"],
        **body.get("tags", {}),
        "tsg.name": group["group_name"],
        "tsg.group": group["id"],
        "tsg.template": group["template_id"],
    }
    if body.get("cns_services"):
        tags["triton.cns.services"] = ",".join(body["cns_services"])
    assert machine.tags == tags | {"tsg.launch": machine.tags["tsg.launch"]}
    assert {name: type(value) for name, value in machine.tags.items() if name in body.get("tags", {})} == {
        name: type(value) for name, value in body.get("tags", {}).items()
    }
    metadata = dict(body.get("metadata", {}))
    for name, key in {"userdata": "user-data", "user_script": "user-script", "cloud_config": "cloud-init:user-data"}.items():
        if body.get(name):
            metadata[key] = body[name]
    assert {key: value for key, value in machine.metadata.items() if key != "root_authorized_keys"} == metadata
    assert body["package"].lower() in {machine.package.id, machine.package.name}
    assert machine.image.id == body["image_id"].lower()
    assert machine.firewall_enabled is body.get("firewall_enabled", False)
    if body.get("networks"):
        asked = [one["ipv4_uuid"] if isinstance(one, dict) else one for one in body["networks"]]
        assert [network.id for network in machine.networks] == asked
    assert machine.brand == body.get("brand", machine.brand)
    rules = body.get("affinity", [])
    operators = {"prefer": "!=~", "require": "!="}
    spread = [f"tsg.group{operators[body['spread']]}{group['id']}"] if body.get("spread") in operators else []
    assert machine.hidden_options.get("affinity", []) == [*([rules] if isinstance(rules, str) else rules), *spread]
    assert machine.hidden_options.get("volumes", []) == body.get("volumes", [])
    assert set(machine.hidden_options) <= {"affinity", "volumes"}
    for name in ("delegate_dataset", "encrypted"):
        assert machine.options.get(name, False) is body.get(name, False)
    if "disks" in body:
        assert len(machine.options["disks"]) == len(body["disks"])
        for disk, asked in zip(machine.options["disks"], body["disks"], strict=True):
            assert {name: disk[name] for name in asked if asked[name] != "remaining"} == {
                name: value for name, value in asked.items() if value != "remaining"
            }
    pattern = body.get("instance_name", "tsg-" + group["template_id"][:8] + "-{{shortId}}")
    name = pattern.replace("{{shortId}}", machine.id[:8])
    room = 63 - len(name.replace("{{group}}", ""))
    assert machine.name == name.replace("{{group}}", group["group_name"].lower().replace("_", "-")[:room].rstrip("-"))
