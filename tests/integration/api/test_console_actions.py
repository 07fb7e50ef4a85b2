"""What a person has done by the console: each action, what is asked before it, and what is said when it is refused."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser import browser
from tests.integration.api.service import Api, Caller, make_member
from tests.integration.api.test_console_pages import Open, opened
from tests.integration.api.test_instances_api import launch
from tests.integration.api.test_rollouts_api import put, start

__all__ = ["browser", "opened"]

#: One process has the browser.
pytestmark = pytest.mark.xdist_group("browser")

GONE = re.compile("Open the address that tsg console printed")


def menu(page: Page | Locator, what: str, entry: str) -> None:
    page.get_by_role("button", name=what).first.click()
    page.get_by_role("menuitem", name=entry, exact=True).click()


def agree(page: Page, action: str) -> Locator:
    """Press the button of the dialog, which was not done before."""
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=action, exact=True).click()
    return dialog


def test_members_are_adopted_marked_replaced_removed_and_detached(
    api: Api, tsg: Caller, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tsg.make_group(3)
    for number in range(3):
        make_member(tsg, group, name=f"web-{number}")
    monkeypatch.setattr(api.sim.cloud.knobs, "provision_seconds", 3600.0)
    booting = launch(tsg)
    monkeypatch.setattr(api.sim.cloud.knobs, "provision_seconds", 0.0)
    running = launch(tsg)
    with opened(f"#/groups/{group['id']}?as=table") as page:
        table = page.locator(".members tbody tr")
        expect(table).to_have_count(3)
        page.get_by_role("button", name="Adopt").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Machine").fill(booting)
        agree(page, "Adopt")
        expect(dialog.locator(".error")).to_contain_text("only one that runs can be adopted")
        dialog.get_by_label("Machine").fill(running)
        agree(page, "Adopt")
        expect(dialog).to_have_count(0)
        expect(table).to_have_count(4)
        assert tsg.capacity(group) == 4

        member = page.get_by_role("row").filter(has_text=running)
        menu(member, "Actions for", "Detach")
        expect(agree(page, "Detach")).to_have_count(0)
        expect(table).to_have_count(3)
        assert tsg.capacity(group) == 3

        menu(page, "Actions for web-0", "Mark as unhealthy")
        dialog.get_by_role("button", name="Cancel").click()
        menu(page, "Actions for web-0", "Mark as unhealthy")
        expect(agree(page, "Mark as unhealthy")).to_have_count(0)
        expect(page.get_by_role("row").filter(has_text="web-0")).to_contain_text("Unhealthy")
        menu(page, "Actions for web-1", "Replace")
        expect(dialog.locator(".planned")).to_be_visible()
        expect(agree(page, "Replace")).to_have_count(0)
        menu(page, "Actions for web-2", "Remove")
        expect(agree(page, "Remove")).to_have_count(0)
        expect(page.locator(".big")).to_contain_text("of 2 running")
        assert tsg.capacity(group) == 2


def test_a_rollout_is_rolled_back_and_cancelled_and_a_second_one_is_refused(tsg: Caller, opened: Open) -> None:
    group, other = tsg.make_group(2), tsg.make_template()
    with opened(f"#/groups/{group['id']}") as page:
        page.get_by_role("button", name="Roll out").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Template").select_option(other)
        expect(dialog.get_by_role("button", name="Start rollout")).to_be_enabled()
        rollouts: list[dict[str, Any]] = []

        def outrun(route: Route) -> None:
            """Another one begins after the button was pressed: a page that hears of it before lets nobody press it."""
            if route.request.method == "POST" and not rollouts:
                rollouts.append(start(tsg, group, template_id=other))
            route.continue_()

        page.route(re.compile("/rollouts$"), outrun)
        agree(page, "Start rollout")
        # The group was changed meanwhile; and once more, with the other one under way.
        expect(dialog.get_by_role("alert").first).to_contain_text("The group was changed meanwhile.")
        (rollout,) = rollouts
        expect(dialog.locator(".plan")).to_contain_text(re.compile("rollout"))
        dialog.get_by_role("button", name="Cancel").click()

        card = page.get_by_role("region", name="Rollout", exact=True)
        card.get_by_role("button", name="Cancel").click()
        expect(dialog).to_contain_text("members stay as they are")
        put(tsg, rollout, "Successful")
        agree(page, "Cancel rollout")
        expect(dialog.get_by_role("alert")).to_contain_text(re.compile("ended|Successful|over"))
        dialog.get_by_role("button", name="Cancel", exact=True).click()
        card.get_by_role("button", name="Roll back").click()
        expect(agree(page, "Roll back")).to_have_count(0)
        expect(card.get_by_role("button", name="Cancel")).to_be_visible()
        card.get_by_role("button", name="Cancel").click()
        expect(agree(page, "Cancel rollout")).to_have_count(0)
        (newest, *_) = tsg.ok("GET", f"/groups/{group['id']}/rollouts")
        assert newest["state"] == "Cancelled"


def test_settings_are_stored_and_what_is_wrong_is_said_beside_them(tsg: Caller, opened: Open) -> None:
    group = tsg.make_group(1)
    with opened(f"#/groups/{group['id']}") as page:
        menu(page, "More actions", "Settings")
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Min capacity").fill("5")
        dialog.get_by_label("Max capacity").fill("3")
        agree_ = dialog.get_by_role("button", name="Save settings")
        expect(dialog.locator(".error").filter(has_text=re.compile("max_capacity|min_capacity")).first).to_be_visible()
        expect(agree_).to_be_disabled()
        dialog.get_by_label("Min capacity").fill("1")
        expect(agree_).to_be_enabled()
        page.context.set_offline(True)
        agree_.click()
        expect(dialog.get_by_role("alert")).to_contain_text("There was no answer.")
        page.context.set_offline(False)
        cookies = page.context.cookies()
        page.context.clear_cookies()
        agree_.click()
        expect(dialog.get_by_role("alert")).to_contain_text(GONE)
        page.context.add_cookies(cookies)  # type: ignore[arg-type]
        agree_.click()
        expect(dialog).to_have_count(0)
        stored = tsg.ok("GET", f"/groups/{group['id']}")
        assert (stored["min_capacity"], stored["max_capacity"]) == (1, 3)

        menu(page, "More actions", "Suspend")
        dialog.get_by_label("Replace").check()
        dialog.get_by_label("Reason").fill("the network is being mended")
        dialog.get_by_label("Until").fill("2099-12-24T18:00")
        expect(agree(page, "Suspend")).to_have_count(0)
        held = page.locator(".held")
        expect(held).to_contain_text(re.compile("Suspended: replace: the network is being mended. It ends in "))
        stored = tsg.ok("GET", f"/groups/{group['id']}")
        assert (stored["suspended"], stored["suspended_until"][:7]) == (["replace"], "2099-12")
        held.get_by_role("button", name="End suspension").click()
        expect(agree(page, "End suspension")).to_have_count(0)
        expect(held).to_be_hidden()
        ended = tsg.ok("GET", f"/groups/{group['id']}")
        assert (ended["suspended"], ended["suspend_reason"], ended["suspended_until"]) == ([], None, None)


def test_a_policys_address_is_made_anew_and_a_change_by_two_is_refused(tsg: Caller, opened: Open) -> None:
    group = tsg.make_group(1)
    made = tsg.ok("POST", f"/groups/{group['id']}/policies", {"policy_name": "hook", "kind": "webhook", "change": "+1"})
    where = f"/groups/{group['id']}/policies/{made['id']}"
    with opened(f"#/groups/{group['id']}") as page:
        dialog = page.get_by_role("dialog")
        menu(page, "Actions for hook", "New address")
        agree(page, "Make a new one")
        address = dialog.get_by_label("Address", exact=True)
        expect(address).to_have_value(re.compile("/v1/tsg/hooks/.+"))
        assert address.input_value() != made["webhook_url"]
        dialog.get_by_role("button", name="Close").last.click()
        menu(page, "Actions for hook", "Edit")
        dialog.get_by_label("Change", exact=True).fill("+2")
        tsg.ok("PUT", where, {"policy_name": "hook", "kind": "webhook", "change": "+3", "mode": "off"})
        agree(page, "Save policy")
        expect(dialog.get_by_role("alert")).to_contain_text(
            re.compile(rf"{tsg.login}, .*: Mode: active → off; Change: \+1 → \+3, request [0-9a-f-]+")
        )
        assert tsg.ok("GET", where)["change"] == "+3"
        expect(agree(page, "Save policy")).to_have_count(0)
        stored = tsg.ok("GET", where)
        assert (stored["change"], stored["mode"]) == ("+2", "off"), "what was changed here, and what somebody else changed besides"


def test_deliveries_are_sent_again_and_a_secret_is_made_anew(tsg: Caller, opened: Open) -> None:
    made: dict[str, Any] = tsg.ok("POST", "/notifications", {"url": "https://example.com/hook", "groups": ["*"], "kinds": ["*"]})
    group = tsg.make_group(1)
    tsg.api.sql(
        "UPDATE tsg_deliveries SET state = 'dead', attempts = 7, last_error = 'status 503', ended_at = now() WHERE group_id = :id",
        id=group["id"],
    )
    tsg.api.sql("UPDATE tsg_notifications SET failures = 7 WHERE id = :id", id=made["id"])
    with opened("#/notifications") as page:
        expect(page.get_by_role("row").last).to_contain_text("7 failures in a row")
        menu(page, "Actions for", "Deliveries")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Given up 7 attempts")
        dialog.get_by_role("button", name="Send again").first.click()
        expect(dialog).to_contain_text("Waiting")
        dialog.get_by_role("button", name="Close").last.click()
        menu(page, "Actions for", "New secret")
        agree(page, "Make a new one")
        expect(dialog.get_by_label("Secret", exact=True)).to_have_value(re.compile("whsec_.+"))
        dialog.get_by_role("button", name="Close").last.click()
        menu(page, "Actions for", "Edit")
        dialog.get_by_label("Address").fill("ftp://example.com")
        agree(page, "Save")
        expect(dialog.locator(".error").first).not_to_be_empty()
        dialog.get_by_label("Address").fill("https://example.com/other")
        tsg.ok("PUT", f"/notifications/{made['id']}", {"url": made["url"], "kinds": ["rollout.*"]})
        agree(page, "Save")
        expect(dialog.get_by_role("alert")).to_contain_text(re.compile(rf'{tsg.login}, .*: Kinds: \["\*"\] → \["rollout\.\*"\]'))
        expect(agree(page, "Save")).to_have_count(0)
        stored = tsg.ok("GET", f"/notifications/{made['id']}")
        assert (stored["url"], stored["kinds"]) == ("https://example.com/other", ["rollout.*"])


def test_what_is_shown_is_in_the_address_and_a_template_that_is_used_stays(tsg: Caller, opened: Open) -> None:
    template = tsg.make_template()
    for name in ("web", "mail", "jobs"):
        tsg.ok("POST", "/groups", {"group_name": name, "template_id": template, "capacity": 1})
    with opened("#/groups?find=mail&sort=age&down=1") as page:
        expect(page.locator(".rows .row")).to_have_count(1)
        expect(page.get_by_role("searchbox")).to_have_value("mail")
        expect(page.locator(".c-name .quiet")).to_have_text(tsg.ok("GET", f"/templates/{template}")["template_name"])
        page.get_by_role("searchbox").fill("")
        expect(page.locator(".rows .row")).to_have_count(3)
        page.get_by_role("button", name="Running").click()
        page.wait_for_url("**#/groups?sort=running")
        page.get_by_role("link", name="web").click()
        expect(page).to_have_title(re.compile("^web: 0 of 1, "))
        page.go_back()
        expect(page.locator("[aria-sort]")).to_have_text("Running")
        page.goto(f"{page.url.partition('#')[0]}#/templates?template={template}")
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("button", name="Copy the template's id")).to_be_visible()
        dialog.get_by_role("button", name="Close").last.click()
        menu(page, "Actions for", "Delete")
        agree(page, "Delete template")
        expect(dialog.get_by_role("alert")).to_contain_text(re.compile("group"))
