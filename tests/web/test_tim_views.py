"""The views of the task interaction matrix (TIM), in Chromium, against a service process."""

import json
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import expect


def test_the_heatmap_shows_the_cells_of_the_service(open_page, url):
    tim = httpx.get(f"{url}/tim").json()
    page = open_page(view="tim")
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


def test_the_heatmap_can_be_used_with_the_keyboard(open_page):
    page = open_page(view="tim")
    tab_stop = page.locator("td[data-source][tabindex='0']")
    expect(tab_stop).to_have_count(1)
    tab_stop.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    focused = "[document.activeElement.dataset.source, document.activeElement.dataset.task]"
    source, task = page.evaluate(focused)
    assert source != task or page.evaluate("document.activeElement.dataset.value") == ""
    page.keyboard.press("End")
    assert page.evaluate(focused)[0] == source
    page.keyboard.press("Enter")
    page.wait_for_function(f"location.hash === '#tim/{source}'")


def test_a_task_view_shows_the_effects_on_a_task_and_of_it(open_page, url):
    tim = httpx.get(f"{url}/tim").json()
    page = open_page(view="tim/sepsis")
    row = tim["sources"].index("sepsis")
    expect(page.locator("main")).to_contain_text("Tasks that help it")
    expect(page.locator("main")).to_contain_text("Tasks that it helps")
    effects = dict(zip(tim["tasks"], tim["matrix"][row], strict=True))
    largest = max((t for t in effects if effects[t] is not None), key=lambda t: abs(effects[t]))
    display = {t["name"]: t["display"] for t in httpx.get(f"{url}/tasks").json()["tasks"]}
    expect(page.locator("main")).to_contain_text(display[largest])


def test_the_network_is_empty_without_certain_cells(open_page, url):
    assert not any(any(row) for row in httpx.get(f"{url}/tim").json()["certain"])
    page = open_page(view="network")
    expect(page.locator("main")).to_contain_text("No cell is certain")
    expect(page.locator(".graph, .edges")).to_have_count(0)


def test_the_network_draws_the_certain_cells(open_page, serve, changed_bundle):
    certain = []

    def mark_largest_cells(_manifest: dict[str, Any], path: Path) -> None:
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

    page = open_page(serve(changed_bundle(mark_largest_cells)), view="network")
    edges = page.locator(".edges tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.querySelectorAll('a')].map(a => a.hash.slice(5)))"
    )
    assert sorted(map(tuple, edges)) == sorted(certain)
    expect(page.locator(".graph path.edge")).to_have_count(len(certain))
