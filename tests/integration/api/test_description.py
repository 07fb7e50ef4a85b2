"""The API's description of itself: it is all there is, it is true, and a stranger to the code finds nothing that breaks."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import falcon.inspect

from shared.cli import seed
from tests.integration.api.service import PAIR, Api, Caller
from tsg_api.schema.openapi import OPERATIONS

METHODS = {"GET", "POST", "PUT", "DELETE", "PATCH"}


def described(api: Api) -> dict[str, Any]:
    """As anybody gets it, without a signature."""
    answer = api.request("GET", "/v1/tsg/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_every_route_is_described_and_nothing_else(api: Api) -> None:
    routes = falcon.inspect.inspect_routes(api.app)
    served = {
        (method.method, route.path) for route in routes for method in route.methods if method.method in METHODS and not method.internal
    }
    told = {(method.upper(), path) for path, item in described(api)["paths"].items() for method in item if method.upper() in METHODS}
    assert told == served
    assert len(OPERATIONS) == len(told)


def test_every_reference_leads_somewhere(api: Api) -> None:
    text = api.request("GET", "/v1/tsg/openapi.json").text
    components = json.loads(text)["components"]
    led = [one.split("/") for one in re.findall(r'"\$ref": ?"#/components/([^"]+)"', text)]
    assert led
    assert [f"{kind}/{name}" for kind, name in led if name not in components[kind]] == []


def test_what_is_shown_has_the_fields_that_are_described(tsg: Caller) -> None:
    schemas = described(tsg.api)["components"]["schemas"]
    group = tsg.make_group(3)
    template = tsg.ok("GET", f"/templates/{group['template_id']}")
    wrong = tsg("POST", "/groups", {}).json()
    status = tsg.ok("GET", f"/groups/{group['id']}/status")
    (activity,) = tsg.ok("GET", f"/groups/{group['id']}/activities")
    for name, shown in (("Group", group), ("Status", status), ("Activity", activity), ("Error", wrong), ("Problem", wrong["errors"][0])):
        assert list(shown) == list(schemas[name]["properties"])
    assert list(template) == schemas["Template"]["required"], "of the fields that 2018 did not know it was given none"


def test_the_limits_described_are_those_of_the_settings(make_api: Callable[..., Api]) -> None:
    schemas = described(make_api(max_capacity=7))["components"]["schemas"]
    assert schemas["NewGroup"]["properties"]["capacity"]["maximum"] == 7
    assert schemas["Increment"]["properties"]["max_instance"]["maximum"] == 7
    assert schemas["NewGroup"]["required"] == ["group_name", "template_id"]


def test_defaults_are_described_as_they_are_on_the_wire(api: Api, tsg: Caller) -> None:
    group = tsg.make_group(1, update={"strategy": "rolling"})
    shown = described(api)["components"]["schemas"]["Group"]["properties"]["update"]["properties"]
    defaults = {field: one["default"] for field, one in shown.items() if "default" in one}
    assert defaults.pop("strategy") == "manual"
    assert defaults.items() <= group["update"].items()


def test_requests_are_signed_except_in_development_mode(api: Api, make_api: Callable[..., Api]) -> None:
    assert described(api)["security"] == [{"signature": []}]
    assert described(make_api(dev_mode=True))["security"] == []


def test_the_page_shows_all_of_it_and_takes_nothing_from_anywhere(api: Api) -> None:
    answer = api.request("GET", "/v1/tsg/docs")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert not re.search(r"<script|<link|<img|\bsrc=|https?://|@import|url\(|\bon[a-z]+=|\bstyle=", answer.text)
    for operation in OPERATIONS:
        assert f'id="{operation.name}"' in answer.text
        assert f"<code>{operation.path}</code>" in answer.text
    assert set(re.findall(r'href="#([^"]+)"', answer.text)) <= set(re.findall(r'id="([^"]+)"', answer.text))


def test_a_stranger_who_knows_the_description_alone_finds_nothing_wrong(make_api: Callable[..., Api], tmp_path: Path) -> None:
    """Right requests and wrong ones, made from the description; their answers must be those that it promises."""
    api = make_api(dev_mode=True, max_capacity=1000, threads=1)
    api.sim.cloud.add_account("joyent", [PAIR.public_line], uuid=seed.TRITON_UUID)

    api.db.transact(seed.account)
    material = api.sealer.seal(PAIR.private_pem, row=seed.KEY_ID)
    key = "UPDATE tsg_keys SET fingerprint = :fingerprint, material = :material, registered_at = now() WHERE id = :id"
    api.sql(key, fingerprint=PAIR.fingerprint, material=material, id=seed.KEY_ID)
    # Whether a right request is carried out depends on what is there: the template, the ETag.
    # A key that comes twice is refused mostly, so none is sent.
    told = described(api)
    for item in told["paths"].values():
        for operation in item.values():
            parameters = operation.get("parameters", []) if isinstance(operation, dict) else []
            parameters[:] = [one for one in parameters if not one["$ref"].endswith("/Idempotency-Key")]
    description = tmp_path / "openapi.json"
    description.write_text(json.dumps(told))
    checks = ["--checks=all", "--exclude-checks=positive_data_acceptance"]
    arguments = [
        *checks,
        "--phases=coverage,fuzzing,stateful",
        "--max-examples=5",
        "--seed=1",
        "--generation-database=none",
        "--no-color",
        "--suppress-health-check=all",
    ]
    command = [Path(sys.executable).parent / "st", "run", description, f"--url={api.url}", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert api.sql("SELECT count(*) FROM tsg_groups WHERE generation > 1")[0][0] > 0, "it came as far as changing groups"
