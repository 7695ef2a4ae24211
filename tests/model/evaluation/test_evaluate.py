"""Metrics and folds."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model.cohorts.store import Cohort
from model.evaluation.evaluate import Score, mean_auroc, score_tasks
from model.evaluation.folds import hospital_folds
from model.evaluation.metrics import r_squared, within_fold_auroc
from tests.support.inputs.cohorts import SPEC, TASKS, make_cohort

STAY = [task.name for task in TASKS].index("length_of_stay")
FOLD = np.zeros(240, int)


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


def test_no_patient_of_a_test_hospital_is_learned_from_at_another_landmark():
    made = make_cohort()
    samples = made.samples
    # Each patient has a stay at 24 h and one at 6 h, at another hospital.
    samples.landmark[:] = np.where(np.arange(len(samples)) % 2, 24, 6)
    cohort = Cohort("made", "", TASKS, SPEC, samples, "x")
    for fold in hospital_folds(cohort):
        tested = np.isin(samples.site, np.unique(samples.site[fold.test]))
        assert not set(samples.patient[fold.learn]) & set(samples.patient[tested])


def test_a_biased_prediction_has_a_lower_r_squared():
    truth = np.array([0.0, 1.0, 2.0, 3.0])
    assert r_squared(truth, truth) == 1.0
    # Squared error 1, variance 1.25.
    assert r_squared(truth, truth + 1) == pytest.approx(1 - 1 / 1.25)
    assert np.isnan(r_squared(np.ones(4), truth))
    assert np.isnan(r_squared(np.empty(0), np.empty(0)))


def test_a_biased_length_of_stay_is_scored_with_its_bias():
    cohort = make_cohort()
    days = np.maximum(cohort.samples.outcomes[:, [STAY]], 1 / 24).astype(float)
    (exact,), (tripled,) = (
        score_tasks([TASKS[STAY]], cohort.samples.outcomes[:, [STAY]], {"length_of_stay": p}, FOLD)
        for p in (days, 3 * days)
    )
    assert exact.metrics["r2_log_days"] == pytest.approx(1.0)
    assert tripled.metrics["r2_log_days"] < 0


def test_a_missing_class_leaves_no_nan_in_the_scores():
    outcomes = make_cohort().samples.outcomes.copy()
    binary = [i for i, t in enumerate(TASKS) if t.kind == "binary"]
    names = [t.name for t in TASKS]
    outcomes[:, names.index("sepsis")] = 1.0  # no patient without
    outcomes[:, names.index("anemia")] = 0.0  # no patient with
    outcomes[:, names.index("asthma")] = np.nan  # no known outcome
    disposition = names.index("discharge_disposition")
    outcomes[outcomes[:, disposition] == 3, disposition] = 0.0
    outputs = {
        "binary": np.random.default_rng(0).random((240, len(binary))),
        "discharge_disposition": np.eye(4)[outcomes[:, disposition].astype(int)],
        "length_of_stay": np.ones((240, 1)),
    }
    scores = score_tasks(TASKS, outcomes, outputs, FOLD)
    assert not any(np.isnan(value) for s in scores for value in s.metrics.values())
    metrics = {s.task: s.metrics for s in scores}
    assert metrics["discharge_disposition"]["auroc"] == 1.0
    assert metrics["sepsis"].keys() == metrics["anemia"].keys() == {"brier"}
    assert not metrics["asthma"]
    assert 0 < mean_auroc(scores) < 1


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
