"""`m3h-model cohort records`: a hospital's own data as a cohort."""

import gzip
import json
import re
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from model.cli.main import app
from model.cohorts import DataError, DataMissing, json_lines, records, synthetic
from model.cohorts.labels import outcomes_of
from model.cohorts.store import Cohort
from model.cohorts.store import write as write_cohort
from schemas.features import FeatureSpec, extract_features
from schemas.payload import parse_payload
from schemas.record import TrainingRecord, parse_record
from schemas.tasks import load_tasks
from tests.support.inputs.records import as_line

SPEC = FeatureSpec.default()
PAYLOAD = {
    "as_of": "2031-05-04T12:00:00Z",
    "tabular": {"age": 70, "admitted_at": "2031-05-03T12:00:00Z"},
}
DISEASES = [task.name for task in load_tasks() if task.is_disease]


def outcomes(**fields):
    line = json.dumps({"patient_id": "p", "payload": PAYLOAD, **fields})
    record = parse_record(line)
    return outcomes_of(
        record.diagnosis_codes, record.outcomes, coding_complete=record.coding_complete
    )


@pytest.fixture(scope="module")
def made():
    """A few synthetic records with all modalities and labels."""
    return list(synthetic.patients(12, seed=1))


@pytest.fixture
def file(tmp_path):
    def write(*lines, name="records.jsonl"):
        path = tmp_path / name
        content = "\n".join(lines).encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


def test_a_file_of_records_gives_the_arrays_of_the_cohort_that_it_was_written_from(
    made, file, tmp_path
):
    arguments = {"name": "c", "source": "", "made_by": (), "spec": SPEC}
    from_file = records.read(file(*map(as_line, made)))
    for name, source in (("file", from_file), ("direct", made)):
        for _ in write_cohort(source, tmp_path / name, **arguments):
            pass
    own, direct = (vars(Cohort.load(tmp_path / name).samples) for name in ("file", "direct"))
    for name in set(own) - {"groups", "charted"}:
        np.testing.assert_array_equal(own[name], direct[name], err_msg=name)


numbers = st.floats(-1e4, 1e4, allow_nan=False)
series = st.fixed_dictionaries(
    {
        "variable": st.sampled_from(["heart_rate", "loinc:2524-7", "Temp", "unknown"]),
        "unit": st.sampled_from(["/min", "mmol/L", "Cel", "degF", None]),
        "times": st.just(["2031-05-04T11:00:00Z", "2031-05-04T08:30:00+02:00"]),
        "values": st.lists(numbers | st.none() | st.just("<0.5"), min_size=2, max_size=2),
    }
)


@settings(max_examples=50)
@given(
    st.lists(series, max_size=4),
    st.fixed_dictionaries(
        {}, optional={"age": numbers, "sex": st.sampled_from(["F", "x", "male"])}
    ),
)
def test_a_request_and_the_same_payload_in_a_record_have_equal_features(measured, tabular):
    payload = PAYLOAD | {"series": measured, "tabular": PAYLOAD["tabular"] | tabular}
    request = extract_features(parse_payload(json.dumps(payload)), SPEC)
    line = json.dumps({"patient_id": "p", "payload": payload})
    record = extract_features(parse_record(line).payload, SPEC)
    assert request.receipt == record.receipt
    for modality, arrays in request.arrays.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, record.arrays[modality][name])


def test_an_outcome_is_present_absent_or_unknown():
    labels = outcomes(outcomes={"sepsis": True, "diabetes": False, "asthma": None})
    assert labels == {"sepsis": True, "diabetes": False}


def test_a_complete_list_of_codes_labels_every_disease():
    labels = outcomes(diagnosis_codes=["I50.9", "250.00"])
    assert labels.keys() == set(DISEASES)
    assert {name for name, label in labels.items() if label} == {"heart_failure", "diabetes"}
    assert not any(outcomes(diagnosis_codes=[]).values())


def test_a_disease_without_a_code_is_unknown_if_the_list_is_incomplete():
    assert outcomes(diagnosis_codes=["I50.9"], coding_complete=False) == {"heart_failure": True}


def test_without_codes_no_disease_has_a_label():
    assert outcomes(outcomes={"length_of_stay": 2}) == {"length_of_stay": 2.0}
    assert outcomes(diagnosis_codes=None) == {}


def test_an_outcome_by_name_precedes_the_codes():
    labels = outcomes(diagnosis_codes=["I50.9"], outcomes={"heart_failure": None, "asthma": True})
    assert "heart_failure" not in labels
    assert labels["asthma"] is True


def test_a_subset_implies_its_parent_unless_the_parent_is_stated():
    assert outcomes(outcomes={"septic_shock": True}) == {"septic_shock": True, "sepsis": True}
    stated = outcomes(outcomes={"septic_shock": True, "sepsis": None})
    assert stated == {"septic_shock": True}


def test_the_landmark_is_stated_or_follows_from_the_admission(file):
    line = {"patient_id": "p", "payload": PAYLOAD}
    stated = line | {"landmark_hours": 6}
    unknown = {"patient_id": "p", "payload": {"as_of": PAYLOAD["as_of"], "tabular": {"age": 70}}}
    path = file(*map(json.dumps, (line, stated, unknown)))
    assert [record.landmark_hours for record in records.read(path)] == [24.0, 6.0, None]


def test_an_error_names_file_line_and_pointers_and_quotes_no_value(file):
    bad = {"patient_id": "p", "payload": PAYLOAD | {"tabular": {"age": "zebra"}}}
    bad["outcomes"] = {"sepsis": "zebra"}
    good = json.dumps({"patient_id": "p", "payload": PAYLOAD})
    path = file(good, "", json.dumps(bad))
    reader = records.read(path)
    next(reader)
    expected = (
        f"{path}, line 3: /outcomes/sepsis: must be true, false or null; "
        "/payload/tabular/age: must be a number"
    )
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        next(reader)


def test_an_image_that_cannot_be_decoded_is_named_by_line_and_pointer(file, tmp_path):
    image = {"time": PAYLOAD["as_of"], "media_type": "image/png", "data": "aGVsbG8="}
    path = file(json.dumps({"patient_id": "p", "payload": PAYLOAD | {"images": [image]}}))
    command = ["cohort", "records", "--data", str(path), "--out", str(tmp_path / "cohort")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert f"{path}, line 1: /payload/images/0" in done.output.replace("\n", "")


def test_a_compressed_file_is_read_and_a_damaged_one_is_named(file):
    line = json.dumps({"patient_id": "p", "payload": PAYLOAD})
    path = file(line, line, name="records.jsonl.gz")
    assert len(list(records.read(path))) == 2
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"records\.jsonl\.gz"):
        list(records.read(path))


def test_a_folder_or_a_missing_file_is_refused_with_the_option_to_use(tmp_path):
    for path in (tmp_path, tmp_path / "records.jsonl"):
        with pytest.raises(DataMissing, match="--data names the JSON Lines file"):
            next(records.read(path))


def test_a_line_without_end_is_refused_before_it_fills_the_memory(file, monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 2**20)
    with pytest.raises(DataError, match="line 1: is longer than 1 MiB"):
        next(records.read(file(" " * 2**21)))


def test_memory_does_not_grow_with_the_number_of_records(file, tmp_path):
    """A note of 100 KB in each record: payloads together would take 10 MB."""
    note = {"time": PAYLOAD["as_of"], "text": "word " * 20_000}
    line = json.dumps({"patient_id": "p", "payload": PAYLOAD | {"notes": [note]}})
    path = file(*[line] * 100)

    def without_notes(source) -> Iterator:
        for record in source:
            payload = record.payload.model_copy(update={"notes": []})
            yield record.__class__(**{**vars(record), "payload": payload})

    arguments = {"name": "c", "source": "", "made_by": (), "spec": SPEC}
    SPEC.tokenizer.encode("loaded before")
    tracemalloc.start()
    for _ in write_cohort(without_notes(records.read(path)), tmp_path / "cohort", **arguments):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_the_schema_of_a_record_describes_every_field():
    properties = TrainingRecord.model_json_schema()["properties"]
    assert all(len(field["description"]) > 20 for field in properties.values())
