"""Limits on bodies: memory, number of values, listed errors; bounds, nulls and repeated names."""

import json
import subprocess
import sys
import textwrap

import pytest

from schemas.parsing.json_body import MAX_CONTAINERS, MAX_NAMES, MAX_VALUES
from schemas.payload import (
    MAX_IMAGES,
    MAX_ITEMS,
    InvalidPayload,
    Payload,
    as_payload,
    parse_payload,
)
from service.prediction.jobs import parse_batch

AS_OF = '"as_of":"2026-11-23T10:00:00Z"'
TIME = '"2026-11-23T09:00:00Z"'
MEBIBYTE = 2**20


def of_series(element, count):
    return f'{{{AS_OF},"series":[{element * (count - 1)}{element[:-1]}]}}'


def with_values(value, count, times=TIME):
    values = value * (count - 1) + value[:-1]
    return (
        f'{{{AS_OF},"series":[{{"variable":"heart_rate","unit":"/min",'
        f'"times":[{times}],"values":[{values}]}}]}}'
    )


# Bodies of about 2 MB. Without lazy validation they took up to 3.7 GB and 30 seconds.
INVALID = {
    "numbers as series": (of_series("1,", 1_000_000), "/series/{}", "object"),
    "arrays as series": (of_series("[],", 700_000), "/series/{}", "object"),
    "empty series": (of_series("{},", 700_000), "/series/{}/variable", "required"),
    "text as values": (with_values('"a",', 500_000), "/series/0/values/{}", "number"),
    "too large numbers": (with_values("1e999,", 400_000), "/series/0/values/{}", "finite_number"),
    "not a number": (with_values("NaN,", 500_000), "/series/0/values/{}", "finite_number"),
    "wrong times": (
        with_values("1,", 1, '"x",' * 500_000 + '"x"'),
        "/series/0/times/{}",
        "time_zone",
    ),
    "unknown fields": (
        f"{{{AS_OF}" + "".join(f',"f{i}":1' for i in range(200_000)) + "}",
        "/f{}",
        "unknown_field",
    ),
    "wrong treatments": (
        f'{{{AS_OF},"treatments":[' + ",".join(['{"name":"x","start":"x"}'] * 90_000) + "]}",
        "/treatments/{}/start",
        "time_zone",
    ),
}


def read(body, *, batch):
    if not batch:
        return parse_payload(body)
    (payload,) = parse_batch(f'{{"items":[{body}]}}'.encode(), 64)
    return as_payload(payload)


@pytest.mark.parametrize("kind", INVALID)
@pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
def test_the_first_hundred_errors_are_listed_in_order(kind, batch):
    body, pointer, rule = INVALID[kind]
    with pytest.raises(InvalidPayload) as caught:
        read(body, batch=batch)
    assert len(caught.value.errors) == 101
    end = pointer.rpartition("}")[2]
    first = [f for f in caught.value.errors[:100] if f.rule == rule and f.pointer.endswith(end)]
    assert [fault.pointer for fault in first] == [pointer.format(i) for i in range(len(first))]
    assert len(first) >= 33


MEASURE = """
    import sys
    from schemas.payload import InvalidPayload, as_payload, parse_payload
    from service.prediction.jobs import parse_batch

    def peak():
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    body = sys.stdin.buffer.read()
    before = peak()
    try:
        for payload in parse_batch(body, 64) if sys.argv[1] == "batch" else []:
            as_payload(payload)
        if sys.argv[1] == "one":
            parse_payload(body)
    except InvalidPayload:
        pass
    print(peak() - before)
"""


def memory_growth(body, mode):
    """Returns by how many megabytes a process grows when it parses the body."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), mode],
        input=body,
        capture_output=True,
        check=True,
        timeout=60,
    )
    return float(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(
    "body",
    [
        INVALID["empty series"][0],
        INVALID["text as values"][0],
        INVALID["unknown fields"][0],
        of_series("1,", 16 * MEBIBYTE),
        of_series("[],", 10 * MEBIBYTE),
        of_series('{"x":1},', 4 * MEBIBYTE),
        with_values('"<1",', 800_000, ",".join([TIME] * 800_000)),
        "[" * MEBIBYTE,
    ],
    ids=[
        "empty series",
        "text as values",
        "unknown fields",
        "numbers, 32 MiB",
        "arrays, 30 MiB",
        "objects, 32 MiB",
        "valid",
        "deep",
    ],
)
@pytest.mark.parametrize("mode", ["one", "batch"])
def test_parsing_takes_at_most_300_mb(body, mode):
    body = body if mode == "one" else f'{{"items":[{body}]}}'
    assert memory_growth(body.encode(), mode) < 300


def only_error(body):
    with pytest.raises(InvalidPayload) as caught:
        parse_payload(body)
    (error,) = caught.value.errors
    return error.pointer, error.rule


@pytest.mark.parametrize(
    ("element", "limit"), [("1,", MAX_VALUES), ("[],", MAX_CONTAINERS), ('{"a":1},', MAX_NAMES)]
)
def test_a_body_that_exceeds_a_limit_is_refused_before_parsing(element, limit):
    assert only_error(of_series(element, limit + 1)) == ("", "too_many_values")


def test_commas_and_brackets_in_strings_do_not_count():
    text = '[{,\\"\\\\:' * 150_000
    body = f'{{{AS_OF},"notes":[{{"time":{TIME},"text":"{text}"}}]}}'
    assert len(parse_payload(body).notes[0].text) == 6 * 150_000
    body = f'{{{AS_OF},"patient_id":"{text * 8}","tabular":{{"age":3}}}}'
    assert parse_payload(body).tabular.age == 3


@pytest.mark.parametrize(
    ("part", "limit"),
    [
        ("series", MAX_ITEMS),
        ("treatments", MAX_ITEMS),
        ("notes", MAX_ITEMS),
        ("images", MAX_IMAGES),
    ],
)
def test_lists_are_limited_as_openapi_states(part, limit):
    with pytest.raises(InvalidPayload) as caught:
        parse_payload(f'{{{AS_OF},"{part}":[{"1," * limit}1]}}')
    first, second, *_ = caught.value.errors
    assert (first.pointer, first.rule) == (f"/{part}", "max_items")
    assert (second.pointer, second.rule) == (f"/{part}/0", "object")
    assert Payload.model_json_schema()["properties"][part]["maxItems"] == limit


@pytest.mark.parametrize("padding", ["", " " * 100_000], ids=["short", "long"])
@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ('{"as_of":%s,"tabular":{"age":3,"age":4}}', "/tabular"),
        ('{"as_of":%s,"tabular":{"age":3,"age" :4}}', "/tabular"),
        ('{"as_of":%s,"tabular":{"age":3,"age"\\n\\t:4}}'.replace("\\n\\t", "\n\t"), "/tabular"),
        ('{"as_of":%s,"tabular":{"age":3},"tabular":{"age":3}}', ""),
        ('{"as_of":%s,"patient_id":"\\":","tabular":{"age":3,"\\u0061ge":4}}', "/tabular"),
    ],
)
def test_repeated_member_names_are_refused(text, pointer, padding):
    assert only_error(text % TIME + padding) == (pointer, "repeated_name")


@pytest.mark.parametrize("padding", ["", " " * 100_000], ids=["short", "long"])
def test_text_that_looks_like_a_member_name_is_not_counted(padding):
    notes = json.dumps(
        [{"time": "2026-11-23T09:00:00Z", "text": 'the form lists ": no" and "age": 3'}]
    )
    payload = parse_payload(f'{{{AS_OF},"patient_id":":","notes":{notes}}}{padding}')
    assert payload.patient_id == ":"


def test_a_utf_8_byte_order_mark_is_ignored():
    body = f'{{{AS_OF},"tabular":{{"age":71}}}}'.encode()
    assert parse_payload(b"\xef\xbb\xbf" + body) == parse_payload(body)
    assert parse_batch(b"\xef\xbb\xbf" + b'{"items":[1]}', 64) == [1]


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_the_refusal_of_another_encoding_names_it(coding):
    with pytest.raises(InvalidPayload) as caught:
        parse_payload(f'{{{AS_OF},"tabular":{{"age":71}}}}'.encode(coding))
    (error,) = caught.value.errors
    assert error.rule == "json"
    assert "UTF-16" in error.detail


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("<0.01", 0.01),
        ("< 0.01", 0.01),
        (">200", 200),
        ("<=5", 5),
        (">= 5", 5),
        ("\u2264 5", 5),
        ("\u2265100", 100),
        ("Less than 0.5", 0.5),
        ("<1e-2", 0.01),
    ],
)
def test_a_bound_is_read_as_its_number(text, bound):
    body = {"variable": "lactate", "unit": "mmol/L", "times": ["2026-11-23T09:00:00Z"] * 2}
    document = {"as_of": "2026-11-23T10:00:00Z", "series": [body | {"values": [2, text]}]}
    (series,) = parse_payload(json.dumps(document)).series
    assert series.values == [2, bound]
    assert series.bounds == 1


@pytest.mark.parametrize("text", ["7,2", "<7,2", "7.2", "< ", "<1.2.3", "", "NEG", "<" + "1" * 50])
def test_other_text_is_not_a_number(text):
    with pytest.raises(InvalidPayload) as caught:
        parse_payload(with_values(json.dumps(text) + ",", 1))
    assert [(f.pointer, f.rule) for f in caught.value.errors] == [("/series/0/values/0", "number")]


def test_a_null_value_is_removed_with_its_time():
    series = {"variable": "lactate", "times": ["2026-11-23T09:00:00Z", "2026-11-23T08:00:00Z"]}
    document = {"as_of": "2026-11-23T10:00:00Z", "series": [series | {"values": [None, 2.5]}]}
    (parsed,) = parse_payload(json.dumps(document)).series
    assert parsed.values == [2.5]
    assert [time.hour for time in parsed.times] == [8]
    assert parsed.nulls == 1
    document["series"][0]["values"] = [None, None]
    assert parse_payload(json.dumps(document)).series[0].values == []


def test_long_and_short_bodies_give_the_same_values():
    times, count = f"{TIME},", 200_000
    long = parse_payload(with_values("71.25,", count, times * (count - 1) + TIME)).series[0]
    short = parse_payload(with_values("71.25,", 2, times + TIME)).series[0]
    assert len(long.values) == count
    assert (set(long.values), set(long.times)) == (set(short.values), set(short.times))


@pytest.mark.parametrize("number", ["NaN", "1e999", "1,"])
def test_a_long_body_that_is_not_json_is_refused(number):
    with pytest.raises(InvalidPayload) as caught:
        parse_payload(with_values("1.25,", MEBIBYTE)[:-3] + f",{number}]}}]}}")
    assert [(fault.pointer, fault.rule) for fault in caught.value.errors] == [("", "json")]


@pytest.mark.parametrize("padding", [0, 5 * MEBIBYTE])
@pytest.mark.parametrize("depth", [150, 900, 1_020, 100_000])
def test_deep_nesting_with_a_repeated_name_is_refused(depth, padding):
    deep = '{"x":' * depth + "1" + "}" * depth
    body = f'{{"items":[{{"a":1,"a":{deep},"b":"{"y" * padding}"}}]}}'
    with pytest.raises(InvalidPayload):
        parse_batch(body.encode(), 64)
