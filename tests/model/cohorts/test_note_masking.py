"""Masking removes the phrases that name a disease, and nothing else."""

from datetime import UTC, datetime

import pytest

from model.cohorts import Record
from model.cohorts.note_masking import (
    SYNONYMS,
    mask_notes,
    mentions_disease,
    remove_disease_phrases,
)
from schemas.payload import as_payload
from schemas.tasks import load_tasks

DISEASES = [task for task in load_tasks() if task.is_disease]


@pytest.mark.parametrize("task", DISEASES, ids=lambda task: task.name)
def test_every_disease_is_matched_by_its_display_names(task):
    assert mentions_disease(f"Past History: {task.display.lower()}, long ago")
    assert all(mentions_disease(coding.display) for coding in task.coding)


def test_synonyms_cover_exactly_the_diseases():
    assert SYNONYMS.keys() == {task.name for task in DISEASES}


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
def test_a_phrase_that_names_a_disease_is_matched(phrase):
    assert mentions_disease(phrase)


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
def test_a_phrase_that_only_suggests_a_disease_is_not_matched(phrase):
    assert not mentions_disease(phrase)


def test_a_whole_phrase_is_removed_and_its_neighbours_are_unchanged():
    text = "Past History: COPD - severe; home oxygen; s/p CABG.\nFEV1 40 percent. Asthma"
    assert remove_disease_phrases(text) == ("home oxygen; FEV1 40 percent.", 3)
    assert remove_disease_phrases("Bowel Sounds normal; S1 normal.") == (
        "Bowel Sounds normal; S1 normal.",
        0,
    )


def test_a_masked_record_has_the_same_patient_and_outcomes():
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
    [masked] = mask_notes([record])
    assert [note.text for note in masked.payload.notes] == ["elective yes."]
    assert masked.masked == 2
    assert masked.payload.tabular == payload.tabular
    same = ("outcomes", "patient", "site", "stay", "landmark_hours", "groups", "charted")
    assert all(getattr(masked, name) == getattr(record, name) for name in same)
