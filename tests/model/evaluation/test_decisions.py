"""Decision figures, against values computed by hand."""

import math

import numpy as np
import pytest

from model.evaluation.decisions import (
    decide,
    decision_points,
    threshold_of_alerts,
    threshold_of_sensitivity,
)
from schemas.evaluation import Evaluation

# Ten patients, five with the disease.
P = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05])
Y = np.array([1.0, 1, 0, 1, 0, 1, 0, 0, 1, 0])


def test_the_figures_of_a_threshold():
    # At 0.6: alerts 0.9, 0.8, 0.7, 0.6, of which three are true and one is false.
    found = decide(Y, P, 0.6)
    assert found.sensitivity == 3 / 5
    assert found.specificity == 4 / 5
    assert found.ppv == 3 / 4
    assert found.alerts_per_100 == 40
    # 3/10 - 1/10 * 0.6/0.4
    assert found.net_benefit == pytest.approx(0.15)
    # 5/10 - 5/10 * 0.6/0.4
    assert found.net_benefit_of_all == pytest.approx(-0.25)


def test_net_benefit_at_one_in_ten_weighs_a_false_alert_as_a_ninth():
    # All but 0.05: five true, four false.
    assert decide(Y, P, 0.1).net_benefit == pytest.approx(5 / 10 - 4 / 10 / 9)


@pytest.mark.parametrize(
    ("sensitivity", "threshold"), [(0.2, 0.9), (0.6, 0.6), (0.8, 0.4), (0.81, 0.1), (0.9, 0.1)]
)
def test_the_threshold_of_a_sensitivity_is_the_highest_that_reaches_it(sensitivity, threshold):
    assert threshold_of_sensitivity(Y, P, sensitivity) == threshold
    assert decide(Y, P, threshold).sensitivity >= sensitivity
    assert decide(Y, P, threshold + 1e-6).sensitivity < sensitivity


@pytest.mark.parametrize(("per_100", "threshold"), [(10, 0.9), (19, 0.9), (20, 0.8), (100, 0.05)])
def test_the_threshold_of_an_alert_rate_is_the_lowest_that_keeps_it(per_100, threshold):
    assert threshold_of_alerts(P, per_100) == threshold
    assert decide(Y, P, threshold).alerts_per_100 <= per_100


def test_equal_probabilities_are_alerted_together_or_not_at_all():
    p = np.array([0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert threshold_of_alerts(p, 30) == 0.5
    assert threshold_of_alerts(p, 20) == math.inf
    nobody = decide(Y, p, math.inf)
    assert (nobody.alerts_per_100, nobody.sensitivity, nobody.specificity) == (0, 0, 1)
    assert nobody.net_benefit == 0
    assert math.isnan(nobody.ppv)


def test_every_point_of_a_task_has_its_figures():
    points = decision_points(Y, P)
    assert list(points) == ["sensitivity_80", "sensitivity_90", "alerts_5", "alerts_10"]
    assert points["sensitivity_80"]["threshold"] == 0.4
    assert points["sensitivity_80"]["ppv"] == 4 / 6
    assert points["alerts_10"]["sensitivity"] == 1 / 5
    assert points["alerts_5"]["threshold"] == math.inf


def test_a_task_with_one_class_has_no_points():
    assert decision_points(np.zeros(10), P) == {}
    assert decision_points(np.ones(10), P) == {}


def test_a_manifest_holds_the_points():
    points = {"alerts_5": {"threshold": None, "ppv": None, "alerts_per_100": 0.0}}
    raw = {"decisions": {"all": {"by_task": {"sepsis": {"positives": 5, "points": points}}}}}
    held = Evaluation.model_validate(raw).decisions["all"].by_task["sepsis"].points["alerts_5"]
    assert (held.threshold, held.alerts_per_100) == (None, 0.0)
    points["alerts_5"]["alerts_per_100"] = "many"
    with pytest.raises(ValueError, match="alerts_per_100"):
        Evaluation.model_validate(raw)
