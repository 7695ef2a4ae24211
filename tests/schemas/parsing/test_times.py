"""Times are parsed to the correct moment, or refused with the reason."""

import json
from datetime import UTC, datetime

import pytest

from schemas.payload import InvalidPayload, as_payload, parse_payload

TEN = datetime(2026, 11, 23, 10, tzinfo=UTC)


def read(time):
    """Parses a time from JSON and from Python values."""
    document = {"as_of": time, "tabular": {"age": 71}}
    as_of = parse_payload(json.dumps(document)).as_of
    assert as_payload(document).as_of == as_of
    return as_of


def refusal(time, *, in_series=False):
    document = {"as_of": time, "tabular": {"age": 71}}
    if in_series:
        series = {"variable": "heart_rate", "unit": "/min", "times": [time], "values": [1]}
        document = {"as_of": "2031-05-04T12:00:00Z", "series": [series]}
    faults = []
    for parse in (as_payload, lambda d: parse_payload(json.dumps(d))):
        with pytest.raises(InvalidPayload) as caught:
            parse(document)
        faults.append(caught.value.errors)
    assert faults[0] == faults[1], "JSON and Python values must give the same errors"
    (fault,) = faults[0]
    assert fault.pointer == ("/series/0/times/0" if in_series else "/as_of")
    return fault.rule, fault.detail


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T10:00:00Z",
        "2026-11-23T10:00:00z",
        "2026-11-23t10:00:00Z",
        "2026-11-23 10:00:00+00:00",
        "2026-11-23 10:00:00Z",
        "2026-11-23T10:00:00+0000",
        "2026-11-23T10:00Z",
        "2026-11-23T10:00:00-00:00",
        "2026-11-23T11:30:00+01:30",
        "2026-11-23T10:00:00.0Z",
        "2026-11-23T10:00:00.0000000000000Z",
        "2026-11-23T10:00:00,000+00:00",
        "2026-11-23T10:00:00." + "0" * 1000 + "Z",
    ],
)
def test_spellings_of_a_moment_are_equivalent(text):
    assert read(text) == TEN


def test_hour_24_is_midnight_of_the_next_day():
    assert read("2026-11-23T24:00:00Z") == datetime(2026, 11, 24, tzinfo=UTC)
    assert read("2026-11-23T24:00Z") == datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2016-12-31T23:59:60Z", "2017-01-01T00:59:60.5+01:00"])
def test_a_leap_second_is_read_as_the_next_second(text):
    assert read(text) == datetime(2017, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_the_first_and_last_year_are_accepted(text):
    assert read(text).year in (1, 9999)


@pytest.mark.parametrize(
    ("text", "rule", "reason"),
    [
        ("2026-11-23T10:00:00", "time_zone", "no time zone"),
        ("2026-11-23 10:00:00.5", "time_zone", "no time zone"),
        ("2026-11-23", "time_zone", "date without a time"),
        ("2026-11-23T10:00:00+00", "time_zone", "hours and minutes"),
        ("2026-11-23T10:00:00 UTC", "time_zone", "hours and minutes"),
        ("2026-11-23T10:00:00+25:00", "time_zone", "hours and minutes"),
        ("2026-11-23T10:00:00+01:99", "time_zone", "hours and minutes"),
        ("2026-11-23T10:00.00Z", "date_time", "RFC 3339"),
        ("2026-W47-1T10:00:00Z", "date_time", "RFC 3339"),
        ("2026-02-30T10:00:00Z", "date_time", "not a valid date"),
        ("2026-13-01T10:00:00Z", "date_time", "not a valid date"),
        ("0000-01-01T00:00:00Z", "date_time", "not a valid date"),
        ("2026-11-23T25:00:00Z", "date_time", "not a valid date"),
        ("2026-11-23T10:61:00Z", "date_time", "not a valid date"),
        ("2026-11-23T24:00:01Z", "date_time", "not a valid date"),
        ("2026-11-23T10:00:60Z", "date_time", "not a valid date"),
        ("9999-12-31T24:00:00Z", "date_time", "not a valid date"),
        ("20261123T100000Z", "date_time", "RFC 3339"),
        ("23.11.2026 10:00:00Z", "date_time", "RFC 3339"),
        ("2026-11-23T1:00:00Z", "date_time", "RFC 3339"),
        ("yesterday", "time_zone", "RFC 3339"),
        (1_700_000_000, "string", "string"),
        (None, "string", "string"),
        (True, "string", "string"),
        (["2026-11-23T10:00:00Z"], "string", "string"),
    ],
)
@pytest.mark.parametrize("in_series", [False, True])
def test_an_invalid_time_is_refused_with_the_reason(text, rule, reason, in_series):
    actual, detail = refusal(text, in_series=in_series)
    assert actual == rule
    assert reason in detail


def test_a_naive_datetime_is_refused():
    with pytest.raises(InvalidPayload) as caught:
        as_payload({"as_of": datetime(2026, 11, 23), "tabular": {"age": 71}})  # noqa: DTZ001
    assert [fault.rule for fault in caught.value.errors] == ["time_zone"]
