"""Series as hospitals send them get the answer of the same series in canonical form.

`feeds.tsv`: units and codes from public bug reports, data dictionaries and real files.
"""

import csv
from pathlib import Path

import pytest

from tests.service.conftest import AS_OF

TABULAR = {"age": 71, "sex": "female", "height_cm": 163, "weight_kg": 68.5}


def feeds():
    path = Path(__file__).with_name("feeds.tsv")
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)


def request(variable, unit, value, *more):
    given = {"variable": variable, "times": [AS_OF.isoformat()], "values": [float(value)]}
    given |= {"unit": unit} if unit else {}
    return {"as_of": AS_OF.isoformat(), "tabular": TABULAR, "series": [given, *more]}


def numbers(answer):
    return [
        number
        for prediction in answer["predictions"]
        for number in (
            prediction.get("probability"),
            prediction.get("value"),
            *prediction.get("probabilities", {}).values(),
        )
        if number is not None
    ]


@pytest.mark.parametrize("feed", feeds(), ids=lambda feed: feed["id"])
def test_a_series_gets_the_answer_of_its_canonical_form(service, feed):
    sent = service.predict(
        request(feed["variable"], feed["unit"], feed["value"]), explain="none", strict="true"
    )
    same = service.predict(
        request(feed["as_variable"], feed["as_unit"], feed["as_value"]), explain="none"
    )
    assert [used["variable"] for used in sent["receipt"]["used"]] == [feed["as_variable"]]
    assert numbers(sent) == pytest.approx(numbers(same), abs=1e-6)


def test_an_absolute_count_of_lymphocytes_is_ignored_with_a_reason(service):
    beside = request("white_blood_cells", "10*9/L", 8.0)["series"][0]
    answer = service.predict(request("lymphocytes", "10*9/L", 1.2, beside))
    (entry,) = answer["receipt"]["ignored"]
    assert (entry["pointer"], entry["reason"]) == ("/series/0/unit", "unknown_unit")
    assert [used["variable"] for used in answer["receipt"]["used"]] == ["white_blood_cells"]


@pytest.mark.parametrize(
    ("variable", "unit", "value", "warning"),
    [
        ("carbon_dioxide_partial_pressure", "mm[Hg]", 5.3, "typical in kPa"),
        ("glucose", "mg/dL", 5.5, "typical in mmol/L"),
        ("magnesium", "mg/dL", 0.8, "typical in mmol/L"),
        ("bilirubin_total", "mg/dL", 34, "typical in umol/L"),
        ("lactate", "mmol/L", 18, "typical in mg/dL"),
        ("heart_rate", "/min", 0, "detached sensor"),
        ("loinc:9269-2", "{score}", 8, "gcs_motor"),
    ],
)
def test_a_suspect_value_gets_a_warning(service, variable, unit, value, warning):
    answer = service.predict(request(variable, unit, value))
    assert [w for w in answer["receipt"]["warnings"] if warning in w]


def test_each_listed_variable_is_read_by_each_of_its_names(service):
    listed = service.client.get("/variables").json()
    for variable in listed["variables"]:
        names = (variable["name"], *variable["aliases"], *(f"loinc:{c}" for c in variable["loinc"]))
        unit = variable["units"][0]
        low, high = variable["plausible"]
        for name in names:
            sent = request(name, unit, (low + high) / 2)
            if name.removeprefix("loinc:") in variable["moles_only"]:
                moles = next(unit for unit in variable["units"] if "mol" in unit)
                sent = request(name, moles, 40.0)
            answer = service.predict(sent, explain="none")
            assert [u["variable"] for u in answer["receipt"]["used"]] == [variable["name"]], name
