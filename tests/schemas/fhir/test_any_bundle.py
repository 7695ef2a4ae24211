"""Properties of any Bundle: order, units, removal, and arbitrary changes of its elements."""

import copy
import json
import math
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.request_errors import FieldError, InvalidPayload
from schemas.variables import load_variables
from tests.service.conftest import png
from tests.support.inputs import fhir_bundles as make

BUNDLE, _ = make.full_stay(png(24, 20))
CODED = [v for v in load_variables() if v.loinc and v.typical]
PAIRS = [(v, unit) for v in CODED for unit in v.units]


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
