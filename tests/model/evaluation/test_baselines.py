"""What M3H is compared with is a fair opponent: it learns what is there, and invents nothing."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model.evaluation.baselines import Inputs, gradient_boosting, logistic_regression
from model.training.data import SampleTensors
from schemas.response import MODALITIES
from tests.support.cohorts import NAMES, TASKS, make_cohort

SETTINGS = {
    "logistic_regression": {"C": 0.1, "words": 1.0},
    "lightgbm": {"num_leaves": 4, "learning_rate": 0.1, "n_estimators": 40},
}
MAKE = {"logistic_regression": logistic_regression, "lightgbm": gradient_boosting}
LEARN, TEST = np.arange(400), np.arange(400, 600)


def predictions(name, cohort, learn=LEARN):
    data = SampleTensors([cohort], MODALITIES)
    inputs = Inputs(data, learn, cohort.spec.vocabulary)
    return MAKE[name](inputs, data, TASKS, learn, SETTINGS[name])(data, TEST)


def with_outcomes(cohort, task, values):
    outcomes = cohort.samples.outcomes.copy()
    outcomes[:, NAMES.index(task)] = values
    return replace(cohort, samples=replace(cohort.samples, outcomes=outcomes))


def column(found, task):
    return found["binary"][:, [t.name for t in TASKS if t.kind == "binary"].index(task)]


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(600)


@pytest.mark.parametrize("name", MAKE)
def test_it_learns_what_there_is_to_learn(name, cohort):
    truth = cohort.samples.outcomes[TEST, NAMES.index("diabetes")]
    assert roc_auc_score(truth, column(predictions(name, cohort), "diabetes")) > 0.85


@pytest.mark.parametrize("name", MAKE)
def test_days_are_learned_as_days(name, cohort):
    signal = np.nan_to_num(cohort.samples.statistics[:, 0, 1])
    days = predictions(name, with_outcomes(cohort, "length_of_stay", np.exp(signal)))
    error = np.log(days["length_of_stay"][:, 0]) - signal[TEST]
    assert np.abs(error).mean() < 0.6 * np.abs(signal[TEST]).mean()


@pytest.mark.parametrize("name", MAKE)
def test_of_a_disease_that_too_few_had_it_says_how_many(name, cohort):
    few = np.zeros(600)
    few[:2] = 1
    told = column(predictions(name, with_outcomes(cohort, "asthma", few)), "asthma")
    np.testing.assert_allclose(told, 2 / 400)


@pytest.mark.parametrize("name", MAKE)
def test_of_a_task_without_labels_it_says_nothing(name, cohort):
    unknown = with_outcomes(cohort, "asthma", np.nan)
    assert np.isnan(column(predictions(name, unknown), "asthma")).all()


def test_what_the_columns_are_is_decided_by_the_patients_to_learn_from(cohort):
    data = SampleTensors([cohort], MODALITIES)
    vocabulary = cohort.spec.vocabulary
    one, other = (Inputs(data, rows, vocabulary).words(data, TEST) for rows in (LEARN, LEARN[:40]))
    assert one.shape[1] > other.shape[1]


@pytest.mark.parametrize("name", MAKE)
def test_no_stay_is_told_that_is_longer_than_all_that_were_seen(name, cohort):
    strange = replace(
        cohort, samples=replace(cohort.samples, tabular=cohort.samples.tabular * 1000)
    )
    data = SampleTensors([cohort], MODALITIES)
    inputs = Inputs(data, LEARN, cohort.spec.vocabulary)
    predict = MAKE[name](inputs, data, TASKS, LEARN, SETTINGS[name])
    days = predict(SampleTensors([strange], MODALITIES), TEST)["length_of_stay"]
    seen = cohort.samples.outcomes[LEARN, NAMES.index("length_of_stay")]
    assert days.max() <= max(seen.max(), 1 / 24) * 1.0001
