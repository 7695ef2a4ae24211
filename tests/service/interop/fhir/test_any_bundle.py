"""Properties of any Bundle: order, units, removal, and arbitrary changes of its elements."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.conftest import png
from tests.support.inputs import fhir_bundles as make

BUNDLE, _ = make.full_stay(png(24, 20))


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_entries_does_not_matter(fhir, order):
    entries = copy.deepcopy(BUNDLE["entry"])
    order.shuffle(entries)
    shuffled, ordered = fhir.predict(BUNDLE | {"entry": entries}), fhir.predict(BUNDLE)
    assert shuffled.numbers() == ordered.numbers()
    assert shuffled.used() == ordered.used()
    assert sorted(shuffled.details("assumed")) == sorted(ordered.details("assumed"))


@pytest.mark.parametrize(
    ("code", "canonical", "other"),
    [
        ("2160-0", (1.5, "mg/dL"), (132.6, "umol/L")),
        ("8310-5", (39.0, "Cel"), (102.2, "[degF]")),
        ("2345-7", (180.16, "mg/dL"), (10.0, "mmol/L")),
    ],
)
def test_another_unit_gives_the_same_prediction(fhir, code, canonical, other):
    first, second = (
        fhir.predict(make.bundle(make.stay(), make.observation(code, *value, 2))).numbers()
        for value in (canonical, other)
    )
    for task, numbers in first.items():
        assert second[task] == pytest.approx(numbers, abs=2e-3), task


@settings(max_examples=12)
@given(st.sampled_from(range(2, len(BUNDLE["entry"]))))
def test_a_removed_resource_equals_one_that_was_never_sent(fhir, removed):
    """A removed observation is never replaced by a normal value: it equals one without a value."""
    rest = [entry for i, entry in enumerate(BUNDLE["entry"]) if i != removed]
    withdrawn = copy.deepcopy(BUNDLE)
    resource = withdrawn["entry"][removed]["resource"]
    resource["status"] = "entered-in-error"
    if resource["resourceType"] == "Observation":
        resource["dataAbsentReason"] = {"text": "unknown"}
    without = fhir.predict(BUNDLE | {"entry": rest})
    assert fhir.predict(withdrawn).numbers() == without.numbers()
    assert without.numbers().keys() == fhir.predict(BUNDLE).numbers().keys()
