"""`dev/screenshots`: the pictures of docs/console.md."""

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from playwright.sync_api import Browser, expect, sync_playwright

from dev.client import Tsg
from dev.processes import TOP, wait_or_fail
from dev.services import scratch
from dev.sim.cloudapi.catalog import DEFAULT_NETWORK, LARGE_PACKAGE
from dev.stack import Stack
from tsg_client.console.proxy import Upstream
from tsg_client.console.serve import serving
from tsg_client.keys import key
from tsg_client.signer import ByDate, Signer

FOLDER = TOP / "docs"
#: Pixels.
WIDTH, HEIGHT = 1280, 760
#: Seconds that anything may take.
PATIENCE = 180

GROUPS = {"api-gateway": 6, "mail-relay": 2, "postgres-replicas": 3, "search": 5, "web": 24, "workers-eu": 16, "workers-us": 12}


def main() -> int:
    program = shutil.which("chromium")
    if program is None:
        print("dev/screenshots: no chromium is installed (Debian: apt-get install chromium)", file=sys.stderr)
        return 1
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with scratch() as directory, Stack(directory, provision_seconds=1.0, durable=False) as stack, sync_playwright() as playwright:
        web = _fill(stack)
        signer = Signer(stack.account, key.read(stack.key_file.read_text()))
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        with serving(Upstream(stack.url, stack.account, ByDate(signer))) as address:
            _draw(browser, address, "", "groups", "light")
            _draw(browser, address, f"#/groups/{web}", "group", "dark")
        browser.close()
    return 0


def _fill(stack: Stack) -> str:
    """Groups with a past, one that can't grow and one in the middle of a rollout, whose id it is."""
    tsg = stack.client()
    common = {"networks": [DEFAULT_NETWORK], "tags": {"role": "web"}}
    old, new = tsg.make_template("web-41", **common), tsg.make_template("web-42", package=LARGE_PACKAGE, **common)
    made = {
        name: tsg.ok("POST", "/groups", {"group_name": name, "template_id": old, "capacity": capacity // 2}, status=201)
        for name, capacity in GROUPS.items()
    }
    _settle(tsg, made.values())
    for name, capacity in GROUPS.items():
        step = {"instance_count": capacity - capacity // 2, "max_instance": capacity}
        tsg.ok("PUT", f"/groups/{made[name]['id']}/increment", step, status=202)
    _settle(tsg, made.values())
    web = str(made["web"]["id"])
    rollout = {"template_id": new, "max_surge": "25%", "steps": [{"percent": 25, "pause": True}, {"percent": 100}]}
    tsg.ok("POST", f"/groups/{web}/rollouts", rollout, status=201)
    wait_or_fail("the rollout pauses", lambda: tsg.ok("GET", f"/groups/{web}/rollouts")[0]["state"] == "Paused", seconds=PATIENCE)
    newest = tsg.ok("GET", f"/groups/{web}/members")[-1]["machine_id"]
    tsg("PUT", f"/groups/{web}/members/{newest}/protection", {"protected": True}).raise_for_status()
    stack.knobs(refuse_next_creates=1000)
    search = f"/groups/{made['search']['id']}"
    tsg.ok("PUT", f"{search}/increment", {"instance_count": 4, "max_instance": 9}, status=202)
    wait_or_fail("CloudAPI has refused", lambda: bool(tsg.ok("GET", f"{search}/status")["last_error"]), seconds=PATIENCE)
    return web


def _settle(tsg: Tsg, groups: Iterable[Mapping[str, Any]]) -> None:
    for group in groups:
        path = f"/groups/{group['id']}/status?wait=30"
        wait_or_fail(f"{group['group_name']} is settled", lambda path=path: tsg.ok("GET", path)["settled"], seconds=PATIENCE)


def _draw(browser: Browser, address: str, place: str, name: str, theme: Literal["light", "dark"]) -> None:
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme, locale="en-GB")
    page = context.new_page()
    page.goto(address)
    if place:
        page.goto(address.partition("?")[0] + place)
        expect(page.locator(".cells button").first).to_be_visible(timeout=PATIENCE * 1000)
        page.locator(".track").scroll_into_view_if_needed()
        page.evaluate("scrollTo(0, 0)")
    expect(page.get_by_text("demo @").first).to_be_visible(timeout=PATIENCE * 1000)
    expect(page.locator(".rows .row, .timeline .entry").first).to_be_visible(timeout=PATIENCE * 1000)
    page.screenshot(path=FOLDER / f"console-{name}.png")
    context.close()


if __name__ == "__main__":
    sys.exit(main())
