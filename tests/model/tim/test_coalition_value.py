"""A network's value is the metric of the evaluation, with the variance of its patients."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from model.tim.coalition_value import FoldPatients
from model.training.phenotypes import explained_variance
from tests.support.inputs.cohorts import TASKS


def patients_of(outcomes, statistics=None, site=None):
    """The patients of one fold, without replicates; each is a site unless `site` is given."""
    count = len(outcomes)
    site = np.arange(count) if site is None else site
    weights = np.ones((1, site.max() + 1))
    statistics = np.zeros((count, 1)) if statistics is None else statistics
    return FoldPatients(outcomes, site, weights, statistics)


def test_the_value_of_a_network_is_the_metric_of_the_evaluation():
    random = np.random.default_rng(0)
    count = 400
    outcomes = np.stack(
        [
            random.random(count) < 0.3,
            random.integers(0, 3, count),
            random.lognormal(size=count),
            np.full(count, np.nan),
        ],
        axis=1,
    ).astype(float)
    outcomes[:50, :2] = np.nan
    statistics = random.normal(size=(count, 4))
    patients = patients_of(outcomes, statistics)
    known = ~np.isnan(outcomes[:, 0])
    by_kind = {task.kind: task for task in TASKS}

    score = random.normal(size=count) + np.nan_to_num(outcomes[:, 0])
    (found,) = patients.task_value(by_kind["binary"], 0, score)
    assert found == pytest.approx(roc_auc_score(outcomes[known, 0], score[known]))

    logits = random.normal(size=(count, 3))
    (found,) = patients.task_value(by_kind["multiclass"], 1, logits)
    areas = [roc_auc_score(outcomes[known, 1] == k, logits[known, k]) for k in range(3)]
    assert found == pytest.approx(np.mean(areas))

    days = np.log(outcomes[:, 2])
    guess = days + random.normal(size=count) + 3
    (found,) = patients.task_value(by_kind["regression"], 2, np.stack([guess] * 3, axis=1))
    assert found == pytest.approx(1 - np.mean((days - guess) ** 2) / np.var(days))

    clusters = random.normal(size=(count, 3)) + statistics[:, :3]
    (found,) = patients.task_value(by_kind["clustering"], 3, clusters)
    assert found == pytest.approx(
        explained_variance(torch.from_numpy(statistics), torch.from_numpy(clusters.argmax(1)))
    )


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression", "clustering"])
def test_a_site_that_is_drawn_twice_counts_twice(kind):
    random = np.random.default_rng(1)
    count = 120
    outcomes = random.integers(0, 2, (count, 1)).astype(float)
    statistics = random.normal(size=(count, 3))
    raw = random.normal(size=count) if kind == "binary" else random.normal(size=(count, 3))
    site, weights = np.arange(count) % 6, np.array([[1, 0, 2, 3, 0, 1]], dtype=float)
    task = next(t for t in TASKS if t.kind == kind)
    weighted = FoldPatients(outcomes, site, weights, statistics).task_value(task, 0, raw)
    rows = np.repeat(np.arange(count), weights[0, site].astype(int))
    drawn = patients_of(outcomes[rows], statistics[rows]).task_value(task, 0, raw[rows])
    np.testing.assert_allclose(weighted, drawn)


def test_the_value_is_undefined_without_positives():
    outcomes = np.zeros((30, 1))
    score = np.random.default_rng(0).normal(size=30)
    binary = next(task for task in TASKS if task.kind == "binary")
    assert np.isnan(patients_of(outcomes).task_value(binary, 0, score)).all()


def test_a_class_that_is_missing_does_not_make_the_value_undefined():
    random = np.random.default_rng(0)
    outcomes = random.integers(0, 2, (60, 1)).astype(float)  # of four classes, two occur
    outcomes[:30] = np.nan
    task = next(task for task in TASKS if task.kind == "multiclass")
    logits = random.normal(size=(60, 4))
    (found,) = patients_of(outcomes).task_value(task, 0, logits)
    areas = [roc_auc_score(outcomes[30:, 0] == k, logits[30:, k]) for k in (0, 1)]
    assert found == pytest.approx(np.mean(areas))
    assert np.isnan(patients_of(np.zeros((30, 1))).task_value(task, 0, logits[:30])).all()
    unknown = patients_of(np.full((30, 1), np.nan))
    assert np.isnan(unknown.task_value(task, 0, logits[:30])).all()


def test_a_replicate_without_a_class_counts_the_other_classes():
    random = np.random.default_rng(0)
    outcomes = np.repeat([0.0, 1.0, 2.0], 20)[:, None]
    site, weights = np.arange(60) // 20, np.array([[1.0, 1, 1], [1, 1, 0]])
    task = next(task for task in TASKS if task.kind == "multiclass")
    logits = random.normal(size=(60, 4))
    values = FoldPatients(outcomes, site, weights, np.zeros((60, 1))).task_value(task, 0, logits)
    areas = [roc_auc_score(outcomes[:40, 0] == k, logits[:40, k]) for k in (0, 1)]
    assert values[1] == pytest.approx(np.mean(areas))


def test_the_bootstrap_error_equals_that_of_new_patients():
    """The bootstrap standard error, compared with that of 300 samples of a population."""
    random = np.random.default_rng(0)
    binary = next(task for task in TASKS if task.kind == "binary")

    def draw(count):
        health = random.normal(size=count)
        outcome = (random.random(count) < 1 / (1 + np.exp(-health - 0.5))).astype(float)
        one, other = (health + random.normal(size=count) * noise for noise in (1.0, 1.2))
        return outcome[:, None], one, other

    def gain(outcomes, one, other, weights):
        patients = FoldPatients(
            outcomes, np.arange(len(outcomes)), weights, np.zeros((len(outcomes), 1))
        )
        return patients.task_value(binary, 0, one) - patients.task_value(binary, 0, other)

    size = 150
    truth = np.std([gain(*draw(size), np.ones((1, size)))[0] for _ in range(300)])
    errors = []
    for _ in range(20):
        weights = random.multinomial(size, np.full(size, 1 / size), 200).astype(float)
        errors.append(np.std(gain(*draw(size), weights)))
    assert np.mean(errors) == pytest.approx(truth, rel=0.15)
