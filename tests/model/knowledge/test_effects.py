"""Expected effects name known tasks and findings, and do not contradict each other."""

import tomllib
from importlib.resources import files

import numpy as np
import pytest

from model.knowledge.effects import expected_effects
from model.knowledge.findings import NoteFindings, assertion_name, load_findings
from schemas.features import FeatureSpec
from schemas.features.notes.assertions import STATUSES
from schemas.tasks import load_tasks

SPEC = FeatureSpec.default()
EFFECTS = tomllib.loads(files("model.knowledge").joinpath("effects.toml").read_text("utf-8"))
OWN_DISEASE = "own_disease_in_notes"
BINARY = [task.name for task in load_tasks() if task.kind == "binary"]
KNOWN = {
    *load_findings(SPEC),
    *SPEC.treatment_index,
    *NoteFindings(SPEC).names,
}


def test_every_binary_task_has_effects_and_no_other_name_does():
    assert set(EFFECTS) == {*BINARY, OWN_DISEASE}


@pytest.mark.parametrize("task", BINARY)
def test_every_effect_is_one_of_a_known_finding(task):
    assert set(EFFECTS[task]) <= KNOWN
    assert all(abs(effect) <= 5 and effect != 0 for effect in EFFECTS[task].values())


def test_effects_are_in_the_order_of_the_findings_and_0_if_not_stated():
    names = ["lactate_high", "obesity: affirmed", "sepsis: affirmed", "lactate_low"]
    effects = expected_effects("sepsis", names)
    stated = EFFECTS["sepsis"]
    own = EFFECTS[OWN_DISEASE]["affirmed"]
    np.testing.assert_array_equal(effects, [stated["lactate_high"], 0.0, own, 0.0])


def test_notes_that_affirm_a_disease_raise_it_and_notes_that_deny_it_lower_it():
    assert set(EFFECTS[OWN_DISEASE]) == set(STATUSES)
    names = [assertion_name("pneumonia", status) for status in ("affirmed", "possible", "denied")]
    affirmed, possible, denied = expected_effects("pneumonia", names)
    assert affirmed > possible > 0 > denied
