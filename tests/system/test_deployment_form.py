"""The form of a deployment as a person sees it, in Chromium."""

import os
from pathlib import Path

from browser import browser_page
from prefect_servers import ROOT

# Where somebody wants a new picture, so that tests change no file: LONGRECIPE_SCREENSHOTS=docs/images.
SCREENSHOTS = os.environ.get("LONGRECIPE_SCREENSHOTS")


def test_groups_are_filled_in_and_the_file_gives_the_rest(site):
    deployment = site.server.get("/deployments/name/extend-context/extend-context")
    with browser_page(1280, 1380) as page:
        page.goto(f"{site.server.ui}/v2/deployments/deployment/{deployment['id']}/run")

        def field(text: str, kind: str):
            return page.get_by_text(text).locator(f"xpath=ancestor::div[.//{kind}][1]").locator(kind).first

        page.get_by_text("ContextSection", exact=True).click()
        target = field("the new context window", "input")
        target.fill("128")
        assert target.get_attribute("min") == "2"
        field("tokens per training sample; about 30 % of the target length (at least 2)", "input").fill("48")
        if SCREENSHOTS:
            page.evaluate("document.querySelectorAll('*').forEach(element => element.scrollTop = 0)")
            page.screenshot(path=ROOT / Path(SCREENSHOTS) / "form.png")
        field("file or fsspec URL of a recipe", "textarea").fill(str(site.recipe))

        # Defaults, choices and help of a group.
        page.get_by_text("PositionsSection", exact=True).click()
        chunks = field("pose: chunks per sample (at least 2)", "input")
        assert chunks.input_value() == "2"
        chunks.fill("3")
        page.get_by_label("Select strategy").click()
        page.get_by_role("option", name="pose", exact=True).click()

        # Not yet: the server would start it.
        page.get_by_text("Later", exact=True).click()
        with page.expect_response(lambda response: "create_flow_run" in response.url) as created:
            page.get_by_role("button", name="Submit", exact=True).click()
        assert created.value.status == 201, created.value.text()
        parameters = created.value.json()["parameters"]

    # What nobody has touched is null, so the file's own groups stand.
    assert parameters["recipe"] == str(site.recipe)
    assert parameters["context"] == {"target_length": 128, "train_length": 48, "window": None}
    assert (parameters["positions"]["strategy"], parameters["positions"]["chunks"]) == ("pose", 3)
    assert parameters["extend"] is None
    assert parameters["rope"] is None
