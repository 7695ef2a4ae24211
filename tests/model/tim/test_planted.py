"""TIM recovers planted common causes of tasks, and a task of noise helps no other."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model.tim.coalition_training import CoalitionTraining, all_jobs, first_coalitions
from model.tim.matrix import CoalitionValues, compute_tim
from model.tim.task_groups import suggest
from tests.support.inputs.cohorts import CONFIG, make_cohort

# The first three have one cause, the next three another; the labels of the last are random.
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
    """Patients with two causes; each cause shows in its own variable."""
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
    """TIM of networks that are so narrow that tasks must share features."""
    folder, cohort = tmp_path_factory.mktemp("planted"), planted()
    net = CONFIG.net.model_copy(update={"width": 1, "task_width": 4, "dropout": 0.0})
    config = CONFIG.model_copy(
        update={"net": net, "members": 3, "epochs": 15, "learning_rate": 0.03, "averaging": 0.8}
    )
    for _ in CoalitionTraining(cohort, config).run_batched(
        all_jobs(len(NAMES), COALITIONS), folder
    ):
        pass
    return compute_tim(CoalitionValues(folder, cohort), first_coalitions(len(NAMES), COALITIONS))


def test_tasks_with_a_common_cause_have_larger_cells(found):
    cause = np.array([CAUSE[name] for name in found.tasks])
    cells = np.array(found.matrix, dtype=float)
    pairs = (cause[:, None] < 2) & (cause < 2) & ~np.eye(len(cause), dtype=bool)
    related = cause[:, None] == cause
    assert roc_auc_score(related[pairs], cells[pairs]) >= 0.9
    for i in np.flatnonzero(cause < 2):
        assert related[i, np.nanargmax(cells[i])]


def test_no_cell_of_a_task_of_noise_is_certain(found):
    certain = np.array(found.certain)
    assert not certain[:, found.tasks.index("depression")].any()
    assert certain.any()


def test_halves_of_the_coalitions_agree(found):
    assert found.halves.lower > 0


def test_the_suggested_groups_are_the_causes(found):
    groups = suggest(found)
    caused = [sorted(set(group) & set(NAMES[:6])) for group in groups]
    assert sorted(filter(None, caused)) == sorted(sorted(part) for part in (NAMES[:3], NAMES[3:6]))
