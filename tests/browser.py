"""A real browser for the console's pages: one for all tests of a module, and what no page may ever do."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
#: Milliseconds that anything may take to come right.
PATIENCE = 60_000
#: What a browser itself says of answers that are no success, and of a connection that a test cuts.
_EXPECTED = re.compile(r"Failed to load resource: (the server responded with a status of (4\d\d|502)|net::ERR_INTERNET_DISCONNECTED)")

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Where none is installed the tests are skipped, but in CI they fail.

    No longer than a module: while Playwright runs, its event loop is the thread's, and no other test could run one.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        message = "no chromium is installed (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    # Chromium's own sandbox can't be had by root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


@contextmanager
def watched(browser: Browser, address: str, *, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """A page of its own at `address`. Fails for an error in a script, a refusal by the policy, a dialog, a request to another host."""
    context = browser.new_context(viewport={"width": width, "height": height}, locale="en-GB")
    context.set_default_timeout(PATIENCE)
    faults = _faults(context, urlsplit(address).netloc)
    page = context.new_page()
    page.goto(address)
    yield page
    context.close()
    assert faults == []


def _faults(context: BrowserContext, host: str) -> list[str]:
    faults: list[str] = []

    def says(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not _EXPECTED.match(message.text):
            faults.append(message.text)

    context.on("console", says)
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on("dialog", lambda dialog: faults.append(f"a dialog: {dialog.message}"))
    context.on("request", lambda request: None if urlsplit(request.url).netloc == host else faults.append(f"a request to {request.url}"))
    return faults
