"""Conformal sets keep their coverage when a bundle is recalibrated."""

import numpy as np
import pytest
from scipy.special import expit, logit, softmax

from export.recalibrate.manifest import shift_facts
from export.recalibrate.shifts import BinaryShifts, shift_classes
from model.calibration.calibrate import conformal_sets
from schemas.manifest import ServedTask
from schemas.tasks import load_tasks

TASKS = {task.name: task for task in load_tasks()}


def ill(p, count, seed):
    """Log-odds and outcomes of patients with prevalence p, from a calibrated model."""
    draw = np.random.default_rng(seed)
    y = draw.random(count) < p
    return logit(p) + draw.normal(np.where(y, 0.5, -0.5), 1.0, count), y.astype(float)


def facts(name, p, outcome, classes):
    sets = conformal_sets(p, outcome, np.ones(len(p)), classes)
    return ServedTask(
        task=TASKS[name], output="x", visible_modalities=(), labels={}, prevalence=0.1, sets=sets
    )


def one_task(shift, bound=6.5):
    """The shifts of mortality only."""
    s = np.array([shift])
    return BinaryShifts(("in_hospital_mortality",), s, s, np.array([bound]), (0,))


@pytest.mark.parametrize("shift", [-1.5, 0.5, 3.0])
@pytest.mark.parametrize("bound", [6.5, 2.6])
def test_shifted_sets_cover_nine_in_ten_with_and_without_the_disease(shift, bound):
    z, y = ill(0.1, 4000, seed=1)
    p = expit(np.clip(z, -bound, bound))
    old = facts("in_hospital_mortality", np.stack([1 - p, p], 1), y, ("no", "yes"))
    new = shift_facts(old, one_task(shift, bound)).sets.thresholds
    z, y = ill(0.1, 40_000, seed=2)
    p = expit(np.clip(z + shift, -bound, bound))
    assert (p >= new["yes"])[y == 1].mean() > 0.88
    assert (1 - p >= new["no"])[y == 0].mean() > 0.88


@pytest.mark.parametrize("shifts", [(2.0, 0.0), (0.0, 2.0), (-1.0, 1.0)])
def test_shifted_sets_of_a_subset_task_keep_their_coverage(shifts):
    """Septic shock is never likelier than sepsis, which has another shift."""

    def patients(count, seed):
        draw = np.random.default_rng(seed)
        parent, y = ill(0.15, count, seed)
        child = parent + draw.normal(-0.5, 1.0, count)
        return np.stack([parent, child]), y * (draw.random(count) < expit(child - 1))

    z, y = patients(4000, 1)
    p = expit(z.min(axis=0))
    old = facts("septic_shock", np.stack([1 - p, p], 1), y, ("no", "yes"))
    s = np.array(shifts)
    binary = BinaryShifts(("sepsis", "septic_shock"), s, s, np.full(2, 6.5), (0, 0))
    new = shift_facts(old, binary).sets.thresholds
    z, y = patients(60_000, 2)
    p = expit((z + s[:, None]).min(axis=0))
    assert (p >= new["yes"])[y == 1].mean() > 0.88
    assert (1 - p >= new["no"])[y == 0].mean() > 0.88


@pytest.mark.parametrize("died", [-1.0, 0.0, 1.5])
def test_shifted_sets_of_the_disposition_keep_their_coverage(died):
    disposition = TASKS["discharge_disposition"]
    places = np.array([0.4, 0.7, -1.2, 0.0])

    def patients(count, seed):
        draw = np.random.default_rng(seed)
        p = softmax(draw.normal([1.5, 0.5, 0.0, -0.5], 1.5, (count, 4)), axis=1)
        return p, (draw.random((count, 1)) > p.cumsum(axis=1)).sum(axis=1)

    shifts = dict(zip(disposition.classes, places, strict=True))
    binary = one_task(died)

    def moved(p):
        return shift_classes(unmoved, p, shifts, binary, binary.apply(p[:, [3]]))

    unmoved = facts("discharge_disposition", *patients(2000, 0), disposition.classes)
    p, y = patients(20_000, 1)
    old = facts("discharge_disposition", p, y, disposition.classes)
    new = shift_facts(old, binary, shifts).sets.thresholds
    p, y = patients(40_000, 2)
    for k, name in enumerate(disposition.classes):
        assert (moved(p)[:, k] >= new[name])[y == k].mean() > 0.88, name
    # The threshold of death is that of mortality, with the same shift.
    assert logit(new["died"]) == pytest.approx(logit(old.sets.thresholds["died"]) + died)
