"""Decision figures: what alerts at a threshold would find, miss and cost. Pure functions of arrays.

Thresholds are read off the tested patients, so the figures describe these patients; at a new
hospital, a threshold must be chosen on its own patients.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np

from model.evaluation.metrics import Floats

SENSITIVITIES = (0.8, 0.9)
ALERTS_PER_100 = (5, 10)


@dataclass(frozen=True)
class Decision:
    """Alerting every patient whose probability is at least `threshold`.

    A figure without a denominator is NaN: `ppv` without alerts, `sensitivity` without patients
    with the disease. `net_benefit` (Vickers & Elkin 2006, equation 3): true alerts minus false
    alerts per patient, where a false alert costs the odds of the threshold. Without alerts it is 0;
    `net_benefit_of_all` is that of alerting all patients at the same costs.
    """

    threshold: float
    sensitivity: float
    specificity: float
    ppv: float
    alerts_per_100: float
    net_benefit: float
    net_benefit_of_all: float


def decide(outcome: Floats, probability: Floats, threshold: float) -> Decision:
    """The figures of a threshold. outcome [n] 0 or 1, probability [n]; n > 0."""
    alert, ill = probability >= threshold, outcome == 1
    count = len(outcome)
    true, false = int((alert & ill).sum()), int((alert & ~ill).sum())
    positives, negatives = int(ill.sum()), int((~ill).sum())
    return Decision(
        threshold=threshold,
        sensitivity=_ratio(true, positives),
        specificity=_ratio(negatives - false, negatives),
        ppv=_ratio(true, true + false),
        alerts_per_100=100 * (true + false) / count,
        net_benefit=_net_benefit(true, false, count, threshold),
        net_benefit_of_all=_net_benefit(positives, negatives, count, threshold),
    )


def threshold_of_sensitivity(outcome: Floats, probability: Floats, sensitivity: float) -> float:
    """The highest threshold that finds at least this share of the patients with the disease.

    NaN if no patient has it.
    """
    of_ill = np.sort(probability[outcome == 1])[::-1]
    if not len(of_ill):
        return float("nan")
    # The small number undoes rounding: 0.8 * 5 is 4 patients.
    return float(of_ill[math.ceil(sensitivity * len(of_ill) - 1e-9) - 1])


def threshold_of_alerts(probability: Floats, per_100: float) -> float:
    """The lowest threshold with at most so many alerts per 100 patients.

    Infinity if more patients share the highest probability: then no patient is alerted.
    """
    values, count = np.unique(probability, return_counts=True)
    alerts = np.cumsum(count[::-1])[::-1]
    few_enough = values[alerts <= per_100 / 100 * len(probability) + 1e-9]
    return float(few_enough[0]) if len(few_enough) else math.inf


def decision_points(outcome: Floats, probability: Floats) -> dict[str, dict[str, float]]:
    """The figures at each of SENSITIVITIES and of ALERTS_PER_100, by name ("alerts_5").

    outcome [n] 0 or 1, probability [n]. Empty unless patients of both classes are known.
    """
    if not 0 < outcome.sum() < len(outcome):
        return {}
    thresholds = {
        f"sensitivity_{100 * share:.0f}": threshold_of_sensitivity(outcome, probability, share)
        for share in SENSITIVITIES
    }
    thresholds |= {
        f"alerts_{rate}": threshold_of_alerts(probability, rate) for rate in ALERTS_PER_100
    }
    return {name: asdict(decide(outcome, probability, t)) for name, t in thresholds.items()}


def _net_benefit(true: int, false: int, count: int, threshold: float) -> float:
    if not threshold < 1:  # an infinite cost of a false alert; without alerts nothing is gained
        return 0.0 if not true + false else float("nan")
    return true / count - false / count * threshold / (1 - threshold)


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")
