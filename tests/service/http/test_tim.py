"""`GET /tim`: the task interaction matrix with its intervals, as JSON and CSV."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.datastructures import Headers

from schemas.manifest import BundleError
from schemas.tim import TIM, Tim
from service.http.negotiation import preferred
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from tests.support.inputs.tim_matrix import made_tim


def random_tim(names: list[str]) -> Tim:
    count = len(names)
    values = np.random.default_rng(0).normal(0, 0.01, (count, count)).round(6)
    return made_tim(names, values, half=0.02)


@pytest.fixture(scope="module")
def with_tim(bundle, changed_bundle):
    """A bundle with a matrix. `names` of other tasks make the matrix invalid."""

    def make(names: list[str] | None = None, content: str | None = None) -> Path:
        own = [facts.task.name for facts in bundle.manifest.tasks]

        def write(manifest: dict[str, Any], path: Path) -> None:
            text = random_tim(names or own).model_dump_json() if content is None else content
            (path / TIM).write_text(text)
            manifest["files"][TIM] = ""

        return changed_bundle(write)

    return make


@pytest.fixture(scope="module")
def client(serve, with_tim):
    return serve(Engine(Bundle.load(with_tim(), "cpu"))).client


def test_the_matrix_has_its_definition_bundle_and_intervals(client, bundle):
    tim = client.get("/tim").json()
    tasks = [facts.task.name for facts in bundle.manifest.tasks]
    assert tim["tasks"] == tim["sources"] == tasks
    for name in ("matrix", "lower", "upper", "certain", "mean_attention"):
        assert np.array(tim[name]).shape == (len(tasks), len(tasks))
    assert all(tim["matrix"][i][i] is None for i in range(len(tasks)))
    assert len(tim["bundle"]) == 64
    assert "Shapley" in tim["definition"]
    assert tim["coalitions"] == 512


def test_source_selects_a_row_and_top_its_largest_cells(client):
    whole = client.get("/tim").json()
    row = whole["tasks"].index("sepsis")
    row_only = client.get("/tim", params={"source": "sepsis"}).json()
    assert row_only["sources"] == ["sepsis"]
    assert row_only["tasks"] == whole["tasks"]
    assert row_only["matrix"] == [whole["matrix"][row]]
    assert row_only["multitask_gain"] == [whole["multitask_gain"][row]]
    top = client.get("/tim", params={"source": "sepsis", "top": 3}).json()
    assert top.keys() == whole.keys()
    largest = sorted(filter(None, whole["matrix"][row]), key=abs, reverse=True)[:3]
    assert top["matrix"] == [largest]
    assert [whole["matrix"][row][whole["tasks"].index(t)] for t in top["tasks"]] == largest


def test_tim_supports_if_none_match(client):
    for accept in ("application/json", "text/csv"):
        first = client.get("/tim", headers={"Accept": accept})
        assert first.headers["vary"] == "Accept, Accept-Encoding"
        again = {"Accept": accept, "If-None-Match": first.headers["etag"]}
        assert client.get("/tim", headers=again).status_code == 304
    other = client.get("/tim", headers={"Accept": "application/json", **again})
    assert other.headers["etag"] != first.headers["etag"] or other.status_code == 304


def test_csv_has_one_line_per_cell(client):
    answer = client.get("/tim", params={"source": "sepsis"}, headers={"Accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    whole = client.get("/tim").json()
    row = whole["tasks"].index("sepsis")
    assert len(lines) == len(whole["tasks"]) - 1
    for line in lines:
        column = whole["tasks"].index(line["task"])
        assert float(line["tim"]) == whole["matrix"][row][column]
        assert float(line["lower"]) == whole["lower"][row][column]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("text/csv, */*;q=0.1", "text/csv"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("text/csv;q=0", "application/json"),
        ("text/csv;q=oops", "application/json"),
        ("TEXT/CSV", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv; Q=0.9, application/*;q=0.8", "text/csv"),
        ("text/csv; q=0.9, */*; q=0.95", "application/json"),
        ("application/json;q=0.5, text/csv;header=present;q=0.6", "text/csv"),
        ("text/csv;q=2", "application/json"),
        ("text/html", "application/json"),
    ],
)
def test_the_preferred_media_type_is_chosen(accept, expected):
    headers = Headers({} if accept is None else {"Accept": accept})
    assert preferred(headers, ("application/json", "text/csv")) == expected


def test_an_unknown_task_gets_similar_names_and_is_not_repeated(client):
    answer = client.get("/tim", params={"source": "septic_schock"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    fault = answer.json()["errors"][0]
    assert (fault["parameter"], fault["rule"]) == ("source", "unknown_task")
    assert "septic_shock" in fault["detail"]
    assert "schock" not in answer.text


@pytest.mark.parametrize("wrong", [{"top": 3}, {"source": "sepsis", "top": 0}, {"sauce": "sepsis"}])
def test_an_invalid_parameter_is_refused(client, wrong):
    answer = client.get("/tim", params=wrong)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == list(wrong)[-1]


def test_a_bundle_with_the_matrix_of_another_is_refused(with_tim):
    with pytest.raises(BundleError, match="other tasks"):
        Bundle.load(with_tim(names=["sepsis", "gout"]), "cpu")
    with pytest.raises(BundleError, match="is not a TIM"):
        Bundle.load(with_tim(content='{"matrix": 3}'), "cpu")
