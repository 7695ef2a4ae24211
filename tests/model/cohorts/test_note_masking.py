"""What names a disease is taken out of the notes, and nothing else."""

from datetime import UTC, datetime

import pytest

from model.cohorts import Record
from model.cohorts.note_masking import ALSO_CALLED, masked, names_a_disease, without_names
from schemas.payload import as_payload
from schemas.tasks import load_tasks

DISEASES = [task for task in load_tasks() if task.is_disease]


@pytest.mark.parametrize("task", DISEASES, ids=lambda task: task.name)
def test_every_disease_is_known_by_its_names(task):
    assert names_a_disease(f"Past History: {task.display.lower()}, long ago")
    assert all(names_a_disease(coding.display) for coding in task.coding)


def test_what_the_wards_call_them_is_said_of_diseases_alone():
    assert ALSO_CALLED.keys() == {task.name for task in DISEASES}


@pytest.mark.parametrize(
    "phrase",
    [
        "congestive heart failure CHF - class III",
        "TIA(s) - date unknown",
        "insulin dependent diabetes",
        "neurologic: seizure therapy: anticonvulsant: levetiracetam",
        "Infarction, acute myocardial (MI)",
        "denies asthma/wheezing",
        "Ethanol Use none",
    ],
)
def test_a_name_is_found_whatever_is_said_of_it(phrase):
    assert names_a_disease(phrase)


@pytest.mark.parametrize(
    "phrase",
    [
        "initial consultation other: allergies no",  # no TIA
        "orthopedic surgery",  # no DIC
        "endocrine: glucose metabolism: insulin: sliding scale administration",
        "renal: dialysis: hemodialysis",
        "cardiovascular: consultations: cardiology consultation",
        "Bowel Sounds decreased",
    ],
)
def test_what_only_suggests_a_disease_stays(phrase):
    assert not names_a_disease(phrase)


def test_a_phrase_goes_whole_and_its_neighbours_stay_as_they_were():
    text = "Past History: COPD - severe; home oxygen; s/p CABG.\nFEV1 40 percent. Asthma"
    assert without_names(text) == ("home oxygen; FEV1 40 percent.", 3)
    assert without_names("Bowel Sounds normal; S1 normal.") == (
        "Bowel Sounds normal; S1 normal.",
        0,
    )


def test_a_masked_record_is_the_same_patient_with_the_same_outcomes():
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    notes = ["Admission: asthma; elective yes.", "Past History: hypertension."]
    payload = as_payload(
        {
            "as_of": noon,
            "tabular": {"age": 71},
            "notes": [{"kind": "note", "time": noon, "text": text} for text in notes],
        }
    )
    record = Record(payload, {"asthma": True}, "p", "h", "s", 24.0, groups={"years": "2015"})
    [found] = masked([record])
    assert [note.text for note in found.payload.notes] == ["elective yes."]
    assert found.masked == 2
    assert found.payload.tabular == payload.tabular
    same = ("outcomes", "patient", "site", "stay", "landmark_hours", "groups", "charted")
    assert all(getattr(found, name) == getattr(record, name) for name in same)
