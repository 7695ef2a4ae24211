"""Contributions of variables, passages and images to a prediction."""

import math
from datetime import datetime

import pytest

from schemas.response import Answer
from service.prediction.explanation import attribution, occlusion
from tests.service.prediction.request_parts import find_parts, remove_part

EARLIEST = ["0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00-23:59"]


LATEST = ["9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59+23:59"]


SOMETIME = [*EARLIEST, "0001-01-02T12:00:00.6Z", "0001-01-03T00:00:00-12:00", *LATEST]


@pytest.mark.parametrize("as_of", SOMETIME)
@pytest.mark.parametrize("time", SOMETIME)
def test_every_time_that_is_accepted_gets_an_answer(service, payload, as_of, time):
    late = datetime.fromisoformat(time) > datetime.fromisoformat(as_of)
    payload["as_of"] = as_of
    payload["tabular"]["admitted_at"] = time
    payload["notes"][0]["time"] = payload["images"][0]["time"] = time
    payload["treatments"] = [{"name": "norepinephrine", "start": time, "end": time}]
    payload["treatments"].append({"name": "propofol", "start": time})
    for series in payload["series"]:
        series |= {"times": [time], "values": series["values"][:1]}
    answer = service.client.post("/predict?explain=full", json=payload)
    assert answer.status_code == (422 if late else 200), answer.text
    if not late:
        for explanation in answer.json()["explanation"]["variables"]:
            for part in explanation["because"]:
                part_time = part.get("time") or part.get("since")
                assert part_time is None or datetime.fromisoformat(part_time).tzinfo is not None


@pytest.mark.parametrize("hours", [0.0, 5.5, 48.0])
def test_a_time_before_year_1_is_given_in_another_time_zone(hours):
    as_of = datetime.fromisoformat("0001-01-01T05:00:00-12:00")
    earlier = datetime.fromisoformat(occlusion._hours_before(as_of, hours))
    assert abs((as_of - earlier).total_seconds() / 3600 - min(hours, 41 - 1 / 60)) < 1 / 60


def test_variables_have_the_values_of_the_model_and_their_contributions(
    service, engine, bundle, payload
):
    answer = service.predict(payload, explain="full")
    Answer.model_validate(answer)
    predictions = {p["task"]: p for p in answer["predictions"]}
    distances = {
        name: abs(p["probability"] - p["prevalence"])
        for name, p in predictions.items()
        if "probability" in p
    }
    explanations = answer["explanation"]["variables"]
    assert [explanation["task"] for explanation in explanations] == sorted(
        distances, key=lambda n: -distances[n]
    )[:3]
    parts, _ = find_parts(payload, bundle)
    by_pointer = {str(part.part["pointers"]): part for part in parts}
    for explanation in explanations:
        assert 1 <= len(explanation["because"]) <= attribution.MAX_EVIDENCE
        sizes = [abs(part["contribution"]) for part in explanation["because"]]
        assert sizes == sorted(sizes, reverse=True)
        for part in explanation["because"]:
            removed = by_pointer[str(part["pointers"])]
            request = remove_part(payload, removed)
            number = service.predict(request, explain="none")["predictions"]
            (less,) = [p["probability"] for p in number if p["task"] == explanation["task"]]
            decrease = predictions[explanation["task"]]["probability"] - less
            assert part["contribution"] == pytest.approx(decrease, abs=1e-5)
    heart_rate = next(p.part for p in parts if p.part["name"] == "heart_rate")
    assert (heart_rate["last"], heart_rate["lowest"], heart_rate["highest"]) == (121.5, 88, 121.5)
    assert heart_rate["time"] == payload["series"][0]["times"][-1]
    creatinine = next(p.part for p in parts if p.part["name"] == "creatinine")
    assert creatinine["unit"] == "mg/dL"
    assert creatinine["last"] == pytest.approx(210 / 88.42, rel=1e-3)


@pytest.mark.parametrize("name", ["obesity", "length_of_stay"])
def test_the_variables_of_any_task_can_be_requested(service, payload, name):
    answer = service.predict(payload, explain="full", task=name)
    (explanation,) = answer["explanation"]["variables"]
    assert explanation["task"] == name
    assert explanation["because"]
    assert all(math.isfinite(part["contribution"]) for part in explanation["because"])


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ({"task": "sepsis"}, "needs_full"),
        ({"task": "plague", "explain": "full"}, "unknown_task"),
        ({"task": "discharge_disposition", "explain": "full"}, "unknown_task"),
    ],
)
def test_a_task_without_one_number_is_refused_for_variables(service, payload, parameters, rule):
    answer = service.client.post("/predict", json=payload, params=parameters)
    assert answer.status_code == 422
    assert [(e["parameter"], e["rule"]) for e in answer.json()["errors"]] == [("task", rule)]
    assert "plague" not in answer.text


def test_no_text_of_a_note_is_in_the_answer_or_the_logs(service, payload):
    secret = "Quetzalcoatlus"
    payload["notes"][0]["text"] = f"Fever and cough. {secret} septic shock. Kidney injury."
    answer = service.client.post("/predict?explain=full", json=payload)
    assert answer.status_code == 200
    assert secret not in answer.text
    assert secret not in service.written()
