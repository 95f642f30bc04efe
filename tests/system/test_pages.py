"""A run's page as a person sees it, in a real browser. LONGRECIPE_PICTURES=docs/images keeps the pictures."""

import os
from pathlib import Path

import pytest
from browser import browser_page
from prefect_site import eventually


@pytest.fixture(scope="module")
def run(site, tmp_path_factory):
    """A run to its end."""
    identity = site.run(tmp_path_factory.mktemp("pages") / "store", "extend.steps=60", "extend.learning_rate=3e-3")
    site.wait_for_state(identity, "Completed", "Failed", "Crashed")
    assert site.state(identity) == "Completed", site.logs(identity)
    return identity


@pytest.fixture(scope="module")
def page():
    with browser_page(1280, 900) as page:
        yield page


def keep(page, name):
    if directory := os.environ.get("LONGRECIPE_PICTURES"):
        page.screenshot(path=Path(directory) / f"{name}.png")


def test_a_run_shows_its_stages_by_name_and_the_jobs_lines(site, run, page):
    page.goto(f"{site.server.ui}/runs/flow-run/{run}")
    page.get_by_text("interrupted · 40→128").first.wait_for()
    page.get_by_text("step 60/60 loss").first.wait_for()
    keep(page, "run-page")
    page.get_by_text("Task Runs", exact=True).first.click()
    page.get_by_text("extend · interrupted · 40→128").first.wait_for()


def test_cards_tell_what_was_made(site, run, page):
    page.goto(f"{site.server.ui}/runs/flow-run/{run}")
    page.get_by_text("Artifacts", exact=True).first.click()
    for card in ("stages", "data", "loss", "evaluation"):
        page.get_by_text(f"interrupted-{card}", exact=True).first.wait_for()
    show(site, run, page, "interrupted-stages")
    page.get_by_role("row").filter(has_text="extend").filter(has_text="ran").first.wait_for()
    keep(page, "cards")
    for card, words in (("loss", "loss over the steps"), ("evaluation", "mean NLL by position")):
        show(site, run, page, f"interrupted-{card}")
        picture = page.get_by_role("img", name=words)
        picture.wait_for()
        assert picture.evaluate("image => image.naturalWidth") > 300
        keep(page, card)


def test_a_training_shows_how_far_it_is(site, page, tmp_path):
    run = site.run(tmp_path / "store", "extend.steps=100000")
    key = "interrupted-extend-progress"
    eventually(lambda: key in site.artifacts(run), lambda: f"for progress\n{site.logs(run)}")
    show(site, run, page, key)
    page.get_by_text("of 100,000, loss").first.wait_for()
    keep(page, "progress")
    site.server.post(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    site.wait_for_state(run, "Cancelled")


def show(site, run, page, key):
    page.goto(f"{site.server.ui}/artifacts/artifact/{site.artifacts(run)[key]}")
