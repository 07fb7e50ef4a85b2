"""The console's pages in a real browser, against the real API; states of groups are written into the database, as a worker would."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE
from shared.reasons import Reason
from tests.browser import browser, watched
from tests.integration.api.service import Api, Caller, template_body
from tests.integration.api.test_console import upstream
from tests.integration.api.test_explain import instances, looked_at
from tsg_client.console.serve import serving

__all__ = ["browser"]

#: One process has the browser.
pytestmark = pytest.mark.xdist_group("browser")

HOSTILE = "<img src=x onerror=alert(1)>"

#: Opens a page of the account's console: `with opened("#/groups", width=360) as page`.
Open = Callable[..., AbstractContextManager[Page]]


@pytest.fixture
def opened(browser: Browser, tsg: Caller) -> Iterator[Open]:
    """Opens a page of the account's console."""
    with serving(upstream(tsg.api.url, tsg)) as address:
        base = address.partition("?")[0]

        @contextmanager
        def at(place: str = "", **size: int) -> Iterator[Page]:
            with watched(browser, address, **size) as page:
                if place:
                    page.goto(base + place)
                yield page

        yield at


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def named(tsg: Caller, name: str, capacity: int) -> dict[str, object]:
    body = {"group_name": name, "template_id": tsg.make_template(), "capacity": capacity}
    made: dict[str, object] = tsg.ok("POST", "/groups", body)
    return made


def test_groups_are_listed_with_their_states_and_found(api: Api, tsg: Caller, opened: Open) -> None:
    web, jobs, relay = named(tsg, "web", 4), named(tsg, "jobs", 2), named(tsg, "relay", 1)
    instances(api, web, "running", "running", "running", "provisioning")
    looked_at(api, web, Reason.PROVISIONING)
    instances(api, jobs, "running", "running")
    looked_at(api, jobs, Reason.SETTLED)
    looked_at(api, relay, Reason.QUOTA_EXCEEDED, error="Quota exceeded; to have your limits raised please contact Support")
    with opened() as page:
        expect(row(page, "web")).to_contain_text("3 / 4")
        expect(row(page, "web")).to_contain_text("Launching")
        expect(row(page, "jobs")).to_contain_text("Settled")
        expect(row(page, "relay")).to_contain_text("Quota exceeded; to have your limits raised")
        page.get_by_role("button", name="Need a change 1").click()
        expect(page.get_by_role("link", name="relay")).to_be_visible()
        expect(page.get_by_role("link", name="web")).to_have_count(0)
        page.get_by_role("button", name="All 3").click()
        page.keyboard.press("/")
        page.keyboard.type("quota")
        expect(page.locator(".rows .row")).to_have_count(1)
        page.get_by_role("searchbox").fill("nothing like it")
        page.get_by_role("button", name="Show all").click()
        page.get_by_role("button", name="State").click()
        expect(page.locator(".rows .name").first).to_have_text("relay")
        page.get_by_role("link", name="web").click()
        expect(page.get_by_role("heading", name="web", exact=True)).to_be_visible()


def test_five_thousand_groups_are_a_few_rows_at_a_time(api: Api, tsg: Caller, opened: Open) -> None:
    template, owner = tsg.make_template(), tsg.id
    api.sql(
        "WITH made AS (INSERT INTO tsg_groups (name, template_id, account_id, capacity, created_at, updated_at, archived, by_name)"
        " SELECT 'group-' || lpad(n::text, 4, '0'), :template, :owner, 0, now(), now(), false, false FROM generate_series(1, 5000) n"
        " RETURNING id) INSERT INTO tsg_group_state (group_id, account_id) SELECT id, :owner FROM made",
        template=template,
        owner=owner,
    )
    with opened() as page:
        expect(page.locator(".title .count")).to_have_text("5,000")
        expect(page.get_by_role("table", name="Groups")).to_have_attribute("aria-rowcount", "5001")
        assert page.locator(".rows .row").count() < 60
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(page.get_by_role("link", name="group-5000")).to_be_visible()
        assert page.locator(".rows .row").count() < 60
        depth = page.evaluate("scrollY")
        page.get_by_role("link", name="group-4998").click()
        expect(page.get_by_role("heading", name="group-4998", exact=True)).to_be_visible()
        page.go_back()
        expect(page.get_by_role("link", name="group-4998")).to_be_in_viewport()
        assert page.evaluate("scrollY") == depth
        page.get_by_role("searchbox").fill("group-2345")
        expect(page.locator(".rows .row")).to_have_count(1)


def test_text_is_never_html(api: Api, tsg: Caller, opened: Open) -> None:
    """Whatever comes from people or clouds is shown as it is. The page's own watch fails for a dialog, and for what the policy refuses."""
    body = template_body(template_name=HOSTILE, userdata="javascript:alert(1)", tags={HOSTILE: HOSTILE})
    template = tsg.ok("POST", "/templates", body)["id"]
    group = tsg.ok("POST", "/groups", {"group_name": "hostile", "template_id": template, "capacity": 1})
    looked_at(api, group, Reason.TEMPLATE_REJECTED, error=f"{HOSTILE}</script><script>alert(2)</script>")
    api.sql("UPDATE tsg_groups SET name = :name WHERE id = :id", name=HOSTILE, id=group["id"])
    api.sql(
        "UPDATE tsg_activities SET description = :text || :turned, cause = :text, actor = :text, request_id = 'javascript:alert(3)'"
        " WHERE group_id = :id",
        text=HOSTILE,
        turned="\u202eTUP yb",
        id=group["id"],
    )
    with opened() as page:
        expect(page.locator(".rows .name")).to_have_text(HOSTILE)
        page.locator(".rows .name").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
        expect(page.locator(".trouble")).to_contain_text("</script>")
        expect(page.locator(".timeline")).to_contain_text(f"by {HOSTILE}")
        expect(page.locator(".timeline")).to_contain_text("\ufffdTUP yb")
        page.get_by_role("link", name="Templates").click()
        page.get_by_role("button", name=HOSTILE, exact=True).click()
        expect(page.get_by_role("dialog")).to_contain_text("javascript:alert(1)")
        assert page.locator("img, a[href^=javascript]").count() == 0


def test_a_template_and_a_group_are_made_by_forms(tsg: Caller, opened: Open) -> None:
    with opened("#/templates") as page:
        page.get_by_role("button", name="New template").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name", exact=True).fill("web-1")
        dialog.get_by_label("Package").fill(DEFAULT_PACKAGE)
        dialog.get_by_label("Image", exact=True).fill("no image")
        dialog.get_by_role("button", name="Create template").click()
        expect(dialog.get_by_label("Image", exact=True)).to_have_attribute("aria-invalid", "true")
        dialog.get_by_label("Image", exact=True).fill(DEFAULT_IMAGE)
        dialog.get_by_role("button", name="Add a pair").first.click()
        dialog.get_by_label("Name", exact=True).last.fill("role")
        dialog.get_by_label("Value").fill("web")
        dialog.get_by_role("button", name="Create template").click()
        expect(page.get_by_role("button", name="web-1", exact=True)).to_be_visible()
        (template,) = tsg.ok("GET", "/templates")
        assert (template["template_name"], template["package"], template["tags"]) == ("web-1", DEFAULT_PACKAGE, {"role": "web"})

        page.get_by_role("link", name="Groups", exact=True).click()
        page.get_by_role("button", name="New group").first.click()
        dialog.get_by_label("Name").fill("web")
        dialog.get_by_label("Capacity", exact=True).fill("101")
        dialog.get_by_role("button", name="Create group").click()
        expect(dialog.locator(".error").filter(has_text="100")).to_be_visible()
        dialog.get_by_label("Capacity", exact=True).fill("2")
        dialog.get_by_role("button", name="Create group").click()
        expect(page.get_by_role("heading", name="web", exact=True)).to_be_visible()
        (group,) = tsg.ok("GET", "/groups")
        assert (group["group_name"], group["capacity"], group["template_id"]) == ("web", 2, template["id"])


def test_what_the_service_finds_wrong_is_said_beside_the_field(tsg: Caller, opened: Open) -> None:
    with opened("#/templates") as page:
        page.get_by_role("button", name="New template").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name", exact=True).fill("web-1")
        dialog.get_by_label("Package").fill("no such package")
        dialog.get_by_label("Image", exact=True).fill(DEFAULT_IMAGE)
        # Allowed by the description, refused by CloudAPI itself.
        dialog.get_by_label("Package").fill("no-such-package")
        dialog.get_by_label("Ask CloudAPI first").check()
        dialog.get_by_role("button", name="Create template").click()
        expect(dialog.get_by_label("Package")).to_have_attribute("aria-invalid", "true")
        expect(dialog.locator(".field", has=page.get_by_label("Package")).locator(".error")).not_to_be_empty()
        assert tsg.ok("GET", "/templates") == []


def test_a_change_by_somebody_else_is_told_and_not_overwritten(tsg: Caller, opened: Open) -> None:
    group = tsg.make_group(3)
    with opened(f"#/groups/{group['id']}") as page:
        page.get_by_label("Wanted capacity").fill("5")
        page.get_by_role("button", name="Scale", exact=True).click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("button", name="Scale", exact=True)).to_be_enabled()
        tsg.ok("PUT", f"/groups/{group['id']}/increment", {"instance_count": 6, "max_instance": 100})
        dialog.get_by_role("button", name="Scale", exact=True).click()
        expect(dialog.get_by_role("alert")).to_contain_text(re.compile(rf"{tsg.login}, .*: capacity 3 -> 9 by increment"))
        assert tsg.ok("GET", f"/groups/{group['id']}")["capacity"] == 9
        dialog.get_by_role("button", name="Scale", exact=True).click()
        expect(dialog).to_have_count(0)
        assert tsg.ok("GET", f"/groups/{group['id']}")["capacity"] == 5
        expect(page.locator(".timeline")).to_contain_text("capacity 9 → 5 by PUT")


def test_a_template_is_changed_and_a_group_deleted(tsg: Caller, opened: Open) -> None:
    group, other = tsg.make_group(3), tsg.make_template(tags={"role": "other"})
    with opened(f"#/groups/{group['id']}") as page:
        page.get_by_role("button", name="Change template").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("New template").select_option(other)
        expect(dialog.get_by_role("table")).to_contain_text('{"role":"other"}')
        dialog.get_by_role("button", name="Change template").click()
        expect(dialog).to_have_count(0)
        changed = tsg.ok("GET", f"/groups/{group['id']}")
        assert (changed["template_id"], changed["capacity"]) == (other, 3)
        page.get_by_role("button", name="More actions").click()
        page.get_by_role("menuitem", name="Delete group").click()
        expect(dialog.get_by_role("button", name="Delete group")).to_be_disabled()
        dialog.get_by_label("Write its name").fill(group["group_name"])
        dialog.get_by_role("button", name="Delete group").click()
        expect(page.get_by_role("heading", name="Groups", exact=True)).to_be_visible()
        assert tsg("GET", f"/groups/{group['id']}").status_code == 404


def test_a_page_lives_and_says_when_the_connection_is_lost(api: Api, tsg: Caller, opened: Open) -> None:
    group = tsg.make_group(2)
    looked_at(api, group, Reason.PROVISIONING)
    with opened(f"#/groups/{group['id']}") as page:
        expect(page.locator(".big")).to_have_text("0 of 2 running")
        instances(api, group, "running")
        expect(page.locator(".big")).to_have_text("1 of 2 running")
        page.context.set_offline(True)
        expect(page.locator("#lost")).to_contain_text("The connection is lost.")
        instances(api, group, "running")
        looked_at(api, group, Reason.SETTLED)
        page.context.set_offline(False)
        expect(page.locator("#lost")).to_be_hidden()
        expect(page.locator(".big")).to_have_text("2 of 2 running")
        expect(page.locator(".title .pill")).to_have_text("Settled")


def test_a_browser_without_the_token_sees_nothing(tsg: Caller, browser: Browser) -> None:
    tsg.make_group(1)
    with serving(upstream(tsg.api.url, tsg)) as address, watched(browser, address.partition("?")[0]) as page:
        expect(page.get_by_role("alert")).to_contain_text("Open the address that tsg console printed")
        expect(page.get_by_role("heading")).to_have_count(0)


@pytest.mark.parametrize("width", [360, 1440])
def test_no_page_is_wider_than_the_screen(api: Api, tsg: Caller, opened: Open, width: int) -> None:
    group = named(tsg, "a-name-of-a-group-that-is-as-long-as-it-may-be-" + "x" * 130, 40)
    instances(api, group, *["running"] * 40)
    looked_at(api, group, Reason.TEMPLATE_REJECTED, error="E" * 300)
    with opened(width=width, height=800) as page:
        for place, there in (
            ("#/groups", ".rows .row"),
            (f"#/groups/{group['id']}", ".timeline .entry"),
            ("#/templates", "table tbody tr"),
        ):
            page.evaluate("place => { location.hash = place }", place)
            expect(page.locator(there).first).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, place


def test_the_keyboard_is_enough(tsg: Caller, opened: Open) -> None:
    group = named(tsg, "web", 2)
    with opened() as page:
        expect(page.get_by_role("link", name="web")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.get_by_role("link", name="web").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="web", exact=True)).to_be_visible()
        expect(page.locator("main")).to_be_focused()
        expect(page.get_by_label("Wanted capacity")).to_have_value("2")
        page.get_by_role("button", name="One more").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        expect(page.get_by_role("dialog").get_by_label("Capacity", exact=True)).to_be_focused()
        expect(page.get_by_role("dialog").get_by_role("button", name="Scale", exact=True)).to_be_enabled()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("button", name="Scale", exact=True)).to_be_focused()
        assert tsg.ok("GET", f"/groups/{group['id']}")["capacity"] == 3


def test_a_policy_is_looked_at_before_it_is_made(tsg: Caller, opened: Open) -> None:
    group = tsg.make_group(1)
    with opened(f"#/groups/{group['id']}") as page:
        page.get_by_role("button", name="New policy").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name", exact=True).fill("mornings")
        dialog.get_by_label("Cron").fill("0 8 * * mon-fri")
        dialog.get_by_label("Capacity", exact=False).first.fill("5")
        dialog.get_by_role("button", name="Preview").click()
        expect(dialog.get_by_text("Its next times")).to_be_visible()
        dialog.get_by_role("button", name="Create policy").click()
        expect(page.get_by_role("region", name="Policies")).to_contain_text("capacity 5 at 0 8 * * mon-fri")
        (policy,) = tsg.ok("GET", f"/groups/{group['id']}/policies")
        assert (policy["policy_name"], policy["kind"], policy["set"]["capacity"]) == ("mornings", "schedule", 5)


def test_a_notification_shows_its_secret_once(tsg: Caller, opened: Open) -> None:
    with opened("#/notifications") as page:
        page.get_by_role("button", name="New notification").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Address").fill("https://example.com/hook")
        dialog.get_by_role("button", name="Create notification").click()
        expect(dialog.get_by_label("Secret", exact=True)).to_have_value(re.compile("whsec_.+"))
        dialog.get_by_role("button", name="Close").last.click()
        expect(page.get_by_role("cell", name="https://example.com/hook", exact=True)).to_be_visible()
        page.get_by_role("button", name="Actions for").click()
        page.get_by_role("menuitem", name="Delete").click()
        dialog.get_by_role("button", name="Delete", exact=True).click()
        expect(page.get_by_text("No notifications")).to_be_visible()
        assert tsg.ok("GET", "/notifications") == []
