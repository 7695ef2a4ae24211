"""Labels from ICD-9 and ICD-10 codes, and from descriptions of diagnoses without a code."""

import pytest

from model.cohorts.labels import diseases_of
from schemas.tasks import load_tasks


def diseases(codes=(), descriptions=()):
    return {name for name, label in diseases_of(codes, descriptions).items() if label}


def test_every_disease_gets_a_label():
    labels = diseases_of([])
    assert list(labels) == [task.name for task in load_tasks() if task.is_disease]
    assert not any(labels.values())


@pytest.mark.parametrize(
    ("code", "disease"),
    [
        ("401.9", "hypertension"),
        ("I10", "hypertension"),
        (" i10 ", "hypertension"),
        ("4019", "hypertension"),
        ("E87.1", "fluid_electrolyte_disorder"),
        ("E871", "fluid_electrolyte_disorder"),
        ("E87.2", "acidosis"),
        ("E872", "acidosis"),
        ("V45.81", "coronary_artery_disease"),
        ("E11.9", "diabetes"),
        ("250.00", "diabetes"),
    ],
)
def test_codes_of_both_revisions_are_read_with_and_without_dots(code, disease):
    assert diseases([code]) == {disease}


def test_codes_of_both_revisions_may_be_mixed():
    assert diseases(["401.9", " I10", "E87.2"]) == {"hypertension", "acidosis"}


def test_a_code_matches_only_its_own_revision():
    # 428 is heart failure in ICD-9. No ICD-10 code starts with a digit, and I42 is not 42.
    assert diseases(["428.0"]) == {"heart_failure"}
    assert "heart_failure" not in diseases(["I42.8"])


def test_an_excluded_code_gives_no_label():
    excluded = [(t.name, c) for t in load_tasks() for c in t.icd10_excluded]
    assert excluded
    for name, code in excluded:
        assert not diseases_of([code])[name]


@pytest.mark.parametrize(
    ("code", "child", "parent"),
    [
        ("785.52", "septic_shock", "sepsis"),
        ("R65.21", "septic_shock", "sepsis"),
        ("Z99.2", "end_stage_renal_disease", "chronic_kidney_disease"),
    ],
)
def test_a_subset_implies_its_parent(code, child, parent):
    assert diseases([code]) >= {child, parent}


@pytest.mark.parametrize(
    ("description", "disease"),
    [
        ("endocrine|glucose metabolism|diabetes mellitus", "diabetes"),
        ("hematology|bleeding and red blood cell disorders|anemia", "anemia"),
        ("cardiovascular|chest pain / ASHD|coronary artery disease", "coronary_artery_disease"),
    ],
)
def test_a_diagnosis_without_a_code_is_matched_by_its_description(description, disease):
    assert diseases(descriptions=[description]) == {disease}
