"""The patient view of the dashboard, in Chromium, against a service process."""

import json
import math
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.servers.dashboard import (
    MODALITIES,
    choose_example,
    open_task,
    paste,
    predict,
    read_example,
    read_numbers,
    upload,
    wait_for_evidence,
)


def headline(prediction: dict[str, Any]) -> float:
    """The number of a prediction that the table shows."""
    if "probabilities" in prediction:
        return max(prediction["probabilities"].values())
    return prediction.get("probability", prediction.get("value"))


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Septic shock", "septic_shock"),
        ("Heart failure", "heart_failure"),
        ("Vital signs only", "vitals_only"),
        ("Chest X-ray only", "chest_xray_only"),
        ("Age and sex only", "minimal"),
    ],
)
def test_the_page_shows_the_predictions_of_the_service(open_page, url, title, name):
    page = open_page()
    choose_example(page, title)
    predictions = predict(url, read_example(name), explain="full")["predictions"]
    shown = read_numbers(page, ".predictions tr[data-task]", "data-task")
    expected = {p["task"]: math.nan if "abstained" in p else headline(p) for p in predictions}
    assert shown == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    "task", ["pneumonia", "sepsis", "length_of_stay", "chronic_kidney_disease"]
)
def test_the_page_shows_the_explanation_of_the_service(open_page, url, task):
    page = open_page()
    choose_example(page)
    open_task(page, task)
    wait_for_evidence(page)
    payload = read_example("septic_shock")
    explanation = predict(url, payload, explain="full", task=task)["explanation"]

    contributions = {
        row.get_attribute("data-modality"): float(row.get_attribute("data-contribution"))
        for row in page.locator(".waterfall tr[data-modality]").all()
    }
    assert contributions == {m: explanation["modalities"][task][m] for m in MODALITIES}

    evidence = explanation["variables"][0]["because"]
    assert read_numbers(page, ".evidence tr[data-evidence]", "data-evidence") == {
        part["name"]: part["contribution"] for part in evidence
    }

    attention = explanation["attention"]
    weights = attention["weights"][attention["tasks"].index(task)]
    rows = page.locator("tr[data-attended]").all()
    attended = {row.get_attribute("data-attended") for row in rows}
    largest = sorted(range(len(weights)), key=lambda i: -weights[i])
    assert attended >= {attention["tasks"][i] for i in largest[:5]}
    assert page.locator("#detail").evaluate("element => element === document.activeElement")


def test_each_class_has_its_own_contributions(open_page, url):
    page = open_page()
    choose_example(page)
    open_task(page, "discharge_disposition")
    explanation = predict(url, read_example("septic_shock"))["explanation"]
    for name, contributions in explanation["modalities"]["discharge_disposition"].items():
        page.locator("#detail select").select_option(name)
        row = page.locator(".waterfall tr[data-modality=series]")
        assert float(row.get_attribute("data-contribution")) == contributions["series"]


def test_the_page_highlights_the_tasks_that_the_service_explains(open_page, url):
    page = open_page()
    choose_example(page)
    answer = predict(url, read_example("septic_shock"), explain="full")
    display = {p["task"]: p["display"] for p in answer["predictions"]}
    explained = [display[entry["task"]] for entry in answer["explanation"]["variables"]]
    assert page.locator(".highlight-name").all_text_contents() == explained


def test_a_payload_can_be_dropped(open_page):
    page = open_page()
    drop = """([selector, text]) => {
        const data = new DataTransfer();
        data.items.add(new File([text], "patient.json", {type: "application/json"}));
        document.querySelector(selector).dispatchEvent(
            new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    page.evaluate(drop, [".payload-form", json.dumps(read_example("heart_failure"))])
    expect(page.locator("h1")).to_contain_text("synthetic-002")


def test_a_payload_can_be_pasted(open_page):
    page = open_page()
    paste(page, json.dumps(read_example("heart_failure")))
    expect(page.locator("h1")).to_contain_text("synthetic-002")


def test_a_payload_can_be_uploaded(open_page):
    page = open_page()
    upload(page, json.dumps(read_example("heart_failure")).encode())
    expect(page.locator("h1")).to_contain_text("synthetic-002")


@pytest.mark.parametrize(
    ("body", "status", "explanation"),
    [
        ('{"as_of": "today", "tabular": {"age": "Jane"}}', 422, "/tabular/age"),
        ("{not json", 400, "JSON"),
    ],
)
def test_an_invalid_payload_is_explained_and_stays_in_the_form(
    open_page, body, status, explanation
):
    page = open_page(expected_status=status)
    paste(page, body)
    expect(page.get_by_role("alert")).to_contain_text(explanation)
    expect(page.get_by_role("alert")).not_to_contain_text("Jane")
    expect(page.get_by_label("Payload, as JSON")).to_have_value(body)
    expect(page.locator(".predictions")).to_have_count(0)


def test_an_invalid_payload_removes_the_predictions_of_the_previous_patient(open_page):
    page = open_page(expected_status=422)
    choose_example(page)
    page.locator(".payload-form summary").click()
    paste(page, "{}")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.locator(".predictions")).to_have_count(0)


def test_a_changed_vital_sign_shows_the_largest_changes(open_page, url):
    page = open_page()
    choose_example(page, "Vital signs only")
    panel = page.locator(".what-if")
    panel.locator("select").select_option(label="Heart rate")
    panel.locator("input[type=range]").fill("150")
    expect(panel.locator("tr[data-changed]").first).to_be_visible()

    payload = read_example("vitals_only")
    before = {p["task"]: p for p in predict(url, payload)["predictions"]}
    payload["series"][0]["values"][-1] = 150
    after = {p["task"]: p for p in predict(url, payload)["predictions"]}
    shown = read_numbers(page, "tr[data-changed]", "data-changed")
    assert shown == {task: pytest.approx(after[task]["probability"], abs=1e-9) for task in shown}

    def change(task: str) -> float:
        return abs(after[task]["probability"] - before[task]["probability"])

    binary = [task for task, prediction in before.items() if "probability" in prediction]
    assert set(shown) == set(sorted(binary, key=change)[-len(shown) :])
    panel.get_by_role("button", name="Reset to").click()
    expect(panel.locator("tr[data-changed]")).to_have_count(0)


def test_passages_with_a_contribution_are_marked_in_the_note(open_page, url):
    page = open_page()
    # Offsets count characters. Each of these emoji is one character and two UTF-16 units.
    text = "🫁🫁 Known COPD on home oxygen. Family informed."
    as_of = "2026-11-23T10:00:00Z"
    payload = {"as_of": as_of, "notes": [{"kind": "admission", "time": as_of, "text": text}]}
    paste(page, json.dumps(payload))
    open_task(page, "copd")
    expect(page.locator(".notes mark").first).to_be_visible()
    explanation = predict(url, payload, explain="full", task="copd")["explanation"]
    evidence = explanation["variables"][0]["because"]
    passages = [text[part["start"] : part["end"]] for part in evidence if "start" in part]
    marked = page.locator(".notes mark").evaluate_all(
        "marks => marks.map(mark => mark.firstChild.data)"
    )
    assert marked == sorted(passages, key=text.index)


def test_the_receipt_lists_unused_input(open_page, url):
    page = open_page()
    payload = read_example("minimal")
    payload["series"] = [
        {"variable": "loinc:0000-0", "unit": "m", "times": [payload["as_of"]], "values": [1]}
    ]
    paste(page, json.dumps(payload))
    for entry in predict(url, payload)["receipt"]["ignored"]:
        expect(page.locator(".receipt")).to_contain_text(entry["detail"])


def test_a_child_has_no_numbers_but_a_reason_for_each_task(open_page, url):
    page = open_page()
    payload = read_example("septic_shock")
    payload["tabular"]["age"] = 5
    paste(page, json.dumps(payload))
    expect(page.locator(".predictions h2")).to_have_text("0 predictions, 44 tasks abstain")
    answer = predict(url, payload, explain="full")
    reason = answer["predictions"][0]["abstained"]["reason"]
    expect(page.locator("[data-task]")).to_have_count(44)
    for text in page.locator("[data-task] td").all_inner_texts():
        assert text == f"no prediction: {reason}"
    expect(page.locator(".predictions data")).to_have_count(0)
    expect(page.locator("ul.problem")).to_contain_text(reason)
    expect(page.locator(".detail")).to_contain_text(f"No prediction: {reason}")


def test_the_receipt_lists_inputs_without_influence_apart(open_page, serve, changed_bundle):
    def edit(manifest, _):
        manifest["not_learned"] = {"variables": ["lactate"], "treatments": ["norepinephrine"]}

    at = serve(changed_bundle(edit))
    page = open_page(at)
    payload = read_example("septic_shock")
    paste(page, json.dumps(payload))
    receipt = predict(at, payload)["receipt"]
    title = f"{len(receipt['used']) - 1} variables and {len(receipt['treatments']) - 1} treatments"
    expect(page.locator(".receipt")).to_contain_text(f"{title} used")
    apart = page.locator(".receipt details", has_text="without influence")
    expect(apart.locator("summary")).to_have_text("2 read, but without influence on any prediction")
    expect(apart.locator("li")).to_have_count(2)
