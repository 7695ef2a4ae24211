"""Steps and readings that the tests of the dashboard share."""

import json
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, expect

ROOT = Path(__file__).parents[3]
TASKS = 44
MODALITIES = ("tabular", "series", "notes", "image")
# The views, each with a selector of its main content.
VIEWS = {
    "patient": ".predictions",
    "tim": "td[data-source]",
    "network": ".panel:visible",
    "model": ".dot-table",
}


def read_example(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "examples" / f"{name}.json").read_bytes())


def choose_example(page: Page, title: str = "Septic shock") -> None:
    """Selects an example and waits for its predictions."""
    page.locator(".payload-form").get_by_role("button", name=title).click()
    wait_for_predictions(page)


def paste(page: Page, body: str) -> None:
    """Pastes a payload and sends it."""
    page.get_by_label("Payload, as JSON").fill(body)
    page.get_by_role("button", name="Predict").click()


def upload(page: Page, body: bytes) -> None:
    file = {"name": "patient.json", "mimeType": "application/json", "buffer": body}
    page.locator("input[type=file]").set_input_files(file)


def open_task(page: Page, task: str) -> None:
    """Selects the prediction of a task, which shows its explanation."""
    page.locator(f".predictions tr[data-task={task}] button").click()


def wait_for_predictions(page: Page) -> None:
    expect(page.locator(".predictions tr[data-task]")).to_have_count(TASKS)


def wait_for_evidence(page: Page) -> None:
    expect(page.locator(".evidence tr[data-evidence]").first).to_be_visible()


def predict(url: str, payload: Any, **query: str) -> dict[str, Any]:
    """The answer of the service, without the page."""
    response = httpx.post(f"{url}/predict", json=payload, params=query, timeout=30)
    assert response.status_code == 200, response.text
    return response.json()


def read_numbers(page: Page, rows: str, attribute: str) -> dict[str, float]:
    """The exact number in the `data` element of each row, by an attribute of the row."""
    script = """([rows, attribute]) => [...document.querySelectorAll(rows)].map(
        row => [row.getAttribute(attribute), Number(row.querySelector("data")?.value)])"""
    return dict(page.evaluate(script, [rows, attribute]))
