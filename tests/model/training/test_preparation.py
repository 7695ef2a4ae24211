"""Preparation of a training: splits, compatibility of cohorts, offsets, visible modalities."""

from dataclasses import replace

import numpy as np
import pytest

from model.cohorts.store import Cohort
from model.errors import RunError
from model.training.preparation import (
    PreparedTraining,
    initial_facts,
    learnable_cohorts,
    log_odds_offsets,
    member_splits,
)
from schemas.response import MODALITIES
from tests.support.inputs.cohorts import CONFIG, NAMES, SPEC, TASKS, make_cohort


def test_no_member_learns_from_its_held_out_patients_or_hospitals():
    samples = make_cohort().samples
    samples.patient[:] = [f"p{i % 100}" for i in range(len(samples))]  # some in two hospitals
    held_out = []
    for learn, stop in member_splits(samples, 5, seed=0):
        assert not set(samples.site[learn]) & set(samples.site[stop])
        assert not set(samples.patient[learn]) & set(samples.patient[stop])
        held_out.append(stop)
    assert sorted(np.concatenate(held_out)) == list(range(len(samples)))


def test_cohorts_with_different_specs_are_refused():
    other = make_cohort(name="other")
    spec = SPEC.model_copy(update={"window_hours": 12.0})
    with pytest.raises(ValueError, match="made and other"):
        PreparedTraining(
            [make_cohort(), Cohort("other", "", TASKS, spec, other.samples, "x")], CONFIG
        )


def test_a_sampled_cohort_has_a_log_odds_offset():
    first, second = make_cohort(), make_cohort(name="sampled")
    column = NAMES.index("pneumonia")
    first.samples.outcomes[:, column] = np.arange(240) % 10 == 0
    second.samples.outcomes[:, column] = np.arange(240) % 2 == 0
    offsets = log_odds_offsets([first, second])
    assert offsets[0]["pneumonia"] == 0
    assert offsets[1]["pneumonia"] == pytest.approx(np.log(9), abs=0.15)


def test_a_task_sees_only_modalities_with_labels():
    eicu, images = make_cohort(), make_cohort(name="images")
    eicu.samples.present[:, 3] = False
    eicu = Cohort("eicu", "", TASKS, SPEC, eicu.samples.take(np.arange(240)), "a")
    images.samples.outcomes[:, [i for i, n in enumerate(NAMES) if n != "pneumonia"]] = np.nan
    facts = PreparedTraining([eicu, images], CONFIG).facts
    visible = {task.name: facts.visible_modalities(task) for task in TASKS}
    assert visible["pneumonia"] == ("tabular", "series", "notes", "image")
    assert visible["diabetes"] == ("tabular", "series", "notes")


def without_labels(cohort, *names):
    """The cohort with no label of the named tasks."""
    outcomes = cohort.samples.outcomes.copy()
    outcomes[:, [NAMES.index(name) for name in names]] = np.nan
    return replace(cohort, samples=replace(cohort.samples, outcomes=outcomes))


def test_a_task_without_labels_is_not_in_the_model():
    first = without_labels(make_cohort(), "sepsis", "asthma")
    second = without_labels(make_cohort(name="second"), "asthma")
    second.samples.outcomes[:, NAMES.index("copd")] = 0
    first.samples.outcomes[:, NAMES.index("copd")] = 0
    cohorts, without = learnable_cohorts([first, second])
    assert set(without) == {"asthma", "copd"}
    for cohort in cohorts:
        assert [t.name for t in cohort.tasks] == [n for n in NAMES if n not in without]
    for task in cohorts[0].tasks:  # septic shock is a subset of sepsis, which is still there
        assert task.subset_of is None or task.subset_of in NAMES


def test_cohorts_without_any_label_are_refused():
    with pytest.raises(RunError, match="no task can be learned from made"):
        learnable_cohorts([without_labels(make_cohort(), *NAMES)])


def test_the_prevalence_is_that_of_the_first_cohort_with_labels():
    first, second, third = (make_cohort(name=name) for name in ("first", "second", "third"))
    first = without_labels(first, "pneumonia")
    column = NAMES.index("pneumonia")
    second.samples.outcomes[:, column] = np.arange(240) % 10 == 0
    third.samples.outcomes[:, column] = np.arange(240) % 2 == 0
    facts = initial_facts([first, second, third], CONFIG, "", 0, MODALITIES, {})
    assert facts.prevalence["pneumonia"] == pytest.approx(0.1)
    offsets = log_odds_offsets([first, second, third])
    assert "pneumonia" not in offsets[0]
    assert offsets[1]["pneumonia"] == 0
    assert offsets[2]["pneumonia"] == pytest.approx(np.log(9), abs=0.15)
