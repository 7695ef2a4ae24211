"""Cohorts on disk: training reads the same arrays that serving computes."""

import json
import shutil
from itertools import islice

import numpy as np
import pytest

from model.cohorts import eicu, labels, mimic_iv, nih_cxr, synthetic
from model.cohorts.store import COHORT, Cohort, CohortError, write
from schemas.features import FeatureSpec, extract_features
from schemas.manifest import sha256
from schemas.payload import parse_payload
from schemas.response import MODALITIES

SPEC = FeatureSpec.default()


@pytest.fixture(scope="module")
def records():
    return list(synthetic.patients(24, seed=7))


@pytest.fixture(scope="module")
def folder(records, tmp_path_factory):
    path = tmp_path_factory.mktemp("cohort")
    for _ in write(
        records, path, name="few", source="made", made_by=(synthetic, labels), spec=SPEC
    ):
        pass
    return path


def test_training_and_serving_get_the_same_arrays(records, folder):
    samples = Cohort.load(folder).samples
    assert samples.present.any(axis=0).all(), "every modality must occur"
    for row, record in enumerate(records):
        served = extract_features(parse_payload(record.payload.model_dump_json()), SPEC).arrays
        stored = samples.arrays(row)
        assert stored.keys() == served.keys()
        for modality, arrays in served.items():
            for name, array in arrays.items():
                np.testing.assert_array_equal(stored[modality][name], array)
                assert stored[modality][name].dtype == array.dtype


def test_the_error_for_an_older_cohort_lists_the_missing_arrays(folder, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    facts = json.loads((old / COHORT).read_text())
    [shard] = facts["shards"]
    with np.load(old / shard) as arrays_on_disk:
        arrays = {
            name: arrays_on_disk[name]
            for name in arrays_on_disk.files
            if name not in ("groups", "charted")
        }
    np.savez(old / shard, **arrays)
    facts["shards"][shard] = sha256((old / shard).read_bytes())
    (old / COHORT).write_text(json.dumps(facts))
    with pytest.raises(CohortError, match="did not write charted, groups"):
        Cohort.load(old)


def test_training_and_serving_get_the_same_arrays_of_real_patients(open_data, tmp_path):
    data = open_data(
        "eicu-demo-2.0.1",
        "yaib-eicu-demo",
        "mimic-iv-demo-2.2",
        "mimic-iv-demo-meds-0.0.1",
        "nih-cxr",
    )
    records = [r for reader in (eicu, mimic_iv, nih_cxr) for r in islice(reader.read(data), 4)]
    for _ in write(records, tmp_path, name="real", source="", made_by=(), spec=SPEC):
        pass
    samples = Cohort.load(tmp_path).samples
    for row, record in enumerate(records):
        served = extract_features(parse_payload(record.payload.model_dump_json()), SPEC).arrays
        for modality, arrays in served.items():
            for name, array in arrays.items():
                np.testing.assert_array_equal(samples.arrays(row)[modality][name], array)


def test_outcomes_are_numbers_and_nan_without_a_label(records, folder):
    cohort = Cohort.load(folder)
    for i, task in enumerate(cohort.tasks):
        column = cohort.samples.outcomes[:, i]
        if task.kind == "clustering":
            assert np.isnan(column).all()
        elif task.kind == "multiclass":
            expected = [task.classes.index(r.outcomes[task.name]) for r in records]
            np.testing.assert_array_equal(column, expected)
        else:
            np.testing.assert_allclose(column, [r.outcomes[task.name] for r in records], rtol=1e-6)


def test_a_cohort_holds_the_digests_of_the_code_that_made_it(folder):
    facts = json.loads((folder / COHORT).read_text())
    assert {
        "schemas.features",
        "schemas.payload",
        "model.cohorts.labels",
        "model.cohorts.synthetic",
        "model.cohorts.synthetic.generator",
    } <= facts["code"].keys()
    assert all(len(digest) == 64 for digest in facts["code"].values())
    assert Cohort.load(folder).spec == SPEC


def test_a_changed_cohort_is_refused(records, tmp_path):
    for _ in write(records[:2], tmp_path, name="few", source="", made_by=(), spec=SPEC):
        pass
    shard = next(tmp_path.glob("shard-*.npz"))
    shard.write_bytes(shard.read_bytes() + b" ")
    with pytest.raises(CohortError, match="was changed"):
        Cohort.load(tmp_path)


def test_a_folder_without_a_cohort_and_an_empty_cohort_are_refused(tmp_path):
    with pytest.raises(CohortError, match="not a cohort"):
        Cohort.load(tmp_path)
    with pytest.raises(CohortError, match="no records"):
        list(write([], tmp_path, name="empty", source="", made_by=(), spec=SPEC))


def test_taking_rows_keeps_each_record_with_its_notes_and_image(folder):
    samples = Cohort.load(folder).samples
    rows = np.arange(len(samples))[::-1].copy()
    taken = samples.take(rows)
    for new, old in enumerate(rows):
        for modality, arrays in samples.arrays(int(old)).items():
            for name, array in arrays.items():
                np.testing.assert_array_equal(taken.arrays(new)[modality][name], array)
    assert list(samples.arrays(0)) == [
        m for m, present in zip(MODALITIES, samples.present[0], strict=True) if present
    ]
