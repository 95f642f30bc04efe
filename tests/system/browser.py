"""A real headless Chromium for tests: `with browser_page() as page`, Playwright's synchronous API."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Error, Page, Route, sync_playwright
from polling import PATIENCE

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--no-first-run",
    # No name but loopback's resolves, for web sockets, too, which routes don't see.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


@contextlib.contextmanager
def browser_page(width: int = 1440, height: int = 1000) -> Iterator[Page]:
    """An empty page of a fresh profile; requests to other hosts than 127.0.0.1 fail.

    `page.screenshot(path=…)` takes a picture; Playwright's waits (`page.get_by_text(…).wait_for()`) are patient.
    An error in the block tells what the page shows.
    """
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed: make services")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=PATIENCE * 1000)
        try:
            context = chromium.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
            context.set_default_timeout(PATIENCE * 1000)
            context.route("**/*", only_loopback)
            page = context.new_page()
            try:
                yield page
            except Exception as error:
                error.add_note(f"{page.url} shows:\n{visible_text(page)}")
                raise
        finally:
            chromium.close()


def visible_text(page: Page) -> str:
    """What a person reads on it."""
    try:
        return page.inner_text("body", timeout=10_000)
    except Error as error:
        return f"can't be read: {error.message}"


def only_loopback(route: Route) -> None:
    """Let pass what stays on this machine."""
    address = urlsplit(route.request.url)
    if address.hostname == "127.0.0.1" or address.scheme in ("data", "blob"):
        route.continue_()
    else:
        route.abort()
