"""The receipt says what became of the input, in a bounded number of entries."""

from schemas.features import FeatureSpec, features
from schemas.payload import as_payload
from schemas.request_errors import LISTED

SPEC = FeatureSpec.default()
AS_OF, TIME = "2026-11-23T10:00:00Z", "2026-11-23T09:00:00Z"


def read(**parts):
    return features(as_payload({"as_of": AS_OF, **parts}), SPEC).receipt


def series(variable, value, unit=None):
    given = {"variable": variable, "times": [TIME], "values": [value]}
    return given if unit is None else given | {"unit": unit}


def test_a_few_entries_are_listed_one_by_one():
    receipt = read(series=[series("zebra", 1)] * LISTED)
    assert [entry.pointer for entry in receipt.ignored] == [f"/series/{i}" for i in range(LISTED)]
    assert all(entry.entries is None for entry in receipt.ignored)


def test_of_many_entries_those_that_say_the_same_are_one():
    receipt = read(
        series=[series("zebra", 1), series("heart_rate", 9_999, "/min")] * 300,
        treatments=[{"name": "leeches", "start": TIME}] * 5,
    )
    unknown, implausible, treatment = receipt.ignored
    assert (unknown.reason, unknown.entries, unknown.observations) == ("unknown_variable", 300, 300)
    assert unknown.pointer == "/series/0"
    assert unknown.pointers == tuple(f"/series/{i}" for i in range(0, 2 * LISTED, 2))
    assert (implausible.reason, implausible.entries) == ("implausible_value", 300)
    assert (treatment.reason, treatment.entries) == ("unknown_treatment", 5)


def test_entries_of_every_kind_are_bounded():
    spellings = [f"zebra {i}" for i in range(500)]
    receipt = read(
        series=[series("temperature", 98.6, "[degF]"), series("troponin_t", "<0.01", "ng/mL")]
        * 300,
        treatments=[
            {"name": "Levophed", "start": TIME, "rate": i, "unit": "ug/min"} for i in range(300)
        ]
        + [{"name": name, "start": TIME} for name in spellings],
    )
    entries = (receipt.ignored, receipt.read_as, receipt.converted, receipt.merged)
    assert all(len(of_kind) <= LISTED for of_kind in entries)
    assert sum(entry.entries or 1 for entry in receipt.converted) == 300
    assert len(receipt.model_dump_json()) < 200_000


def test_bounds_and_nulls_are_counted():
    given = {"variable": "troponin_t", "unit": "ng/mL", "times": [TIME] * 3}
    receipt = read(series=[given | {"values": ["<0.01", None, 0.2]}])
    (bound,) = receipt.read_as
    assert (bound.pointer, bound.observations) == ("/series/0/values", 1)
    (null,) = receipt.ignored
    assert (null.pointer, null.reason, null.observations) == ("/series/0/values", "no_value", 1)
    assert receipt.used[0].observations == 1  # two values of one time
