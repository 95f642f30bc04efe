"""The report as a person sees it, in headless Chromium: on a phone and a desk, light and dark."""

import pytest
from browser import browser_page
from report_material import make_report, make_run

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

# Luminance and contrast as WCAG 2.2 defines them, of each text's colour against the nearest background above it.
CONTRASTS = """() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
      .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (colour !== 'rgba(0, 0, 0, 0)') return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = {};
  for (const element of document.querySelectorAll('h1, h2, p, td, th, a, pre, figcaption, summary')) {
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found[element.tagName] = Math.min(found[element.tagName] ?? 99, ratio);
  }
  return found;
}"""
WIDTHS = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGRECIPE_CACHE", str(root / "cache"))
        return make_report(make_run(root)) / "report.html"


@pytest.fixture(scope="module")
def opened(report):
    """The page, all requests that it made, and all that its console told."""
    requests, told = [], []
    with browser_page(**PHONE) as page:
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.unroute_all()
        page.context.unroute_all()  # what is asked for is counted below, and no name resolves
        page.goto(report.as_uri())
        page.wait_for_load_state()
        yield page, requests, told


def test_nothing_is_asked_for_and_nothing_goes_wrong(opened, report):
    page, requests, told = opened
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
    assert told == []
    sizes = page.evaluate("() => [...document.images].map(one => one.complete ? one.naturalWidth : 0)")
    assert len(sizes) >= 5
    assert min(sizes) > 200


def test_the_page_does_not_scroll_sideways(opened):
    page, _, _ = opened
    page.evaluate("() => document.querySelectorAll('details').forEach(one => one.open = true)")
    for size in (PHONE, DESK):
        page.set_viewport_size(size)
        content, window = page.evaluate(WIDTHS)
        assert (content, window) == (size["width"], size["width"])
    page.set_viewport_size(PHONE)
    # What is wider scrolls by itself.
    boxes = page.evaluate(
        "() => [...document.querySelectorAll('.scroll')].map(one => one.scrollWidth - one.clientWidth)"
    )
    assert max(boxes) > 100
    smallest = page.evaluate(
        "() => Math.min(...[...document.querySelectorAll('p, td, th, pre')]"
        ".map(one => parseFloat(getComputedStyle(one).fontSize)))"
    )
    assert smallest >= 13


def test_light_and_dark_differ_and_can_be_read(opened):
    page, _, _ = opened
    backgrounds = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        backgrounds[scheme] = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        contrasts = page.evaluate(CONTRASTS)
        assert {"H1", "P", "TD", "TH", "A", "PRE"} <= contrasts.keys()
        assert min(contrasts.values()) >= 4.5, (scheme, contrasts)  # WCAG 2.2, 1.4.3
    assert backgrounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(25, 25, 25)"}
    # Pictures on white are turned dark with the page.
    assert "invert" in page.evaluate("() => getComputedStyle(document.images[0]).filter")


def test_links_lead_to_sections(opened):
    page, _, _ = opened
    page.get_by_role("link", name="Lineage", exact=True).click()
    assert page.url.endswith("#lineage")
    assert page.evaluate("() => document.getElementById('lineage') !== null")
    targets = page.evaluate(
        "() => [...document.querySelectorAll('nav a')].map(one => one.getAttribute('href').slice(1))"
    )
    assert len(targets) > 8
    assert page.evaluate("ids => ids.filter(id => !document.getElementById(id))", targets) == []
