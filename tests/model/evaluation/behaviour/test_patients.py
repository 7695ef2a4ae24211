"""Base patients: made ones are read completely, real ones come from the readers."""

import os
from pathlib import Path

import pytest

from model.cohorts import DataMissing, Record
from model.evaluation.behaviour import real_patients as real
from model.evaluation.behaviour.expectations import load_expectations
from model.evaluation.behaviour.pairs import make_pair
from model.evaluation.behaviour.patients import made_patients
from schemas.features import FeatureSpec, extract_features

DATA = Path(os.environ.get("M3H_DATA", Path(__file__).parents[5] / "shared" / "data"))


@pytest.mark.parametrize("name", made_patients())
def test_nothing_of_a_made_patient_is_ignored(name):
    features = extract_features(made_patients()[name], FeatureSpec.default())
    assert features.receipt.ignored == ()
    assert features.receipt.warnings == ()
    assert {"tabular", "series"} <= features.arrays.keys()


@pytest.mark.parametrize("side", ["before", "after"])
def test_nothing_of_a_change_is_ignored(side):
    spec = FeatureSpec.default()
    for expectation in load_expectations():
        payload = getattr(make_pair(made_patients()["healthy"], expectation), side)
        receipt = extract_features(payload, spec).receipt
        assert (receipt.ignored, receipt.warnings) == ((), ()), expectation.id


def test_made_patients_differ_in_what_is_known_of_them():
    payloads = made_patients().values()
    assert len(payloads) >= 10
    assert {p.tabular.sex for p in payloads} == {"male", "female"}
    ages = [p.tabular.age for p in payloads]
    assert min(ages) < 30
    assert max(ages) > 80
    for part in (lambda p: p.notes, lambda p: p.treatments, lambda p: p.tabular.height_cm):
        assert {bool(part(p)) for p in payloads} == {True, False}


def record(patient, landmark=24.0):
    payload = made_patients()["healthy"]
    return Record(payload, {}, patient=patient, site="", stay=patient, landmark_hours=landmark)


def missing(_):
    raise DataMissing("no such folder")
    yield


def test_real_patients_are_shared_among_the_databases(monkeypatch, tmp_path):
    records = [record(str(k // 2)) for k in range(12)] + [record("x", 6.0)]
    monkeypatch.setattr(
        real, "READERS", {"one": lambda _: iter(records), "other": lambda _: iter(records[:2])}
    )
    # Six patients of one database, one of the other.
    assert [*real.real_patients(tmp_path, 4)] == ["one 1", "one 2", "one 3", "other 1"]
    assert len(real.real_patients(tmp_path, 40)) == 7


def test_one_database_is_enough(monkeypatch, tmp_path):
    monkeypatch.setattr(real, "READERS", {"a": missing, "b": lambda _: iter([record("1")])})
    assert [*real.real_patients(tmp_path, 4)] == ["b 1"]
    monkeypatch.setattr(real, "READERS", {"a": missing})
    with pytest.raises(DataMissing, match="no such folder"):
        real.real_patients(tmp_path, 4)


def test_patients_of_the_mimic_iv_demo_are_read():
    pytest.importorskip("polars", reason="requires the extra 'train'")
    if not (DATA / "mimic-iv-demo-2.2").is_dir():
        pytest.skip(f"requires mimic-iv-demo-2.2 in {DATA}")
    payloads = real.real_patients(DATA, 4)
    assert len(payloads) == 4
    for payload in payloads.values():
        hours = (payload.as_of - payload.tabular.admitted_at).total_seconds() / 3600
        assert hours == pytest.approx(24)
        assert payload.series
