"""Patient, Encounter, height and weight become the tabular data."""

from typing import Any

import pytest

from tests.support.inputs import fhir_bundles as make


def tabular(reader: Any, *resources: Any, **patient: Any) -> dict[str, Any]:
    body = make.bundle(make.heart_rate(), *resources)
    body["entry"][0]["resource"] |= patient
    return reader(body).tabular


@pytest.mark.parametrize(
    ("birth", "age"),
    [
        ("1963-05-04", 68),
        ("1963-05-05", 67),
        ("1963-05", 67),
        ("1963", 67),
        ("2031-05-04", 0),
    ],
)
def test_the_age_is_in_completed_years_at_as_of(reader, birth, age):
    assert tabular(reader, birthDate=birth)["age"] == age


def test_the_unit_and_its_time_come_from_the_location_at_as_of(reader):
    places = [
        ({"display": "Emergency Department"}, {"start": make.ago(30), "end": make.ago(26)}),
        ({"reference": "Location/l"}, {"start": make.ago(26), "end": make.ago(10)}),
        ({"display": "Coronary Care Unit"}, {"start": make.ago(10)}),
    ]
    locations = [{"location": place, "period": period} for place, period in places]
    location = {"resourceType": "Location", "id": "l", "name": "CCU"}
    found = tabular(reader, make.stay(location=locations), location)
    assert found["unit_type"] == "cardiac_icu"
    assert found["admitted_at"].isoformat() == make.ago(26)


def test_two_locations_of_one_time_are_no_error(reader):
    start = make.ago(10)
    periods = ({"start": start}, {"start": start, "end": make.ago(-1)})
    locations = [{"location": {"display": "MICU"}, "period": period} for period in periods]
    for order in (locations, locations[::-1]):
        found = tabular(reader, make.stay(location=order))
        assert found["admitted_at"].isoformat() == start


def test_only_the_stay_that_contains_as_of_counts(reader):
    old = make.stay(
        id="old", status="finished", period={"start": make.ago(900), "end": make.ago(800)}
    )
    visit = make.stay(id="visit", period={"start": make.ago(1)})
    visit["class"] = {"code": "AMB"}
    planned = make.stay(id="planned", status="planned", period={"start": make.ago(2)})
    found = tabular(reader, old, make.stay(), visit, planned)
    assert found["admitted_at"].isoformat() == make.ago(24)
    assert "admitted_at" not in tabular(reader, old, visit, planned)


@pytest.mark.parametrize(
    ("source", "category"),
    [
        ({"coding": [{"code": "hosp-trans"}]}, "other_hospital"),
        ({"coding": [{"code": "emd"}]}, "emergency"),
        ({"text": "Operating Room"}, "operating_room"),
    ],
)
def test_the_source_of_admission_is_a_category(reader, source, category):
    found = tabular(reader, make.stay(hospitalization={"admitSource": source}))
    assert found["admission_source"] == category


@pytest.mark.parametrize(
    ("value", "unit"),
    [(165, "cm"), (1.65, "m"), (64.9606299, "[in_i]"), (5.41338583, "Feet"), (165, "Centimeters")],
)
def test_the_latest_height_is_converted(reader, value, unit):
    old = make.observation("8302-2", 120, "cm", 300)
    found = tabular(reader, old, make.observation("8302-2", value, unit, 20))
    assert found["height_cm"] == pytest.approx(165)


def test_a_weight_of_the_last_month_is_the_weight(reader):
    old, new = (make.observation("29463-7", kg, "kg", h) for kg, h in ((99, 900), (70, 20)))
    assert tabular(reader, old, new)["weight_kg"] == 70
    assert "weight_kg" not in tabular(reader, old)
