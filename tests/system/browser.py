"""A real headless Chromium for tests: `with browser_page() as page`, Playwright's synchronous API."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, sync_playwright

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

    `page.screenshot(path=…)` takes a picture; Playwright's waits (`page.get_by_text(…).wait_for()`) have 60 s.
    """
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed: make services")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            context = chromium.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
            context.set_default_timeout(60_000)
            context.route("**/*", only_loopback)
            yield context.new_page()
        finally:
            chromium.close()


def only_loopback(route: Route) -> None:
    """Let pass what stays on this machine."""
    address = urlsplit(route.request.url)
    if address.hostname == "127.0.0.1" or address.scheme in ("data", "blob"):
        route.continue_()
    else:
        route.abort()
