"""The console against the whole service: a group that grows, and a rollout watched to its end, in a real browser."""

import pytest
from playwright.sync_api import Browser, expect

from dev.processes import wait_for
from tests.browser import browser, watched
from tests.e2e.conftest import Service
from tsg_client.console.proxy import Upstream
from tsg_client.console.serve import serving
from tsg_client.keys import key
from tsg_client.signer import ByDate, Signer

__all__ = ["browser"]


@pytest.mark.stack("workers")
def test_a_group_is_scaled_and_rolled_out_before_ones_eyes(calm: Service, browser: Browser) -> None:
    group = calm.make_group(2)
    other = calm.make_template(package="8c1d52a4-3f0e-4b6c-a1d7-52e0b7c95102")
    signer = Signer(calm.stack.account, key.read(calm.stack.key_file.read_text()))
    with (
        serving(Upstream(calm.stack.url, calm.stack.account, ByDate(signer))) as address,
        watched(browser, address) as page,
    ):
        page.get_by_role("link", name=group["group_name"]).click()
        expect(page.locator(".title .pill")).to_have_text("Settled")
        expect(page.locator(".cells .running")).to_have_count(2)
        dialog = page.get_by_role("dialog")

        page.get_by_role("button", name="One more").click()
        page.get_by_role("button", name="Scale", exact=True).click()
        dialog.get_by_role("button", name="Scale", exact=True).click()
        expect(page.locator(".cells .running")).to_have_count(3)
        expect(page.locator(".timeline")).to_contain_text("capacity 2 → 3")

        page.locator(".cells button").first.click()
        page.get_by_role("button", name="Actions for").click()
        page.get_by_role("menuitem", name="Protect").click()
        dialog.get_by_label("Note").fill("it has the old cache")
        dialog.get_by_role("button", name="Protect").click()
        expect(page.locator(".cells .protected")).to_have_count(1)
        expect(page.locator(".timeline")).to_contain_text("it has the old cache")
        page.locator(".member").get_by_role("button", name="Actions for").click()
        page.get_by_role("menuitem", name="Unprotect").click()
        expect(page.locator(".cells .protected")).to_have_count(0)

        page.get_by_role("button", name="Roll out").click()
        dialog.get_by_label("Template").select_option(other)
        dialog.get_by_label("Steps").select_option(label="One in ten first, then wait for me")
        dialog.get_by_text("More settings").click()
        dialog.get_by_label("Bake seconds").fill("0")
        dialog.get_by_role("button", name="Start rollout").click()
        rollout = page.get_by_role("region", name="Rollout", exact=True)
        expect(rollout.locator(".pill").first).to_have_text("Paused")
        rollout.get_by_role("button", name="Resume").click()
        expect(rollout.locator(".pill").first).to_have_text("Successful")
        expect(page.locator(".cells .running")).to_have_count(3)

        calm.stack.processes["api"].kill()
        expect(page.locator("#lost")).to_contain_text("can't be reached")
        calm.stack.start_api()
        calm.resize(calm.tsg.ok("GET", f"/groups/{group['id']}"), 2)
        expect(page.locator(".cells .running")).to_have_count(2)
        expect(page.locator("#lost")).to_be_hidden()
        # The last one that was replaced may be on its way out.
        assert wait_for(lambda: {machine["tags"]["tsg.template"] for machine in calm.machines(group)} == {other}, seconds=60)
