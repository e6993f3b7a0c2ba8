"""A person's browser: headless Chromium."""

import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")
PATIENCE_MS = 30_000


@pytest.fixture
def page() -> Iterator[Page]:
    """Yields a page of a browser. Whatever it shows may ask this machine only, and no script of it may fail."""
    if CHROMIUM is None:
        pytest.skip("NOT RUN: there is no Chromium, so nobody looked at a page (on Debian: apt-get install chromium)")
    expect.set_options(timeout=PATIENCE_MS)
    asked: list[str] = []
    failed: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET], chromium_sandbox=False)
        page = browser.new_page(viewport={"width": 1400, "height": 1200})
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        yield page
        browser.close()
    assert {urlsplit(url).hostname for url in asked} <= {"127.0.0.1", None}
    assert failed == []
