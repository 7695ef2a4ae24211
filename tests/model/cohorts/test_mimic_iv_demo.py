"""The MIMIC-IV reader, on the open demo."""

from collections import Counter
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from model.cohorts.mimic_iv import read
from schemas.features import STATISTICS, FeatureSpec, extract_features
from tests.support.inputs.mimic_iv import series


@pytest.fixture(scope="module")
def demo(open_data):
    return open_data("mimic-iv-demo-2.2", "mimic-iv-demo-meds-0.0.1")


@pytest.fixture(scope="module")
def records(demo):
    return list(read(demo))


def test_a_stay_has_a_record_at_each_landmark_in_the_unit(records):
    # 137 stays last six hours; one of the patients had already died and was signed out later.
    assert Counter(r.landmark_hours for r in records) == {6: 136, 12: 134, 24: 117, 48: 74}
    assert len({r.patient for r in records}) <= 100
    assert {r.site for r in records} == {"mimic_iv"}
    for record in records:
        admitted = record.payload.tabular.admitted_at
        assert record.payload.as_of - admitted == timedelta(hours=record.landmark_hours)


def test_no_time_is_after_as_of(records):
    for payload in (r.payload for r in records):
        times = [time for s in payload.series for time in s.times]
        times += [time for t in payload.treatments for time in (t.start, t.end) if time]
        assert max(times) <= payload.as_of
        assert min(time for s in payload.series for time in s.times) > payload.as_of - timedelta(
            hours=48
        )


def test_a_later_record_holds_the_values_of_the_earlier_record(records):
    """Within the window of the later record."""
    by_moment = {(r.stay, r.landmark_hours): r for r in records}
    for (stay, landmark), early in by_moment.items():
        late = by_moment.get((stay, 12))
        if landmark == 6 and late is not None:
            begin = late.payload.as_of - timedelta(hours=48)
            rates = {row for row in series(early, "heart_rate") if row[1] > begin}
            assert rates <= set(series(late, "heart_rate"))


def test_vital_signs_come_from_meds_without_chart_events(demo, records):
    record = next(r for r in records if r.landmark_hours == 24)
    begin = record.payload.as_of - timedelta(hours=48)
    charted = (
        pl.scan_parquet(demo / "mimic-iv-demo-meds-0.0.1/*.parquet")
        .filter(pl.col("subject_id") == int(record.patient), pl.col("code") == "LAB//220045//bpm")
        .with_columns(pl.col("time").dt.replace_time_zone("UTC"))
        .filter(pl.col("time") > begin, pl.col("time") <= record.payload.as_of)
        .collect()
    )
    rates = series(record, "heart_rate")
    assert Counter(v for _, _, v in rates) == Counter(charted["value"].to_list())
    assert {unit for unit, _, _ in rates} == {"/min"}


def test_laboratory_results_are_known_from_storage_and_count_once(demo, records):
    """MEDS holds the results too, without storage times. Item 51250 is never charted."""
    results = pl.read_csv(
        demo / "mimic-iv-demo-2.2/hosp/labevents.csv.gz",
        columns=["subject_id", "itemid", "charttime", "storetime", "valuenum"],
        try_parse_dates=True,
    )
    volumes: dict[str, list[tuple[datetime, datetime, float]]] = {}
    for patient, drawn, stored, value in (
        results.filter(pl.col("itemid") == 51250, pl.col("valuenum").is_not_null())
        .with_columns(pl.col("charttime", "storetime").dt.replace_time_zone("UTC"))
        .select("subject_id", "charttime", "storetime", "valuenum")
        .iter_rows()
    ):
        volumes.setdefault(str(patient), []).append((drawn, stored or drawn, value))
    pending = 0
    for record in records:
        as_of = record.payload.as_of
        recent = [v for v in volumes[record.patient] if as_of - v[0] < timedelta(hours=48)]
        known = [("fL", drawn, value) for drawn, stored, value in recent if stored <= as_of]
        assert sorted(series(record, "mean_corpuscular_volume")) == sorted(known)
        pending += sum(drawn <= as_of < stored for drawn, stored, _ in recent)
    assert pending > 5


def test_fahrenheit_is_converted_to_celsius(records):
    spec = FeatureSpec.default()
    temperature, last = spec.variable_index["temperature"], STATISTICS.index("last")
    converted = 0
    for record in (r for r in records if r.landmark_hours == 24):
        made = extract_features(record.payload, spec)
        if {unit for unit, _, _ in series(record, "temperature")} == {"[degF]"}:
            *_, (_, _, fahrenheit) = series(record, "temperature")
            celsius = made.arrays["series"]["statistics"][temperature, last]
            assert celsius == pytest.approx((fahrenheit - 32) / 1.8, abs=1e-3)
            assert "temperature" in {c.variable for c in made.receipt.converted}
            converted += 1
    assert converted > 50


def test_every_record_becomes_features(records):
    spec = FeatureSpec.default()
    heart_rate = spec.variable_index["heart_rate"]
    arrays = [extract_features(r.payload, spec).arrays for r in records]
    assert all(set(modalities) == {"tabular", "series"} for modalities in arrays)
    last = np.array([a["series"]["statistics"][heart_rate, 0] for a in arrays])
    assert np.isfinite(last).sum() == len(records) - 1  # one patient arrived late from surgery


def test_the_demo_has_running_and_ended_infusions(records):
    given = [t for r in records for t in r.payload.treatments if t.name == "norepinephrine"]
    assert any(t.end is None for t in given)
    assert any(t.end is not None for t in given)


def test_outcomes_are_of_the_hospital_stay(records):
    at_24 = {r.stay: r for r in records if r.landmark_hours == 24}
    # Admission to the unit on 20 November at 19:18:02, discharge on the 25th at 18:00:00: one day
    # after admission, 3 days, 22 hours, 41 minutes and 58 seconds remain.
    remaining = 3 + (22 * 3600 + 41 * 60 + 58) / 86400
    assert at_24["37067082"].outcomes["length_of_stay"] == pytest.approx(remaining)
    assert Counter(r.outcomes.get("discharge_disposition") for r in at_24.values()) == {
        "home": 59,
        "post_acute": 36,
        "died": 14,
        "other_facility": 2,
        None: 6,  # hospice, against advice
    }
    assert sum(bool(r.outcomes["in_hospital_mortality"]) for r in at_24.values()) == 14
    assert sum(bool(r.outcomes["hypertension"]) for r in at_24.values()) == 75
