"""Properties of any Bundle: order, units, removal, and arbitrary changes of its elements."""

import copy
import json
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.request_errors import FieldError, InvalidPayload
from schemas.variables import load_variables
from tests.service.conftest import png
from tests.support.inputs import fhir_bundles as make

BUNDLE, _ = make.full_stay(png(24, 20))
CODED = [v for v in load_variables() if v.loinc and v.typical]
PAIRS = [(v, unit) for v in CODED for unit in v.units]


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_entries_does_not_matter(fhir, order):
    entries = copy.deepcopy(BUNDLE["entry"])
    order.shuffle(entries)
    shuffled, ordered = fhir.predict(BUNDLE | {"entry": entries}), fhir.predict(BUNDLE)
    assert shuffled.numbers() == ordered.numbers()
    assert shuffled.used() == ordered.used()
    assert sorted(shuffled.details("assumed")) == sorted(ordered.details("assumed"))


@settings(max_examples=60)
@given(st.sampled_from(PAIRS), st.floats(0.1, 0.9))
def test_any_accepted_unit_is_read_as_the_canonical_unit(reader, pair, share):
    variable, unit = pair
    low, high = variable.typical
    value = low + share * (high - low)
    factor, offset = variable.units[unit]
    code = next(c for c in variable.loinc if c not in variable.moles_only)
    sent = make.observation(code, (value - offset) / factor, unit, 2)
    record = reader(make.bundle(sent))
    (((name, read_unit), group),) = record.groups.items()
    _, conversion = record.spec.look_up(name, read_unit)
    (number,) = group.values
    assert math.isclose(number * conversion.factor + conversion.offset, value, rel_tol=1e-9)


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


ODD_VALUES = [
    None,
    True,
    0,
    -1,
    1e308,
    "",
    " ",
    "x",
    [],
    {},
    [[]],
    [{}],
    {"reference": "#"},
    [None],
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all parts of a document."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path] if path else []
    for key, part in parts if isinstance(value, dict | list) else ():
        found += places(part, (*path, key)) if isinstance(part, dict | list) else [(*path, key)]
    return found


PLACES = places(BUNDLE)


@settings(max_examples=400)
@given(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_any_change_is_read_or_refused_with_a_place(reader, changes, draw):
    """No element of any type makes the reader fail in another way."""
    body = copy.deepcopy(BUNDLE)
    for path in changes:
        set_at(body, path, draw.choice(ODD_VALUES))
    for error in errors_of(reader, body):
        assert error.rule
        assert error.detail


def errors_of(reader: Any, body: Any) -> Sequence[FieldError]:
    try:
        reader(body)
    except InvalidPayload as error:
        return error.errors
    return ()


def set_at(document: Any, path: tuple[Any, ...], value: Any) -> None:
    *heads, last = path
    for key in heads:
        try:
            document = document[key]
        except (KeyError, IndexError, TypeError):
            return
    try:
        document[last] = value
    except (IndexError, TypeError):
        return


def test_every_element_may_be_removed(reader):
    draw = random.Random(7)
    for path in draw.sample(PLACES, 150):
        body = json.loads(json.dumps(BUNDLE))
        parent = body
        for key in path[:-1]:
            parent = parent[key]
        del parent[path[-1]]
        assert all(error.detail for error in errors_of(reader, body))
