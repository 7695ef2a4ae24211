"""A request is parsed or refused by pointer and rule. No value is ever echoed."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.payload import InvalidPayload, as_payload, parse_payload

CANARY = "zebra-7391"
LATER = "2026-11-24T00:00:00Z"
VALID = {
    "patient_id": "opaque",
    "as_of": "2026-11-23T10:00:00Z",
    "tabular": {"age": 71, "sex": "female", "admitted_at": "2026-11-22T09:00:00Z"},
    "series": [
        {
            "variable": "heart_rate",
            "unit": "/min",
            "times": ["2026-11-22T10:00:00Z"],
            "values": [92],
        }
    ],
    "treatments": [{"name": "norepinephrine", "start": "2026-11-22T10:00:00Z", "end": None}],
    "notes": [{"kind": "admission", "time": "2026-11-22T10:00:00Z", "text": "Dyspnoea."}],
    "images": [{"time": "2026-11-22T10:00:00Z", "media_type": "image/png", "data": "aGVsbG8="}],
}


def changed(path, value):
    """Returns a copy of VALID with one value changed; `...` removes it."""
    copy = json.loads(json.dumps(VALID))
    *parents, last = path
    parent = copy
    for key in parents:
        parent = parent[key]
    if value is ...:
        del parent[last]
    else:
        parent[last] = value
    return copy


def faults(document):
    body = document if isinstance(document, str | bytes) else json.dumps(document)
    with pytest.raises(InvalidPayload) as caught:
        parse_payload(body)
    assert CANARY not in str(caught.value)
    assert all(CANARY not in error.model_dump_json() for error in caught.value.errors)
    return {(error.pointer, error.rule) for error in caught.value.errors}


def test_a_valid_request_is_parsed():
    payload = parse_payload(json.dumps(VALID))
    assert payload.series[0].values == [92.0]
    assert payload.images[0].data == b"hello"


@pytest.mark.parametrize("part", ["tabular", "series", "treatments", "notes", "images"])
def test_one_part_is_enough(part):
    parse_payload(json.dumps({"as_of": VALID["as_of"], part: VALID[part]}))


def test_json_and_python_values_give_the_same_payload():
    payload = parse_payload(json.dumps(VALID))
    assert parse_payload(payload.model_dump_json()) == payload
    assert as_payload(payload.model_dump()) == payload


@pytest.mark.parametrize(
    ("path", "value", "pointer", "rule"),
    [
        (["as_of"], ..., "/as_of", "required"),
        (["as_of"], "2026-11-23T10:00:00", "/as_of", "time_zone"),
        (["as_of"], "1700000000", "/as_of", "time_zone"),
        (["as_of"], 1700000000, "/as_of", "string"),
        (["as_of"], "2026-11-23", "/as_of", "time_zone"),
        (["as_of"], f"{CANARY}", "/as_of", "time_zone"),
        (["series", 0, "times"], ["2026-11-22T10:00:00"], "/series/0/times/0", "time_zone"),
        (["tabular", "shoe_size"], CANARY, "/tabular/shoe_size", "unknown_field"),
        (["series", 0, "values"], [92, 93], "/series/0", "same_length"),
        (["series", 0, "values"], [CANARY], "/series/0/values/0", "number"),
        (["series", 0, "values"], ["92"], "/series/0/values/0", "number"),
        (["series", 0, "values"], [True], "/series/0/values/0", "number"),
        (["series", 0, "values"], ["7,2"], "/series/0/values/0", "number"),
        (["series", 0, "values"], ["<7,2"], "/series/0/values/0", "number"),
        (["series", 0, "values"], [10**400], "/series/0/values/0", "finite_number"),
        (["tabular", "age"], "71", "/tabular/age", "number"),
        (["notes", 0, "text"], " ", "/notes/0/text", "not_empty"),
        (["notes", 0, "time"], ..., "/notes/0/time", "required"),
        (["images", 0, "data"], "not base64!", "/images/0/data", "base64"),
        (["images", 0, "media_type"], "image/gif", "/images/0/media_type", "allowed_values"),
        (["series", 0, "times"], ["2026-11-23T10:00:01Z"], "/series/0/times", "not_after_as_of"),
        (
            ["treatments", 0, "start"],
            "2027-01-01T00:00:00Z",
            "/treatments/0/start",
            "not_after_as_of",
        ),
        (["treatments", 0, "end"], "2026-11-21T00:00:00Z", "/treatments/0", "ordered"),
        (["notes", 0, "time"], "2026-11-23T10:00:00.5Z", "/notes/0/time", "not_after_as_of"),
        (
            ["tabular", "admitted_at"],
            "2026-11-24T00:00:00Z",
            "/tabular/admitted_at",
            "not_after_as_of",
        ),
        (["series"], {}, "/series", "array"),
        (["tabular"], CANARY, "/tabular", "object"),
    ],
)
def test_errors_name_pointer_and_rule(path, value, pointer, rule):
    assert (pointer, rule) in faults(changed(path, value))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_nan_and_infinity_are_refused(number):
    errors = faults(json.dumps(VALID).replace("92", number))
    assert errors in ({("/series/0/values/0", "finite_number")}, {("", "json")})


@pytest.mark.parametrize("body", ["", "{", CANARY, b"\xff\xfe", '{"as_of": }', "[" * 100_000])
def test_a_body_that_is_not_json_is_refused(body):
    assert faults(body) == {("", "json")}


@pytest.mark.parametrize("body", ["[]", "null", "7", f'"{CANARY}"'])
def test_json_that_is_not_an_object_is_refused(body):
    assert faults(body) == {("", "object")}


@pytest.mark.parametrize("part", [{}, {"tabular": {}}, {"series": []}, {"tabular": {"age": None}}])
def test_an_empty_request_is_refused(part):
    assert faults({"as_of": VALID["as_of"], **part}) == {("", "not_empty")}


def test_a_field_name_that_could_be_a_persons_name_is_withheld():
    assert faults(changed([f"{CANARY} Smith"], 1)) == {("/(name withheld)", "unknown_field")}


def test_all_errors_are_listed():
    wrong = changed(["tabular", "age"], "x")
    del wrong["as_of"]
    assert len(faults(wrong)) == 2


def test_as_of_may_be_in_the_past_or_future():
    for year in (1999, 2150):
        document = {"as_of": f"{year}-01-01T00:00:00+05:30", "tabular": {"age": 3}}
        parse_payload(json.dumps(document))


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.just(CANARY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
paths = st.sampled_from(
    [
        ["as_of"],
        ["tabular"],
        ["tabular", "age"],
        ["series"],
        ["series", 0],
        ["series", 0, "unit"],
        ["series", 0, "times"],
        ["series", 0, "values"],
        ["treatments", 0, "rate"],
        ["notes", 0, "text"],
        ["images", 0, "data"],
    ]
)


@given(path=paths, value=json_values)
def test_any_value_is_parsed_or_refused_without_an_echo(path, value):
    document = changed(path, value)
    try:
        parse_payload(json.dumps(document))
    except InvalidPayload as refused:
        text = "".join(error.model_dump_json() for error in refused.errors)
        assert CANARY not in text


@given(
    time=st.datetimes(timezones=st.timezones()),
    written=st.sampled_from([str, str.lower, lambda text: text.replace("+00:00", "Z")]),
)
def test_a_time_with_a_zone_keeps_its_moment(time, written):
    offset = time.utcoffset()
    assume(offset is not None and offset.total_seconds() % 60 == 0)  # RFC 3339 has no seconds in it
    body = json.dumps({"as_of": written(time.isoformat()), "tabular": {"age": 60}})
    assert parse_payload(body).as_of.timestamp() == time.timestamp()


@pytest.mark.parametrize("zone", ["", "+05", "+24:00", " Z", "UTC"])
def test_a_time_with_an_invalid_zone_is_refused(zone):
    with pytest.raises(InvalidPayload) as refused:
        parse_payload(json.dumps({"as_of": f"2031-05-04T12:00:00{zone}", "tabular": {"age": 60}}))
    assert [error.rule for error in refused.value.errors] == ["time_zone"]
