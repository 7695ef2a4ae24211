"""A network is worth what the evaluation's metric says, and as surely as its patients allow."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from model.representations.phenotypes import explained
from model.tim.coalition_value import Patients
from tests.support.cohorts import TASKS


def patients_of(outcomes, statistics=None, site=None):
    """Patients of one fold, each a site of its own unless said otherwise; the data as they are."""
    count = len(outcomes)
    site = np.arange(count) if site is None else site
    times = np.ones((1, site.max() + 1))
    statistics = np.zeros((count, 1)) if statistics is None else statistics
    return Patients(outcomes, site, times, statistics)


def test_a_networks_worth_is_the_metric_of_the_evaluation():
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
    tests = patients_of(outcomes, statistics)
    known = ~np.isnan(outcomes[:, 0])
    by_kind = {task.kind: task for task in TASKS}

    score = random.normal(size=count) + np.nan_to_num(outcomes[:, 0])
    (found,) = tests.worth(by_kind["binary"], 0, score)
    assert found == pytest.approx(roc_auc_score(outcomes[known, 0], score[known]))

    logits = random.normal(size=(count, 3))
    (found,) = tests.worth(by_kind["multiclass"], 1, logits)
    areas = [roc_auc_score(outcomes[known, 1] == k, logits[known, k]) for k in range(3)]
    assert found == pytest.approx(np.mean(areas))

    days = np.log(outcomes[:, 2])
    guess = days + random.normal(size=count) + 3
    (found,) = tests.worth(by_kind["regression"], 2, np.stack([guess] * 3, axis=1))
    assert found == pytest.approx(1 - np.var(days - guess) / np.var(days))

    clusters = random.normal(size=(count, 3)) + statistics[:, :3]
    (found,) = tests.worth(by_kind["clustering"], 3, clusters)
    assert found == pytest.approx(
        explained(torch.from_numpy(statistics), torch.from_numpy(clusters.argmax(1)))
    )


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression", "clustering"])
def test_a_site_that_is_drawn_twice_counts_twice(kind):
    random = np.random.default_rng(1)
    count = 120
    outcomes = random.integers(0, 2, (count, 1)).astype(float)
    statistics = random.normal(size=(count, 3))
    raw = random.normal(size=count) if kind == "binary" else random.normal(size=(count, 3))
    site, times = np.arange(count) % 6, np.array([[1, 0, 2, 3, 0, 1]], dtype=float)
    task = next(t for t in TASKS if t.kind == kind)
    weighted = Patients(outcomes, site, times, statistics).worth(task, 0, raw)
    rows = np.repeat(np.arange(count), times[0, site].astype(int))
    drawn = patients_of(outcomes[rows], statistics[rows]).worth(task, 0, raw[rows])
    np.testing.assert_allclose(weighted, drawn)


def test_what_a_fold_cannot_test_is_not_measured():
    outcomes = np.zeros((30, 1))
    score = np.random.default_rng(0).normal(size=30)
    binary = next(task for task in TASKS if task.kind == "binary")
    assert np.isnan(patients_of(outcomes).worth(binary, 0, score)).all()


def test_the_patients_part_is_as_large_as_other_patients_would_make_it():
    """The standard error by bootstrap beside that of 300 draws from a large population."""
    random = np.random.default_rng(0)
    binary = next(task for task in TASKS if task.kind == "binary")

    def draw(count):
        health = random.normal(size=count)
        outcome = (random.random(count) < 1 / (1 + np.exp(-health - 0.5))).astype(float)
        one, other = (health + random.normal(size=count) * noise for noise in (1.0, 1.2))
        return outcome[:, None], one, other

    def gain(outcomes, one, other, times):
        tests = Patients(outcomes, np.arange(len(outcomes)), times, np.zeros((len(outcomes), 1)))
        return tests.worth(binary, 0, one) - tests.worth(binary, 0, other)

    size = 150
    truth = np.std([gain(*draw(size), np.ones((1, size)))[0] for _ in range(300)])
    told = []
    for _ in range(20):
        times = random.multinomial(size, np.full(size, 1 / size), 200).astype(float)
        told.append(np.std(gain(*draw(size), times)))
    assert np.mean(told) == pytest.approx(truth, rel=0.15)
