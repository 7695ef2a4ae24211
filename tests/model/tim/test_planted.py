"""TIM tells which tasks were made to have a cause in common, and that noise teaches nothing."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model.tim.coalition_training import Games, coalitions, every_job
from model.tim.matrix import Worth, matrix
from model.tim.task_groups import suggest
from tests.support.cohorts import CONFIG, make_cohort

# The first three have one cause, the next three another; the labels of the last are dealt.
NAMES = (
    "sepsis",
    "pneumonia",
    "urinary_tract_infection",
    "heart_failure",
    "cardiomyopathy",
    "atrial_fibrillation",
    "depression",
)
CAUSE = {name: i // 3 for i, name in enumerate(NAMES)}
COALITIONS = 150


def planted(count=400):
    """Two causes, each seen in a variable of its own."""
    cohort = make_cohort(count).of_tasks(NAMES)
    draw = np.random.default_rng(1)
    causes = draw.normal(size=(count, 3))
    statistics = cohort.samples.statistics.copy()
    statistics[:, :2] = causes[:, :2, None] + draw.normal(size=(count, 2, 1)) * 0.3
    present = cohort.samples.present & [False, True, False, False]
    outcomes = np.stack(
        [causes[:, CAUSE[task.name]] + draw.normal(size=count) > 0.5 for task in cohort.tasks],
        axis=1,
    ).astype(np.float32)
    samples = replace(
        cohort.samples,
        statistics=statistics,
        outcomes=outcomes,
        present=present,
        pixels=cohort.samples.pixels[:0],
    )
    return replace(cohort, samples=samples)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Of networks so narrow that tasks must share what they learn."""
    folder, cohort = tmp_path_factory.mktemp("planted"), planted()
    net = CONFIG.net.model_copy(update={"width": 1, "task_width": 4, "dropout": 0.0})
    config = CONFIG.model_copy(
        update={"net": net, "members": 3, "epochs": 15, "learning_rate": 0.03, "averaging": 0.8}
    )
    for _ in Games(cohort, config).run_at_once(every_job(len(NAMES), COALITIONS), folder):
        pass
    return matrix(Worth(folder, cohort), coalitions(len(NAMES), COALITIONS))


def test_tasks_with_a_cause_in_common_are_told_from_others(found):
    cause = np.array([CAUSE[name] for name in found.tasks])
    cells = np.array(found.matrix, dtype=float)
    pairs = (cause[:, None] < 2) & (cause < 2) & ~np.eye(len(cause), dtype=bool)
    related = cause[:, None] == cause
    assert roc_auc_score(related[pairs], cells[pairs]) >= 0.9
    for i in np.flatnonzero(cause < 2):
        assert related[i, np.nanargmax(cells[i])]


def test_a_task_of_noise_teaches_nobody_and_others_are_certain_to(found):
    certain = np.array(found.certain)
    assert not certain[:, found.tasks.index("depression")].any()
    assert certain.any()


def test_halves_of_the_coalitions_agree_more_than_by_chance(found):
    assert found.halves.lower > 0


def test_the_groups_that_are_suggested_are_the_causes(found):
    groups = suggest(found)
    caused = [sorted(set(group) & set(NAMES[:6])) for group in groups]
    assert sorted(filter(None, caused)) == sorted(sorted(part) for part in (NAMES[:3], NAMES[3:6]))
