"""Metrics and folds."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model.cohorts.store import Cohort
from model.evaluation.evaluate import Score, mean_auroc, score_tasks
from model.evaluation.folds import hospital_folds
from model.evaluation.metrics import within_fold_auroc
from tests.support.inputs.cohorts import SPEC, TASKS, make_cohort


def test_auroc_is_the_positives_weighted_mean_over_folds():
    draw = np.random.default_rng(0)
    outcome = (draw.random(300) < 0.3).astype(float)
    score = outcome + draw.normal(size=300)
    fold = np.arange(300) % 3
    outcome[fold == 2] = 0  # a fold without positives has no AUROC
    expected = np.average(
        [roc_auc_score(outcome[fold == f], score[fold == f]) for f in (0, 1)],
        weights=[outcome[fold == f].sum() for f in (0, 1)],
    )
    assert within_fold_auroc(outcome, score, fold) == pytest.approx(expected)


def test_scores_of_different_folds_are_not_compared():
    outcome = np.array([0.0, 1.0, 0.0, 1.0])
    fold = np.array([0, 0, 1, 1])
    assert within_fold_auroc(outcome, np.array([0.1, 0.2, 0.8, 0.9]), fold) == 1.0


def test_an_unlabelled_patient_does_not_count_as_healthy():
    outcome = np.array([0.0, 1.0, np.nan])
    fold = np.zeros(3, int)
    assert within_fold_auroc(outcome, np.array([0.1, 0.5, 0.9]), fold) == 1.0


def test_a_task_with_few_positives_is_not_in_the_mean():
    def score(name, positives, value):
        return Score(name, "binary", 100, positives, {"auroc": value})

    assert mean_auroc([score("a", 20, 0.8), score("b", 19, 0.1)]) == 0.8


def test_no_hospital_or_patient_is_on_both_sides_of_a_fold():
    made = make_cohort()
    samples = made.samples
    samples.patient[:] = [f"p{i % 100}" for i in range(len(samples))]  # some in two hospitals
    cohort = Cohort("made", "", TASKS, SPEC, samples, "x")
    tested = []
    for fold in hospital_folds(cohort):
        assert not set(samples.site[fold.learn]) & set(samples.site[fold.test])
        assert not set(samples.patient[fold.learn]) & set(samples.patient[fold.test])
        tested.append(fold.test)
    assert sorted(np.concatenate(tested)) == list(range(len(samples)))


def test_perfect_predictions_have_perfect_scores():
    cohort = make_cohort()
    outcomes = cohort.samples.outcomes
    binary = [i for i, t in enumerate(TASKS) if t.kind == "binary"]
    names = [t.name for t in TASKS]
    classes = outcomes[:, names.index("discharge_disposition")].astype(int)
    outputs = {
        "binary": outcomes[:, binary].astype(float),
        "discharge_disposition": np.eye(4)[classes],
        "length_of_stay": np.maximum(outcomes[:, [names.index("length_of_stay")]], 1 / 24),
    }
    scores = score_tasks(TASKS, outcomes, outputs, np.zeros(len(outcomes), int))
    assert mean_auroc(scores) == 1.0
    metrics = {s.task: s.metrics for s in scores}
    assert metrics["sepsis"]["brier"] == 0
    assert metrics["length_of_stay"]["r2_log_days"] == pytest.approx(1.0)
    assert metrics["phenotype"] == {}
