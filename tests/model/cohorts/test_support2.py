"""The reader of SUPPORT2."""

import gzip

import pytest

from model.cohorts import DataError, DataMissing
from model.cohorts.support2 import VARIABLES, read
from schemas.features import FeatureSpec, extract_features

ROW = {
    "id": "7",
    "age": "62.8",
    "sex": "male",
    "race": "asian",
    "hday": "1",
    "slos": "10",
    "hospdead": "0",
    "diabetes": "1",
    "ca": "metastatic",
    "dzgroup": "CHF",
    "dementia": "0",
    "surv2m": "0.3",
    "pafi": "200",
    **dict.fromkeys(VARIABLES, ""),
    "hrt": "69",
    "crea": "1.2",
    "wblc": "6",
}


def write(folder, **changes):
    row = ROW | changes
    (folder / "support2.csv").write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    return folder


def test_only_questions_asked_of_everyone_are_labels(tmp_path):
    (record,) = read(write(tmp_path))
    assert record.outcomes == {
        "in_hospital_mortality": False,
        "length_of_stay": 7,
        "diabetes": True,
        "malignancy": True,
    }


def test_missing_answers_have_no_label(tmp_path):
    (record,) = read(write(tmp_path, hospdead="", diabetes="NA", ca=""))
    assert record.outcomes == {"length_of_stay": 7}


def test_the_inputs_are_the_measurements_of_the_third_day(tmp_path):
    (record,) = read(write(tmp_path))
    payload = record.payload
    assert {s.variable: s.values for s in payload.series} == {
        "heart_rate": [69],
        "creatinine": [1.2],
        "white_blood_cells": [6],
    }
    assert {time for s in payload.series for time in s.times} == {payload.as_of}
    assert record.landmark_hours == 72
    assert (payload.as_of - payload.tabular.admitted_at).days == 3


def test_zeros_of_vital_signs_are_missing(tmp_path):
    (record,) = read(write(tmp_path, hrt="0", resp="0", wblc="0"))
    assert [s.variable for s in record.payload.series] == ["creatinine"]


def test_the_admission_is_unknown_if_the_patient_entered_later(tmp_path):
    (record,) = read(write(tmp_path, hday="4"))
    assert record.payload.tabular.admitted_at is None


def test_a_patient_who_left_by_the_third_day_has_no_record(tmp_path):
    assert not list(read(write(tmp_path, slos="3")))


def test_all_units_are_accepted():
    for variable, unit in VARIABLES.values():
        index, conversion = FeatureSpec.default().look_up(variable, unit)
        assert index is not None
        assert conversion is not None


def test_the_set_is_read_and_its_values_are_plausible(open_data):
    records = list(read(open_data("support")))
    assert len(records) == 8758
    assert sum(r.outcomes["in_hospital_mortality"] for r in records) == 2222
    spec = FeatureSpec.default()
    receipts = [extract_features(r.payload, spec).receipt for r in records[:300]]
    ignored = sum(item.count for receipt in receipts for item in receipt.ignored)
    assert ignored < 0.02 * sum(len(r.payload.series) for r in records[:300])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"hrt": "zebra"}, "line 2: hrt is not a number"), ({"id": ""}, "line 2: id is missing")],
)
def test_a_wrong_value_is_named_and_not_quoted(change, message, tmp_path):
    with pytest.raises(DataError, match=message):
        list(read(write(tmp_path, **change)))


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(DataMissing, match=r"support2\.csv\.gz is missing"):
        next(read(tmp_path))
    (tmp_path / "support2.csv.gz").write_bytes(gzip.compress(b"id,age\n" * 9)[:-9])
    with pytest.raises(DataError, match=r"support2\.csv\.gz"):
        list(read(tmp_path))
