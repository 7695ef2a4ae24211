"""The receipt has a bounded number of entries and counts observations."""

from schemas.features import FeatureSpec, extract_features
from schemas.payload import as_payload
from schemas.request_errors import MAX_LISTED

SPEC = FeatureSpec.default()
AS_OF, TIME = "2026-11-23T10:00:00Z", "2026-11-23T09:00:00Z"


def read(**parts):
    return extract_features(as_payload({"as_of": AS_OF, **parts}), SPEC).receipt


def series(variable, value, unit=None):
    given = {"variable": variable, "times": [TIME], "values": [value]}
    return given if unit is None else given | {"unit": unit}


def test_up_to_the_limit_entries_are_listed_individually():
    receipt = read(series=[series("zebra", 1)] * MAX_LISTED)
    assert [entry.pointer for entry in receipt.ignored] == [
        f"/series/{i}" for i in range(MAX_LISTED)
    ]
    assert all(entry.entries is None for entry in receipt.ignored)


def test_above_the_limit_equal_entries_are_merged():
    receipt = read(
        series=[series("zebra", 1), series("heart_rate", 9_999, "/min")] * 300,
        treatments=[{"name": "leeches", "start": TIME}] * 5,
    )
    unknown, implausible, treatment = receipt.ignored
    assert (unknown.reason, unknown.entries, unknown.observations) == ("unknown_variable", 300, 300)
    assert unknown.pointer == "/series/0"
    assert unknown.pointers == tuple(f"/series/{i}" for i in range(0, 2 * MAX_LISTED, 2))
    assert (implausible.reason, implausible.entries) == ("implausible_value", 300)
    assert (treatment.reason, treatment.entries) == ("unknown_treatment", 5)


def test_the_receipt_has_a_bounded_size():
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
    assert all(len(of_kind) <= MAX_LISTED for of_kind in entries)
    assert sum(entry.entries or 1 for entry in receipt.converted) == 300
    assert len(receipt.model_dump_json()) < 200_000


def test_the_receipt_counts_bounds_and_nulls():
    given = {"variable": "troponin_t", "unit": "ng/mL", "times": [TIME] * 3}
    receipt = read(series=[given | {"values": ["<0.01", None, 0.2]}])
    (bound,) = receipt.read_as
    assert (bound.pointer, bound.observations) == ("/series/0/values", 1)
    (null,) = receipt.ignored
    assert (null.pointer, null.reason, null.observations) == ("/series/0/values", "no_value", 1)
    assert receipt.used[0].observations == 1  # two values have the same time
