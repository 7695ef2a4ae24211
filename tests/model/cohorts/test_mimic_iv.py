"""The MIMIC-IV reader, on a made-up hospital.

The hospital has chart events, infusions, notes and X-rays, which the open demo lacks.
"""

import gzip

import polars as pl
import pytest

from model.cohorts import DataMissing
from model.cohorts.mimic_iv import read
from schemas.features import FeatureSpec, extract_features
from tests.support.inputs.mimic_iv import NOON, at, hospital, hour, series, write_gzip


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
    assert extract_features(first.payload, FeatureSpec.default())


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
    write_gzip(notes / "radiology.csv.gz", header + report)
    write_gzip(notes / "discharge.csv.gz", header + "b,1,2,2150-05-01 12:00:00,,Died.")
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
    write_gzip(cxr / "mimic-cxr-2.0.0-metadata.csv.gz", "\n".join(lines))
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
