"""Inputs as hospitals send them, answered by the shipped bundle."""

import copy
import json
from typing import Any

import pytest

from tests.support.servers.http_client import JSON

AS_OF = "2026-11-23T10:00:00Z"


def patient(**changed: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "as_of": AS_OF,
        "tabular": {
            "age": 71,
            "sex": "female",
            "weight_kg": 80,
            "height_cm": 165,
            "admitted_at": "2026-11-22T20:00:00Z",
        },
        "series": [
            {
                "variable": name,
                "unit": unit,
                "times": ["2026-11-23T09:00:00Z"],
                "values": [value],
            }
            for name, unit, value in [
                ("heart_rate", "/min", 118),
                ("mean_arterial_pressure", "mm[Hg]", 60),
            ]
        ],
    }
    tabular = given["tabular"] | changed.pop("tabular", {})
    return given | {"tabular": tabular} | changed


def course(name: str = "norepinephrine", **fields: Any) -> dict[str, Any]:
    return {"name": name, "start": "2026-11-23T05:00:00Z", "end": None, **fields}


def numbers(answer: dict[str, Any]) -> list[Any]:
    """The predicted numbers, without their explanation."""
    values = ("probability", "value", "probabilities", "cluster")
    return [{name: prediction.get(name) for name in values} for prediction in answer["predictions"]]


def alike(service: Any, request: Any, same_request: Any) -> None:
    answer, other = service.predict(request), service.predict(same_request)
    for a, b in zip(numbers(answer), numbers(other), strict=True):
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-6)
        assert a["value"] == pytest.approx(b["value"], abs=1e-5)


def reasons(answer: dict[str, Any]) -> set[tuple[str, str]]:
    return {(entry["pointer"], entry["reason"]) for entry in answer["receipt"]["ignored"]}


def rated(rate: float, unit: str = "ug/kg/min", name: str = "norepinephrine") -> dict[str, Any]:
    return patient(treatments=[course(name, rate=rate, unit=unit)])


def test_simultaneous_infusions_of_a_drug_add_up(service):
    both = [course(rate=rate, unit="ug/kg/min") for rate in (0.1, 0.5)]
    alike(service, patient(treatments=both), patient(treatments=both[::-1]))
    alike(service, patient(treatments=both), rated(0.6))


def test_an_infusion_at_rate_0_does_not_run(service):
    paused = service.predict(rated(0))
    running = service.predict(rated(0.1))
    ended = service.predict(patient(treatments=[course(end=AS_OF)]))
    assert numbers(paused) == numbers(ended)
    assert numbers(paused) != numbers(running)


@pytest.mark.parametrize(
    ("name", "rate", "unit", "absolute", "canonical"),
    [
        ("heparin", 18, "units/kg/hr", 1440, "U/h"),
        ("fentanyl", 1.5, "mcg/kg/hr", 120, "ug/h"),
        ("nitroglycerin", 0.5, "mcg/kg/min", 40, "ug/min"),
        ("norepinephrine", 8, "mcg/min", 0.1, "ug/kg/min"),
    ],
)
def test_a_rate_by_weight_is_converted(service, name, rate, unit, absolute, canonical):
    alike(service, rated(rate, unit, name), rated(absolute, canonical, name))


def test_a_rate_in_millilitres_is_ignored_or_refused_if_strict(service):
    sent = rated(5, "mL/hr")
    answer = service.predict(sent)
    assert ("/treatments/0/unit", "unknown_unit") in reasons(answer)
    assert numbers(answer) == numbers(service.predict(patient(treatments=[course()])))
    strict = service.client.post("/predict", json=sent, params={"strict": "true"})
    assert strict.status_code == 422
    assert ("/treatments/0/unit", "unknown_unit") in {
        (fault["pointer"], fault["rule"]) for fault in strict.json()["errors"]
    }


@pytest.mark.parametrize("name", ["Norepinephrine", "levophed", "noradrenaline"])
def test_a_treatment_by_another_name_is_read(service, name):
    alike(service, rated(0.1), patient(treatments=[course(name, rate=0.1, unit="ug/kg/min")]))


def test_an_observed_weight_converts_rates(service):
    sent = rated(8, "mcg/min")
    weight = {
        "variable": "loinc:29463-7",
        "unit": "kg",
        "times": ["2026-11-23T06:00:00Z"],
        "values": [80],
    }
    sent["series"].append(weight)
    with_weight = copy.deepcopy(sent)
    sent["tabular"]["weight_kg"] = None
    answer = service.predict(sent)
    assert ("/treatments/0/rate", "weight_needed_for_rate") not in reasons(answer)
    assert ("/series/2", "weight_kg") in {
        (entry["pointer"], entry["read_as"]) for entry in answer["receipt"]["read_as"]
    }
    assert answer["receipt"]["converted"] == service.predict(with_weight)["receipt"]["converted"]


@pytest.mark.parametrize("age", [0, 5, 17])
def test_a_child_gets_a_warning_that_the_model_learned_from_adults(service, age):
    warnings = service.predict(patient(tabular={"age": age}))["receipt"]["warnings"]
    assert any("18 years" in warning for warning in warnings)
    adult = service.predict(patient(tabular={"age": 18}))["receipt"]["warnings"]
    assert not any("18 years" in warning for warning in adult)


@pytest.mark.parametrize(("sex", "read"), [("M", "male"), ("Female", "female"), ("f", "female")])
def test_a_sex_by_another_spelling_is_read(service, sex, read):
    alike(service, patient(tabular={"sex": sex}), patient(tabular={"sex": read}))


@pytest.mark.parametrize("sex", ["unknown", "other"])
def test_an_unknown_sex_is_valid(service, sex):
    answer = service.predict(patient(tabular={"sex": sex}), strict="true")
    assert numbers(answer) == numbers(service.predict(patient(tabular={"sex": None})))


@pytest.mark.parametrize(
    ("field", "value"),
    [("height_cm", 64), ("weight_kg", 2.5), ("admitted_at", "1900-01-01T00:00:00Z")],
)
def test_an_implausible_number_counts_as_missing(service, field, value):
    answer = service.predict(patient(tabular={field: value}))
    assert (f"/tabular/{field}", "implausible_value") in reasons(answer)
    assert numbers(answer) == numbers(service.predict(patient(tabular={field: None})))


def test_a_time_in_the_format_of_python_is_read(service):
    alike(service, patient(), patient(as_of="2026-11-23 10:00:00+00:00"))


def test_a_censored_value_is_read_as_its_bound(service):
    troponin = {"variable": "troponin_t", "unit": "ng/mL", "times": ["2026-11-23T09:00:00Z"]}
    alike(
        service,
        patient(series=[troponin | {"values": ["<0.01"]}]),
        patient(series=[troponin | {"values": [0.01]}]),
    )


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_byte_order_mark_is_ignored(service, path):
    document = patient() if path == "/predict" else {"items": [patient()]}
    body = b"\xef\xbb\xbf" + json.dumps(document).encode()
    answer = service.client.post(path, content=body, headers=JSON)
    assert answer.status_code == 200
    if path.endswith("batch"):
        assert "predictions" in answer.json()["items"][0]


def test_a_time_that_is_not_text_has_the_same_fault_on_both_routes(service):
    wrong = patient(as_of=1_700_000_000)
    single = service.client.post("/predict", json=wrong).json()
    (item,) = service.client.post("/predict/batch", json={"items": [wrong]}).json()["items"]
    assert single == item
    assert [(f["pointer"], f["rule"]) for f in single["errors"]] == [("/as_of", "string")]


def test_the_size_of_an_answer_is_limited_when_much_is_ignored(serve, engine):
    service = serve(engine, max_body_bytes=2**23)
    sent = patient(
        series=[
            {"variable": f"zebra {i}", "times": ["2026-11-23T09:00:00Z"], "values": [1]}
            for i in range(20_000)
        ],
        treatments=[course(f"leeches {i}") for i in range(20_000)],
    )
    answer = service.client.post("/predict", json=sent)
    assert answer.status_code == 200
    assert len(answer.content) < 200_000
    assert sum(entry.get("entries", 1) for entry in answer.json()["receipt"]["ignored"]) >= 40_000
    strict = service.client.post("/predict", json=sent, params={"strict": "true"})
    assert strict.status_code == 422
    assert "40000 errors" in strict.json()["detail"]
    assert 0 < len(strict.json()["errors"]) <= 100
