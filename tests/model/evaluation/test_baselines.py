"""The baselines: they learn the signal in the data, and predict no impossible value."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model.evaluation.baselines import (
    InputColumns,
    gradient_boosting,
    logistic_regression,
    mean_predictions,
)
from model.training.data import SampleTensors
from schemas.response import MODALITIES
from tests.support.inputs.cohorts import NAMES, TASKS, make_cohort

SETTINGS = {
    "logistic_regression": {"C": 0.1, "words": 1.0},
    "lightgbm": {"num_leaves": 4, "learning_rate": 0.1, "n_estimators": 40},
}
MAKE = {"logistic_regression": logistic_regression, "lightgbm": gradient_boosting}
LEARN, TEST = np.arange(400), np.arange(400, 600)


def predictions(name, cohort, learn=LEARN):
    data = SampleTensors([cohort], MODALITIES)
    inputs = InputColumns(data, learn, cohort.spec.vocabulary)
    return MAKE[name](inputs, data, TASKS, learn, SETTINGS[name])(data, TEST)


def with_outcomes(cohort, task, values):
    outcomes = cohort.samples.outcomes.copy()
    outcomes[:, NAMES.index(task)] = values
    return replace(cohort, samples=replace(cohort.samples, outcomes=outcomes))


def column(outputs, task):
    return outputs["binary"][:, [t.name for t in TASKS if t.kind == "binary"].index(task)]


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(600)


@pytest.mark.parametrize("name", MAKE)
def test_a_baseline_learns_the_signal(name, cohort):
    truth = cohort.samples.outcomes[TEST, NAMES.index("diabetes")]
    assert roc_auc_score(truth, column(predictions(name, cohort), "diabetes")) > 0.85


@pytest.mark.parametrize("name", MAKE)
def test_a_length_of_stay_is_predicted_in_days(name, cohort):
    signal = np.nan_to_num(cohort.samples.statistics[:, 0, 1])
    days = predictions(name, with_outcomes(cohort, "length_of_stay", np.exp(signal)))
    error = np.log(days["length_of_stay"][:, 0]) - signal[TEST]
    assert np.abs(error).mean() < 0.6 * np.abs(signal[TEST]).mean()


@pytest.mark.parametrize("name", MAKE)
def test_a_disease_with_too_few_cases_gets_the_observed_share(name, cohort):
    few = np.zeros(600)
    few[:2] = 1
    predicted = column(predictions(name, with_outcomes(cohort, "asthma", few)), "asthma")
    np.testing.assert_allclose(predicted, 2 / 400)


@pytest.mark.parametrize("name", MAKE)
def test_a_task_without_labels_gets_nan(name, cohort):
    unknown = with_outcomes(cohort, "asthma", np.nan)
    assert np.isnan(column(predictions(name, unknown), "asthma")).all()


def test_the_training_patients_determine_the_word_columns(cohort):
    data = SampleTensors([cohort], MODALITIES)
    vocabulary = cohort.spec.vocabulary
    many, few = (
        InputColumns(data, rows, vocabulary).words(data, TEST) for rows in (LEARN, LEARN[:40])
    )
    assert many.shape[1] > few.shape[1]


def test_a_linear_model_does_not_extrapolate_beyond_the_training_patients(cohort):
    """A patient far beyond the range of all training patients gets no more than a near one."""
    samples = cohort.samples
    first = samples.statistics.copy()
    for row, value in ((400, 50.0), (401, 5000.0)):
        first[row, 0] = value
        first[row, 1:] = 0.0
        samples.tabular[row] = 0.0
        samples.treatments[row] = 0.0
    far = replace(cohort, samples=replace(samples, statistics=first))
    outcome = np.where(np.nan_to_num(first[:, 0, 1]) > 0, 30.0, 1.0)
    far = with_outcomes(far, "length_of_stay", outcome)
    data = SampleTensors([far], ("series",))
    inputs = InputColumns(data, LEARN, cohort.spec.vocabulary)
    predict = logistic_regression(inputs, data, TASKS, LEARN, SETTINGS["logistic_regression"])
    p = predict(data, np.array([400, 401]))
    np.testing.assert_allclose(column(p, "diabetes")[0], column(p, "diabetes")[1])
    np.testing.assert_allclose(*p["length_of_stay"])


def test_a_bag_has_the_mean_probability_and_the_geometric_mean_of_days():
    one = {"binary": np.array([[0.2, 0.6]]), "length_of_stay": np.array([[1.0]])}
    other = {"binary": np.array([[0.4, 0.6]]), "length_of_stay": np.array([[4.0]])}
    bag = mean_predictions([one, other], TASKS)
    np.testing.assert_allclose(bag["binary"], [[0.3, 0.6]])
    np.testing.assert_allclose(bag["length_of_stay"], [[2.0]])


@pytest.mark.parametrize("name", MAKE)
def test_no_predicted_stay_is_longer_than_all_training_stays(name, cohort):
    extreme = replace(
        cohort, samples=replace(cohort.samples, tabular=cohort.samples.tabular * 1000)
    )
    data = SampleTensors([cohort], MODALITIES)
    inputs = InputColumns(data, LEARN, cohort.spec.vocabulary)
    predict = MAKE[name](inputs, data, TASKS, LEARN, SETTINGS[name])
    days = predict(SampleTensors([extreme], MODALITIES), TEST)["length_of_stay"]
    observed = cohort.samples.outcomes[LEARN, NAMES.index("length_of_stay")]
    assert days.max() <= max(observed.max(), 1 / 24) * 1.0001
