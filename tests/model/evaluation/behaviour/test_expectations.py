"""Expectations are valid data, cover all tasks and treatments, and state a reason."""

import json
import re

import pytest

from model.evaluation.behaviour.expectations import (
    Expectation,
    ExpectationError,
    load_expectations,
    read_expectations,
)
from schemas.tasks import load_tasks
from schemas.variables import load_treatments, load_variables
from tests.model.evaluation.behaviour.conftest import SHARED

BINARY = [task for task in load_tasks() if task.kind == "binary"]
VALID = """
[[expectation]]
id = "lactate 1 to 8"
reason = "A lactate of 8 mmol/L is a lactic acidosis."
series.lactate = { unit = "mmol/L", from = 1, to = 8 }
up = { acidosis = 0.4 }
"""
TWO_SIDED = [
    "sodium",
    "potassium",
    "temperature",
    "glucose",
    "white_blood_cells",
    "bicarbonate",
    "ph",
    "heart_rate",
    "calcium",
    "magnesium",
    "phosphate",
]
# Given to patients with so many diseases that they point to none.
UNSPECIFIC_TREATMENTS = {
    "cephalosporin",
    "dexmedetomidine",
    "fentanyl",
    "hydromorphone",
    "magnesium_replacement",
    "metronidazole",
    "morphine",
}


def as_json(expectation):
    """The expectation as the shared file writes it."""
    document = expectation.model_dump(by_alias=True, exclude_defaults=True)
    del document["reason"]
    document.pop("source", None)
    return json.loads(json.dumps(document))


def test_every_shared_expectation_is_kept_unchanged():
    path = SHARED / "expectations.json"
    if not path.is_file():
        pytest.skip(f"requires expectations.json in {SHARED}")
    mine = {expectation.id: as_json(expectation) for expectation in load_expectations()}
    for shared in json.loads(path.read_text()):
        assert mine[shared["id"]] == shared


def test_every_binary_task_is_expected_to_rise_and_not_to_rise():
    expectations = load_expectations()
    for task in BINARY:
        assert any(task.name in e.up for e in expectations), task.name
        assert any(task.name in e.not_up for e in expectations), task.name


def test_every_treatment_that_points_to_a_disease_is_expected_to_do_so():
    named = {e.treatment for e in load_expectations()} - {None}
    assert named == {t.name for t in load_treatments()} - UNSPECIFIC_TREATMENTS


@pytest.mark.parametrize("name", TWO_SIDED)
def test_a_variable_with_two_abnormal_sides_is_changed_in_both_directions(name):
    changes = [e.series[name] for e in load_expectations() if name in e.series and not e.still]
    assert {change.after > change.before for change in changes} == {True, False}


def test_every_reason_is_a_sentence():
    for expectation in load_expectations():
        assert re.fullmatch(r"['?A-Z0-9].{15,140}\.", expectation.reason), expectation.id


def test_still_expectations_are_those_that_are_called_neutral():
    for expectation in load_expectations():
        assert expectation.still == expectation.id.startswith("neutral: "), expectation.id


def test_normal_values_stay_near_their_level():
    variables = {v.name: v for v in load_variables()}
    for expectation in load_expectations():
        for name, change in expectation.series.items() if expectation.still else ():
            assert name in variables
            assert abs(change.after - change.before) <= 0.45 * change.before, expectation.id


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("acidosis = 0.4", "acidossis = 0.4", "acidossis is not a known binary task"),
        ("acidosis = 0.4", "length_of_stay = 0.4", "length_of_stay is not a known binary task"),
        ("acidosis = 0.4", "acidosis = -0.4", "greater than 0"),
        ("series.lactate", "series.lactat", "lactat is not a known variable"),
        ("mmol/L", "mmol/dL", "lactate: the unit must be one of mmol/L"),
        ('unit = "mmol/L", ', "", "lactate: the unit must be one of mmol/L"),
        ("to = 8", "to = 800", "lactate: 800 is not plausible"),
        ("to = 8", "to = 1", "lactate: from and to are equal"),
        ("to = 8", 'to = "8"', "valid number"),
        ("up =", 'treatment = "aspirine"\nup =', "aspirine is not a known treatment"),
        ("up =", "tabular.age = [40, true]\nup =", "age: must be a number"),
        ("up =", 'tabular.sex = ["male", "f"]\nup =', "sex: must be one of female, male"),
        ("up =", 'tabular.ethnicity = ["a", "b"]\nup =', "tabular.ethnicity"),
        ("up =", "against_none = true\nup =", "against_none is for a note"),
        ("up =", 'note = " "\nup =', "the note must not be empty"),
        ("up =", "still = true\nup =", "still is for all tasks"),
        ("up =", 'not_down = ["acidosis"]\nup =', "expected twice: acidosis"),
        ("up = { acidosis = 0.4 }", "", "nothing is expected"),
        ('series.lactate = { unit = "mmol/L", from = 1, to = 8 }', "", "nothing changes"),
        ("reason", "because", "reason: Field required"),
        ("up =", "ups = 1\nup =", "Extra inputs are not permitted"),
        ("[[expectation]]", "[[expectation]", "Expected ']]'"),
    ],
)
def test_a_fault_is_refused_when_the_file_is_loaded(tmp_path, old, new, fault):
    path = tmp_path / "own.toml"
    path.write_text(VALID)
    assert [e.id for e in read_expectations(path)] == ["lactate 1 to 8"]
    assert old in VALID
    path.write_text(VALID.replace(old, new))
    with pytest.raises(ExpectationError, match=re.escape(fault)) as caught:
        read_expectations(path)
    assert str(path) in str(caught.value)


def test_two_expectations_with_the_same_id_are_refused(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(VALID * 2)
    with pytest.raises(ExpectationError, match="another expectation has the id 'lactate 1 to 8'"):
        read_expectations(path)


def test_tasks_that_a_model_lacks_are_left_out():
    (lactate,) = [e for e in load_expectations() if e.id == "lactate 1.1 to 8"]
    kept = lactate.restrict({"sepsis", "acidosis"})
    assert (dict(kept.up), kept.not_down) == ({"acidosis": 0.4}, ("sepsis",))
    assert lactate.restrict({"asthma"}) is None
    still = next(e for e in load_expectations() if e.still)
    assert still.restrict({"asthma"}) is still
    assert isinstance(kept, Expectation)
