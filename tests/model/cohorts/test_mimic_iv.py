"""The MIMIC-IV reader, on the open demo and on a made-up hospital.

The demo lacks chart events, infusions, notes and X-rays. `hospital` writes a few of each in the
official layout, for one patient who was admitted to the unit at noon on the first of May.
"""

import gzip
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.cohorts import DataMissing, Record
from model.cohorts.mimic_iv import read
from schemas.features import STATISTICS, FeatureSpec, features

NOON = datetime(2150, 5, 1, 12, tzinfo=UTC)

TABLES = {
    "hosp/patients": """
        subject_id,gender,anchor_age,anchor_year,anchor_year_group
        1,F,70,2148,2011 - 2013
    """,
    "hosp/admissions": """
        subject_id,hadm_id,dischtime,deathtime,admission_type,admission_location,discharge_location,hospital_expire_flag,race
        1,2,2150-05-11 12:00:00,,EW EMER.,EMERGENCY ROOM,HOME,0,BLACK/CAPE VERDEAN
    """,
    "hosp/transfers": """
        subject_id,hadm_id,careunit,intime
        1,2,PACU,2150-05-01 09:00:00
        1,2,Coronary Care Unit (CCU),2150-05-01 12:00:00
        1,2,,2150-05-11 12:00:00
    """,
    "hosp/diagnoses_icd": """
        subject_id,hadm_id,icd_code,icd_version
        1,2,4019,9
    """,
    "hosp/omr": """
        subject_id,chartdate,result_name,result_value
        1,2150-03-01,Height (Inches),65
        1,2150-03-01,Weight (Lbs),150
    """,
    "hosp/labevents": """
        subject_id,itemid,charttime,storetime,valuenum,valueuom
        1,50983,2150-05-01 10:00:00,2150-05-01 11:00:00,140,mEq/L
        1,50983,2150-05-01 17:00:00,2150-05-01 19:00:00,120,mEq/L
    """,
    "hosp/prescriptions": """
        subject_id,starttime,stoptime,drug,route
        1,2150-04-30 08:00:00,2150-05-05 08:00:00,Aspirin,PO
    """,
    "icu/icustays": """
        subject_id,hadm_id,stay_id,first_careunit,intime,outtime
        1,2,3,Coronary Care Unit (CCU),2150-05-01 12:00:00,2150-05-02 12:00:00
    """,
    "icu/chartevents": """
        subject_id,itemid,charttime,storetime,valuenum,valueuom
        1,220045,2150-05-01 13:00:00,2150-05-01 13:10:00,88,bpm
        1,223761,2150-05-01 14:00:00,2150-05-01 14:05:00,98.6,°F
    """,
    "icu/outputevents": """
        subject_id,itemid,charttime,storetime,value,valueuom
        1,226559,2150-05-01 14:00:00,2150-05-01 14:00:00,60,ml
    """,
    "icu/inputevents": """
        subject_id,itemid,starttime,endtime,rate,rateuom
        1,221906,2150-05-01 13:00:00,2150-05-01 16:00:00,0.05,mcg/kg/min
        1,221906,2150-05-01 16:00:00,2150-05-01 20:00:00,0.1,mcg/kg/min
    """,
    "icu/procedureevents": """
        subject_id,itemid,starttime,endtime
        1,225792,2150-05-01 12:30:00,2150-05-01 15:00:00
    """,
}


def hospital(folder: Path, **changed: str) -> Path:
    """Writes the tables; `changed` replaces the rows of a table (`hosp__omr="1,..."`)."""
    root = folder / "mimiciv" / "3.1"
    for name, text in TABLES.items():
        header, *rows = text.split("\n")[1:-1]
        rows = changed.get(name.replace("/", "__"), "\n".join(rows)).splitlines()
        write(root / f"{name}.csv.gz", "\n".join(line.strip() for line in [header, *rows]))
    return folder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(f"{text}\n".encode()))


def at(records: list[Record], hours: int) -> Record:
    [record] = [r for r in records if r.landmark_hours == hours]
    return record


def series(record: Record, variable: str) -> list[tuple[str | None, datetime, float]]:
    return [
        (s.unit, time, value)
        for s in record.payload.series
        if s.variable == variable
        for time, value in zip(s.times, s.values, strict=True)
    ]


def hour(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


# --- The open demo


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
        made = features(record.payload, spec)
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
    arrays = [features(r.payload, spec).arrays for r in records]
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


# --- A made-up hospital


def test_the_official_layout_is_read(tmp_path):
    records = list(read(hospital(tmp_path)))
    assert [r.landmark_hours for r in records] == [6, 12, 24]
    payload = at(records, 6).payload
    assert payload.as_of == hour(6)
    assert payload.tabular.model_dump() == {
        "age": 72,
        "sex": "female",
        "height_cm": pytest.approx(165.1),
        "weight_kg": pytest.approx(68.04, abs=0.01),
        "admission_source": "operating_room",
        "unit_type": "cardiac_icu",
        "admitted_at": NOON,
    }
    assert series(at(records, 6), "heart_rate") == [("/min", hour(1), 88)]
    assert series(at(records, 6), "temperature") == [("[degF]", hour(2), 98.6)]
    assert series(at(records, 6), "urine_output") == [("mL", hour(2), 60)]
    assert (at(records, 6).patient, at(records, 6).stay) == ("1", "3")


def test_a_result_is_known_from_storage_and_has_the_time_of_the_draw(tmp_path):
    records = list(read(hospital(tmp_path)))
    before = ("meq/L", hour(-2), 140)  # in the operating room
    assert series(at(records, 6), "sodium") == [before]
    assert series(at(records, 12), "sodium") == [before, ("meq/L", hour(5), 120)]


def test_a_treatment_has_an_end_once_it_has_ended(tmp_path):
    records = list(read(hospital(tmp_path)))

    def given(hours):
        payload = at(records, hours).payload
        return [(t.name, t.start, t.end, t.rate, t.unit) for t in payload.treatments]

    assert given(6) == [
        ("aspirin", hour(-28), None, None, None),
        ("mechanical_ventilation", hour(0.5), hour(3), None, None),
        ("norepinephrine", hour(1), hour(4), 0.05, "ug/kg/min"),
        ("norepinephrine", hour(4), None, 0.1, "ug/kg/min"),
    ]
    assert given(12)[-1] == ("norepinephrine", hour(4), hour(8), 0.1, "ug/kg/min")


def test_an_order_for_a_drip_does_not_count_as_given(tmp_path):
    orders = """
        1,2150-05-01 08:00:00,2150-05-05 08:00:00,PHENYLEPHrine,IV DRIP
        1,2150-05-01 08:00:00,2150-05-05 08:00:00,Furosemide,IV
        1,2150-05-01 08:00:00,2150-05-01 07:00:00,Vancomycin,IV
    """.strip()
    [first, *_] = read(hospital(tmp_path, hosp__prescriptions=orders))
    names = {t.name for t in first.payload.treatments}
    assert "furosemide" in names
    assert not names & {"phenylephrine", "vancomycin"}


def test_a_rate_in_an_unknown_unit_is_dropped(tmp_path):
    rows = "1,221906,2150-05-01 13:00:00,2150-05-01 20:00:00,3,mL/hour"
    [first, *_] = read(hospital(tmp_path, icu__inputevents=rows))
    [drip] = [t for t in first.payload.treatments if t.name == "norepinephrine"]
    assert (drip.rate, drip.unit, drip.end) == (None, None, None)
    assert features(first.payload, FeatureSpec.default())


def test_a_row_keeps_its_own_unit_or_is_dropped_if_the_unit_is_wrong(tmp_path, caplog):
    rows = """
        1,223761,2150-05-01 13:00:00,,37.5,°C
        1,223761,2150-05-01 14:00:00,,98.6,
        1,223761,2150-05-01 15:00:00,,99,mmHg
    """.strip()
    records = list(read(hospital(tmp_path, icu__chartevents=rows)))
    assert series(at(records, 6), "temperature") == [
        ("Cel", hour(1), 37.5),
        ("[degF]", hour(2), 98.6),
    ]
    assert "1 of item 223761 in mmHg" in caplog.text


def test_equal_amounts_of_urine_at_the_same_time_add_up(tmp_path):
    rows = """
        1,226559,2150-05-01 14:00:00,2150-05-01 14:00:00,60,ml
        1,226560,2150-05-01 14:00:00,2150-05-01 14:00:00,60,ml
    """.strip()
    [first, *_] = read(hospital(tmp_path, icu__outputevents=rows))
    assert series(first, "urine_output") == [("mL", hour(2), 120)]


def test_a_patient_has_no_record_after_death(tmp_path):
    died = "1,2,2150-05-01 20:00:00,2150-05-01 20:00:00,EW EMER.,EMERGENCY ROOM,DIED,1,"
    [record] = read(hospital(tmp_path, hosp__admissions=died))
    assert record.landmark_hours == 6
    assert record.outcomes["in_hospital_mortality"] is True
    assert record.outcomes["discharge_disposition"] == "died"
    assert record.outcomes["length_of_stay"] == pytest.approx(2 / 24)


@pytest.mark.parametrize(
    ("location", "label"),
    [
        ("HOME HEALTH CARE", "home"),
        ("CHRONIC/LONG TERM ACUTE CARE", "post_acute"),
        ("REHAB", "post_acute"),
        ("PSYCH FACILITY", "other_facility"),
        ("HOSPICE", None),
        ("AGAINST ADVICE", None),
        ("", None),
    ],
)
def test_a_discharge_location_outside_the_classes_has_no_label(tmp_path, location, label):
    row = f"1,2,2150-05-11 12:00:00,,EW EMER.,EMERGENCY ROOM,{location},0,"
    [first, *_] = read(hospital(tmp_path, hosp__admissions=row))
    assert first.outcomes.get("discharge_disposition") == label
    assert first.outcomes["length_of_stay"] == 9.75


@pytest.mark.parametrize(
    ("race", "group"),
    [
        ("BLACK/CAPE VERDEAN", "Black"),
        ("WHITE - BRAZILIAN", "White"),
        ("UNABLE TO OBTAIN", "other or unknown"),
        ("", "other or unknown"),
    ],
)
def test_ethnicity_is_a_coarse_group_and_never_an_input(tmp_path, race, group):
    row = f"1,2,2150-05-11 12:00:00,,EW EMER.,EMERGENCY ROOM,HOME,0,{race}"
    [first, *_] = read(hospital(tmp_path, hosp__admissions=row))
    assert first.groups == {"ethnicity": group, "years": "2011 - 2013"}
    assert "race" not in first.payload.model_dump_json()


def test_external_causes_are_not_read_as_the_other_revision(tmp_path):
    # E8719 would be an electrolyte disorder in ICD-10, V4511 dialysis in ICD-9.
    codes = "1,2,E8719,9\n1,2,V4511,10\n1,2,I10,10"
    [first, *_] = read(hospital(tmp_path, hosp__diagnoses_icd=codes))
    diseases = {name for name, label in first.outcomes.items() if label is True}
    assert diseases == {"hypertension"}


def test_a_stay_without_diagnoses_has_no_label(tmp_path):
    [first, *_] = read(hospital(tmp_path, hosp__diagnoses_icd=""))
    assert set(first.outcomes) == {
        "in_hospital_mortality",
        "length_of_stay",
        "discharge_disposition",
    }


def test_reports_are_known_from_storage_and_discharge_summaries_are_never_read(tmp_path):
    notes = tmp_path / "mimic-iv-note" / "2.2" / "note"
    header = "note_id,subject_id,hadm_id,charttime,storetime,text\n"
    report = 'a,1,2,2150-05-01 13:00:00,2150-05-01 20:00:00,"FINDINGS:\nNo ""acute"" process."'
    write(notes / "radiology.csv.gz", header + report)
    write(notes / "discharge.csv.gz", header + "b,1,2,2150-05-01 12:00:00,,Died.")
    records = list(read(hospital(tmp_path)))
    assert at(records, 6).payload.notes == []
    [note] = at(records, 12).payload.notes
    assert (note.kind, note.time) == ("radiology", hour(1))
    assert note.text == 'FINDINGS:\nNo "acute" process.'


def test_the_latest_frontal_x_ray_is_the_image(tmp_path):
    cxr = tmp_path / "mimic-cxr-jpg" / "2.1.0"
    studies = """
        dicom_id,subject_id,study_id,StudyDate,StudyTime,ViewPosition
        early,10000001,5,21500501,93014.531,AP
        front,10000001,6,21500501,160000.0,PA
        side,10000001,6,21500501,160001.0,LATERAL
        late,10000001,7,21500501,190000.0,AP
    """
    lines = [line.strip() for line in studies.split("\n")[1:-1]]
    write(cxr / "mimic-cxr-2.0.0-metadata.csv.gz", "\n".join(lines))
    for study, name in ((5, "early"), (6, "front"), (6, "side"), (7, "late")):
        file = cxr / f"files/p10/p10000001/s{study}/{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    folder = hospital(
        tmp_path,
        hosp__patients="10000001,F,70,2148,",
        icu__icustays="10000001,2,3,,2150-05-01 12:00:00,2150-05-02 12:00:00",
    )
    records = list(read(folder))
    [image] = at(records, 6).payload.images
    assert (image.data, image.view, image.time) == (b"front", "PA", hour(4))
    (cxr / "files/p10/p10000001/s7/late.jpg").unlink()  # a partial download
    assert at(list(read(folder)), 12).payload.images == []


def test_meds_replaces_missing_chart_events_and_infusions_only_in_the_demo(tmp_path):
    folder = hospital(tmp_path)
    for name in ("icu/chartevents", "icu/inputevents"):
        (folder / f"mimiciv/3.1/{name}.csv.gz").unlink()
    marker = folder / "mimiciv/3.1/demo_subject_id.csv"
    marker.write_text("subject_id\n1\n")
    rows = [
        ("LAB//220045//bpm", 1, 90.0),
        ("LAB//50983//mEq/L", 5, 120.0),  # labevents: stored at 7 h
        ("INFUSION_START//221906", 1, 0.05),
        ("INFUSION_START//221906", 4, 0.1),
        ("INFUSION_END//221906", 4, 2.0),
        ("INFUSION_END//221906", 8, 5.0),
        ("MEDS_BIRTH", -9999, None),
    ]
    (folder / "mimic-iv-demo-meds").mkdir()
    pl.DataFrame(
        [(1, hour(after).replace(tzinfo=None), code, value) for code, after, value in rows],
        schema={
            "subject_id": pl.Int64,
            "time": pl.Datetime("us"),
            "code": pl.String,
            "value": pl.Float32,
        },
        orient="row",
    ).write_parquet(folder / "mimic-iv-demo-meds" / "events.parquet")
    [first, *_] = read(folder)
    assert series(first, "heart_rate") == [("/min", hour(1), 90)]
    assert [value for _, _, value in series(first, "sodium")] == [140]
    drips = [t for t in first.payload.treatments if t.name == "norepinephrine"]
    # MEDS gives a rate without its unit, so the rate is not used.
    assert [(t.start, t.end, t.rate) for t in drips] == [
        (hour(1), hour(4), None),
        (hour(4), None, None),
    ]
    marker.unlink()  # now the folder counts as the full database
    with pytest.raises(DataMissing, match=r"icu/chartevents\.csv\.gz, icu/inputevents"):
        list(read(folder))


def test_every_missing_table_is_named(tmp_path):
    with pytest.raises(DataMissing, match=r"no icu/icustays\.csv\.gz"):
        list(read(tmp_path))
    folder = hospital(tmp_path)
    for name in ("hosp/labevents", "icu/chartevents"):
        (folder / f"mimiciv/3.1/{name}.csv.gz").unlink()
    with pytest.raises(DataMissing, match=r"hosp/labevents\.csv\.gz, icu/chartevents\.csv\.gz"):
        list(read(folder))


def test_plain_csv_is_read(tmp_path):
    packed = hospital(tmp_path) / "mimiciv/3.1/icu/icustays.csv.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert len(list(read(tmp_path))) == 3
