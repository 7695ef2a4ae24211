"""Promises of all views of the dashboard: accessibility, size, privacy; and the model view."""

import os
import re

import httpx
import pytest
from playwright.sync_api import expect

from model.cohorts import mimic_iv
from tests.support.servers.dashboard import (
    ROOT,
    VIEWS,
    choose_example,
    open_task,
    predict,
    read_example,
    upload,
    wait_for_evidence,
    wait_for_predictions,
)
from tests.support.servers.prometheus import scraped

TABLET_WIDTH = 820


def test_the_model_view_shows_the_evaluation_and_the_usage(open_page, url):
    predict(url, read_example("minimal"))
    page = open_page(view="model")
    model = httpx.get(f"{url}/model").json()
    auroc = model["evaluation"]["measured"]["models"]["m3h"]["auroc"]
    expect(page.locator("main")).to_contain_text(f"{auroc[0]:.3f}".lstrip("0"))
    expect(page.locator("main")).to_contain_text(model["digest"][:12])
    predictions = scraped(httpx.get(f"{url}/metrics").text, "m3h_predictions_total")
    expect(page.locator("main")).to_contain_text(f"{predictions:,.0f} prediction")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [*VIEWS, "tim/sepsis"])
def test_axe_finds_no_accessibility_violation(open_page, view, scheme):
    page = open_page(view=view, color_scheme=scheme)
    if view == "patient":
        choose_example(page)
        wait_for_evidence(page)
    page.evaluate((ROOT / "web/node_modules/axe-core/axe.min.js").read_text(encoding="utf-8"))
    violations = page.evaluate("axe.run().then(results => results.violations)")
    assert [(v["id"], v["impact"], v["nodes"][0]["html"][:200]) for v in violations] == []


@pytest.mark.parametrize("view", [*VIEWS, "tim/sepsis"])
def test_no_view_is_wider_than_a_tablet(open_page, view):
    viewport = {"width": TABLET_WIDTH, "height": 1180}
    page = open_page(view=view, viewport=viewport, has_touch=True)
    if view == "patient":
        choose_example(page)
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= TABLET_WIDTH


def test_an_explanation_can_be_reached_with_the_keyboard(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")  # the summary of the payload form
    page.keyboard.press("Tab")  # the first example
    page.keyboard.press("Enter")
    wait_for_predictions(page)
    page.locator(".predictions tr[data-task=pneumonia] button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_focused()
    expect(page.locator("#detail")).to_contain_text("Pneumonia")


def test_a_patient_prints_on_one_page(open_page, open_data):
    data = open_data("mimic-iv-demo-2.2", "mimic-iv-demo-meds-0.0.1")
    record = next(r for r in mimic_iv.read(data) if r.landmark_hours == 24)
    real = record.payload.model_dump_json(exclude_unset=True).encode()
    for body in (real, (ROOT / "examples/septic_shock.json").read_bytes()):
        page = open_page()
        upload(page, body)
        wait_for_predictions(page)
        wait_for_evidence(page)
        pdf = page.pdf(prefer_css_page_size=True)
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1


def test_patient_data_is_neither_logged_nor_stored_in_the_browser(open_page, logs):
    page = open_page()
    choose_example(page)
    stored = "[localStorage.length, sessionStorage.length, document.cookie]"
    assert page.evaluate(stored) == [0, 0, ""]
    (log,) = logs.iterdir()
    text = log.read_text(encoding="utf-8")
    assert '"route":"/predict"' in text
    for private in ("synthetic-00", "rigors", "Known COPD", "163.0"):
        assert private not in text


def test_each_view_renders_a_screenshot(open_page, tmp_path):
    """With `M3H_SCREENSHOTS=1` the pictures replace those of the README in `docs/img`."""
    folder = ROOT / "docs" / "img" if os.environ.get("M3H_SCREENSHOTS") else tmp_path
    folder.mkdir(exist_ok=True)
    for view, content in VIEWS.items():
        size = {"width": 1280, "height": 1480 if view == "tim" else 960}
        scheme = "dark" if view == "tim" else "light"
        page = open_page(view=view, color_scheme=scheme, viewport=size)
        if view == "patient":
            choose_example(page)
            open_task(page, "pneumonia")
            wait_for_evidence(page)
        expect(page.locator(content).first).to_be_visible()
        page.wait_for_timeout(200)  # later requests of the page are drawn
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=folder / f"{view}.png")
        assert (folder / f"{view}.png").stat().st_size > 10_000
