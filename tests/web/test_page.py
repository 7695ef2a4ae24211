"""What the dashboard shows, in a real browser, of a service that runs as a process of its own."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from model.cohorts import mimic_iv
from tests.support import service_process
from tests.support.prometheus import scraped

ROOT = Path(__file__).parents[2]
VIEWS = {
    "patient": ".predictions",
    "tim": "td[data-source]",
    "network": ".panel:visible",
    "model": ".dot-table",
}
MODALITIES = ("tabular", "series", "notes", "image")


@pytest.fixture(scope="module")
def serve(tmp_path_factory) -> Iterator[Callable[[Path], str]]:
    """The URL of a service of this bundle."""
    processes = []
    logs = tmp_path_factory.mktemp("logs")

    def start(bundle: Path) -> str:
        log = logs / f"{len(processes)}.jsonl"
        process, url = service_process.start(bundle, log, M3H_WORKERS="1", M3H_LOG_LEVEL="debug")
        processes.append(process)
        return url.replace("localhost", "127.0.0.1")

    start.logs = logs
    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def url(serve, bundle_dir) -> str:
    return serve(bundle_dir)


@pytest.fixture
def opened(browser: Browser, url: str) -> Iterator[Callable[..., Page]]:
    """Opens the page; afterwards: no error was written, and nobody else was asked for anything."""
    contexts, wrong = [], []
    allowed = {urlsplit(url).netloc}

    def open_page(at: str = url, view: str = "", refused: int = 0, **options: Any) -> Page:
        allowed.add(urlsplit(at).netloc)
        contexts.append(
            browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        )
        page = contexts[-1].new_page()

        def console(message: Any) -> None:
            expected = refused and f"status of {refused}" in message.text
            if message.type in ("error", "warning") and not expected:
                wrong.append(message.text)

        page.on("console", console)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked(request.url))
        page.goto(f"{at}/#{view}")
        expect(page.locator("footer")).to_contain_text("m3h-open")
        return page

    def asked(address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme != "data" and parts.netloc not in allowed:
            wrong.append(address)

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def example(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "examples" / f"{name}.json").read_bytes())


def choose_example(page: Page, title: str = "Septic shock") -> None:
    page.locator(".intake").get_by_role("button", name=title).click()
    expect(page.locator(".predictions tr[data-task]")).to_have_count(44)


def predicted(url: str, payload: Any, **query: str) -> dict[str, Any]:
    answer = httpx.post(f"{url}/predict", json=payload, params=query, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def shown(page: Page, rows: str, attribute: str) -> dict[str, float]:
    """By the attribute of a row, the exact value of its `data`."""
    script = """([rows, attribute]) => [...document.querySelectorAll(rows)].map(
        row => [row.getAttribute(attribute), Number(row.querySelector("data")?.value)])"""
    return dict(page.evaluate(script, [rows, attribute]))


def headline(prediction: dict[str, Any]) -> float:
    if "probabilities" in prediction:
        return max(prediction["probabilities"].values())
    return prediction.get("probability", prediction.get("value"))


# ---- the patient


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
def test_a_prediction_in_the_page_is_that_of_post_predict(opened, url, title, name):
    page = opened()
    choose_example(page, title)
    answer = predicted(url, example(name), explain="full")
    there = shown(page, ".predictions tr[data-task]", "data-task")
    assert there == {p["task"]: pytest.approx(headline(p), abs=1e-9) for p in answer["predictions"]}


@pytest.mark.parametrize(
    "task", ["pneumonia", "sepsis", "length_of_stay", "chronic_kidney_disease"]
)
def test_the_reasons_in_the_page_are_those_of_post_predict(opened, url, task):
    page = opened()
    choose_example(page)
    page.locator(f".predictions tr[data-task={task}] button").click()
    expect(page.locator(".because tr[data-part]").first).to_be_visible()
    answer = predicted(url, example("septic_shock"), explain="full", task=task)["explanation"]
    steps = page.locator(".steps tr[data-modality]")
    shares = {
        row.get_attribute("data-modality"): float(row.get_attribute("data-share"))
        for row in steps.all()
    }
    assert shares == {m: answer["modalities"][task][m] for m in MODALITIES}
    because = {part["name"]: part["contribution"] for part in answer["variables"][0]["because"]}
    assert shown(page, ".because tr[data-part]", "data-part") == because
    attention = answer["attention"]
    row = attention["weights"][attention["tasks"].index(task)]
    drawn = [one.get_attribute("data-drawn") for one in page.locator("tr[data-drawn]").all()]
    largest = sorted(range(len(row)), key=lambda i: -row[i])
    assert set(drawn) >= {attention["tasks"][i] for i in largest[:5]}
    assert page.locator("#detail").evaluate("element => element === document.activeElement")


def test_of_a_choice_of_classes_each_has_its_own_contributions(opened, url):
    page = opened()
    choose_example(page)
    page.locator(".predictions tr[data-task=discharge_disposition] button").click()
    answer = predicted(url, example("septic_shock"))["explanation"]["modalities"]
    for name, shares in answer["discharge_disposition"].items():
        page.locator("#detail select").select_option(name)
        row = page.locator(".steps tr[data-modality=series]")
        assert float(row.get_attribute("data-share")) == shares["series"]


def test_what_stands_out_is_what_the_service_gave_reasons_for(opened, url):
    page = opened()
    choose_example(page)
    answer = predicted(url, example("septic_shock"), explain="full")
    display = {p["task"]: p["display"] for p in answer["predictions"]}
    named = [display[one["task"]] for one in answer["explanation"]["variables"]]
    assert page.locator(".card-name").all_text_contents() == named


def test_a_payload_can_be_dropped_and_pasted_and_chosen_as_a_file(opened, url):
    payload = json.dumps(example("heart_failure"))
    page = opened()
    drop = """([selector, text]) => {
        const data = new DataTransfer();
        data.items.add(new File([text], "patient.json", {type: "application/json"}));
        document.querySelector(selector).dispatchEvent(
            new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    page.evaluate(drop, [".intake", payload])
    expect(page.locator("h1")).to_contain_text("synthetic-002")

    page = opened()
    page.get_by_label("Payload, as JSON").fill(payload)
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("h1")).to_contain_text("synthetic-002")

    page = opened()
    file = {"name": "a.json", "mimeType": "application/json", "buffer": payload.encode()}
    page.locator("input[type=file]").set_input_files(file)
    expect(page.locator("h1")).to_contain_text("synthetic-002")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ('{"as_of": "today", "tabular": {"age": "Jane"}}', 422, "/tabular/age"),
        ("{not json", 400, "JSON"),
    ],
)
def test_what_is_wrong_with_a_payload_is_said_and_the_payload_is_kept(opened, body, status, said):
    page = opened(refused=status)
    page.get_by_label("Payload, as JSON").fill(body)
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_contain_text(said)
    expect(page.get_by_role("alert")).not_to_contain_text("Jane")
    expect(page.get_by_label("Payload, as JSON")).to_have_value(body)
    expect(page.locator(".predictions")).to_have_count(0)


def test_numbers_of_another_patient_are_gone_when_a_payload_is_refused(opened):
    page = opened(refused=422)
    choose_example(page)
    page.locator(".intake summary").click()
    page.get_by_label("Payload, as JSON").fill("{}")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.locator(".predictions")).to_have_count(0)


def test_a_changed_vital_sign_shows_what_moves(opened, url):
    page = opened()
    choose_example(page, "Vital signs only")
    payload = example("vitals_only")
    panel = page.locator(".what-if")
    panel.locator("select").select_option(label="Heart rate")
    panel.locator("input[type=range]").fill("150")
    expect(panel.locator("tr[data-moved]").first).to_be_visible()
    before = {p["task"]: p for p in predicted(url, payload)["predictions"]}
    payload["series"][0]["values"][-1] = 150
    after = {p["task"]: p for p in predicted(url, payload)["predictions"]}
    moved = shown(page, "tr[data-moved]", "data-moved")
    assert moved == {task: pytest.approx(after[task]["probability"], abs=1e-9) for task in moved}

    def by(task: str) -> float:
        return abs(after[task]["probability"] - before[task]["probability"])

    binary = [task for task, one in before.items() if "probability" in one]
    assert set(moved) == set(sorted(binary, key=by)[-len(moved) :])
    panel.get_by_role("button", name="As it was").click()
    expect(panel.locator("tr[data-moved]")).to_have_count(0)


def test_a_passage_that_a_number_rests_on_is_marked_in_the_note(opened, url):
    page = opened()
    payload = {"as_of": "2026-11-23T10:00:00Z", "notes": []}
    # Places are counted in characters: these are one each, and two units of UTF-16.
    text = "🫁🫁 Known COPD on home oxygen. Family informed."
    payload["notes"].append({"kind": "admission", "time": payload["as_of"], "text": text})
    page.get_by_label("Payload, as JSON").fill(json.dumps(payload))
    page.get_by_role("button", name="Predict").click()
    page.locator(".predictions tr[data-task=copd] button").click()
    expect(page.locator(".notes mark").first).to_be_visible()
    named = predicted(url, payload, explain="full", task="copd")["explanation"]["variables"][0]
    passages = [text[one["start"] : one["end"]] for one in named["because"] if "start" in one]
    marked = page.locator(".notes mark").evaluate_all("all => all.map(one => one.firstChild.data)")
    assert marked == sorted(passages, key=text.index)


def test_the_receipt_says_what_was_not_used(opened, url):
    page = opened()
    payload = example("minimal")
    payload["series"] = [
        {"variable": "loinc:0000-0", "unit": "m", "times": [payload["as_of"]], "values": [1]}
    ]
    page.get_by_label("Payload, as JSON").fill(json.dumps(payload))
    page.get_by_role("button", name="Predict").click()
    for entry in predicted(url, payload)["receipt"]["ignored"]:
        expect(page.locator(".receipt")).to_contain_text(entry["detail"])


# ---- which task teaches which


def test_the_cells_of_the_heatmap_are_those_of_tim(opened, url):
    tim = httpx.get(f"{url}/tim").json()
    page = opened(view="tim")
    for order in ("department", "similarity"):
        page.locator("main select").first.select_option(order)
        cells = page.evaluate(
            """[...document.querySelectorAll("td[data-source]")].map(
                cell => [cell.dataset.source, cell.dataset.task, cell.dataset.value])"""
        )
        assert len(cells) == len(tim["sources"]) * len(tim["tasks"])
        for source, task, value in cells:
            exact = tim["matrix"][tim["sources"].index(source)][tim["tasks"].index(task)]
            assert (None if value == "" else float(value)) == exact


def test_a_cell_can_be_reached_and_opened_with_the_keyboard_alone(opened):
    page = opened(view="tim")
    first = page.locator("td[data-source][tabindex='0']")
    expect(first).to_have_count(1)
    first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    place = "[document.activeElement.dataset.source, document.activeElement.dataset.task]"
    source, task = page.evaluate(place)
    assert source != task or page.evaluate("document.activeElement.dataset.value") == ""
    page.keyboard.press("End")
    assert page.evaluate(place)[0] == source
    page.keyboard.press("Enter")
    page.wait_for_function(f"location.hash === '#tim/{source}'")


def test_a_task_has_a_page_of_its_own_with_what_helps_it_and_what_it_helps(opened, url):
    tim = httpx.get(f"{url}/tim").json()
    page = opened(view="tim/sepsis")
    row = tim["sources"].index("sepsis")
    expect(page.locator("main")).to_contain_text("What helps it")
    expect(page.locator("main")).to_contain_text("What it helps")
    cells = dict(zip(tim["tasks"], tim["matrix"][row], strict=True))
    largest = max((t for t in cells if cells[t] is not None), key=lambda t: abs(cells[t]))
    display = {t["name"]: t["display"] for t in httpx.get(f"{url}/tasks").json()["tasks"]}
    expect(page.locator("main")).to_contain_text(display[largest])


def test_no_edge_is_drawn_where_no_cell_is_certain(opened, url):
    assert not any(any(row) for row in httpx.get(f"{url}/tim").json()["certain"])
    page = opened(view="network")
    expect(page.locator("main")).to_contain_text("certain")
    expect(page.locator(".graph, .edges")).to_have_count(0)


def test_the_edges_of_the_network_are_the_certain_cells(opened, serve, changed_bundle):
    certain = []

    def edit(_manifest: dict[str, Any], path: Path) -> None:
        tim = json.loads((path / "tim.json").read_bytes())
        cells = [
            (abs(value), i, j)
            for i, row in enumerate(tim["matrix"])
            for j, value in enumerate(row)
            if value is not None
        ]
        for _, i, j in sorted(cells)[-40:]:
            tim["certain"][i][j] = True
            certain.append((tim["tasks"][j], tim["sources"][i]))
        (path / "tim.json").write_text(json.dumps(tim))

    page = opened(serve(changed_bundle(edit)), view="network")
    edges = page.locator(".edges tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.querySelectorAll('a')].map(a => a.hash.slice(5)))"
    )
    assert sorted(map(tuple, edges)) == sorted(certain)
    expect(page.locator(".graph path.edge")).to_have_count(len(certain))


# ---- the model


def test_the_model_view_shows_the_figures_of_the_report_and_what_was_served(opened, url):
    predicted(url, example("minimal"))
    page = opened(view="model")
    model = httpx.get(f"{url}/model").json()
    auroc = model["evaluation"]["measured"]["models"]["m3h"]["auroc"]
    expect(page.locator("main")).to_contain_text(f"{auroc[0]:.3f}".lstrip("0"))
    expect(page.locator("main")).to_contain_text(model["digest"][:12])
    counted = scraped(httpx.get(f"{url}/metrics").text, "m3h_predictions_total")
    expect(page.locator("main")).to_contain_text(f"{counted:,.0f} prediction")


# ---- for all views


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [*VIEWS, "tim/sepsis"])
def test_axe_finds_no_fault(opened, view, scheme):
    page = opened(view=view, color_scheme=scheme)
    if view == "patient":
        choose_example(page)
        expect(page.locator(".because tr[data-part]").first).to_be_visible()
    page.evaluate((ROOT / "web/node_modules/axe-core/axe.min.js").read_text(encoding="utf-8"))
    faults = page.evaluate("axe.run().then(found => found.violations)")
    assert [(f["id"], f["impact"], f["nodes"][0]["html"][:200]) for f in faults] == []


@pytest.mark.parametrize("view", [*VIEWS, "tim/sepsis"])
def test_on_a_tablet_nothing_runs_over_the_side(opened, view):
    page = opened(view=view, viewport={"width": 820, "height": 1180}, has_touch=True)
    if view == "patient":
        choose_example(page)
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 820


def test_the_whole_way_to_a_reason_goes_by_keyboard(opened):
    page = opened()
    page.keyboard.press("Tab")
    expect(page.get_by_text("To the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")  # the summary
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".predictions tr[data-task]")).to_have_count(44)
    page.locator(".predictions tr[data-task=pneumonia] button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_focused()
    expect(page.locator("#detail")).to_contain_text("Pneumonia")


def test_a_patient_is_printed_on_one_page(opened, open_data):
    data = open_data("mimic-iv-demo-2.2", "mimic-iv-demo-meds-0.0.1")
    record = next(r for r in mimic_iv.read(data) if r.landmark_hours == 24)
    real = record.payload.model_dump_json(exclude_unset=True).encode()
    for body in (real, (ROOT / "examples/septic_shock.json").read_bytes()):
        page = opened()
        file = {"name": "a.json", "mimeType": "application/json", "buffer": body}
        page.locator("input[type=file]").set_input_files(file)
        expect(page.locator(".predictions tr[data-task]")).to_have_count(44)
        expect(page.locator(".because tr[data-part]").first).to_be_visible()
        pdf = page.pdf(prefer_css_page_size=True)
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1


def test_what_was_shown_is_in_no_log_and_not_kept_in_the_browser(opened, serve):
    page = opened()
    choose_example(page)
    stored = "[localStorage.length, sessionStorage.length, document.cookie]"
    assert page.evaluate(stored) == [0, 0, ""]
    for log in serve.logs.iterdir():
        written = log.read_text(encoding="utf-8")
        assert '"route":"/predict"' in written or "/tim" in written
        for private in ("synthetic-00", "rigors", "Known COPD", "163.0"):
            assert private not in written


def test_each_view_can_be_pictured(opened, tmp_path):
    """With M3H_SCREENSHOTS=1 into docs/img, for the README."""
    folder = ROOT / "docs" / "img" if os.environ.get("M3H_SCREENSHOTS") else tmp_path
    folder.mkdir(exist_ok=True)
    for view, there in VIEWS.items():
        size = {"width": 1280, "height": 1480 if view == "tim" else 960}
        scheme = "dark" if view == "tim" else "light"
        page = opened(view=view, color_scheme=scheme, viewport=size)
        if view == "patient":
            choose_example(page)
            page.locator(".predictions tr[data-task=pneumonia] button").click()
            expect(page.locator(".because tr[data-part]").first).to_be_visible()
        expect(page.locator(there).first).to_be_visible()
        page.wait_for_timeout(200)  # what else it asked for is drawn
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=folder / f"{view}.png")
        assert (folder / f"{view}.png").stat().st_size > 10_000
