"""Metrics of arrays. Imports no torch."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from model.auroc import binary_auroc

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

# With fewer positives, an AUROC depends more on chance than on the model.
MIN_POSITIVES = 20
SHORTEST_DAYS = 1 / 24  # the shortest length of stay, as in training
_MIN_PROBABILITY = 1e-6  # closer to 0 or 1, log-odds are noise of single precision


def log_odds(probability: Floats) -> Floats:
    """The log-odds of probabilities, which are first clipped to [1e-6, 1 - 1e-6]."""
    values: Floats = logit(np.clip(probability, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY))
    return values


def within_fold_auroc(outcome: Floats, score: Floats, fold: Rows) -> float:
    """The mean of within-fold AUROCs, weighted by positives; NaN if no fold has both classes.

    outcome [n] with NaN for no label, score [n], fold [n]. Scores of different folds come from
    different models and have different scales, so they are never compared.
    """
    areas, weights = [], []
    for number in np.unique(fold):
        rows = (fold == number) & ~np.isnan(outcome)
        positives = outcome[rows].sum()
        if 0 < positives < rows.sum():
            areas.append(binary_auroc(outcome[rows] == 1, score[rows]))
            weights.append(positives)
    return float(np.average(areas, weights=weights)) if areas else float("nan")


def calibration_error(probability: Floats, outcome: Floats, bins: int = 10) -> float:
    """Expected calibration error: mean distance of predicted and observed rate in equal bins."""
    parts = np.array_split(np.argsort(probability), min(bins, len(probability)))
    distances = [abs(probability[part].mean() - outcome[part].mean()) for part in parts]
    return float(np.average(distances, weights=[len(part) for part in parts]))


def r_squared(truth: Floats, predicted: Floats) -> float:
    """The coefficient of determination: 1 - squared error / squared distance from the mean.

    truth [n], predicted [n]. A constant bias counts as error, so it is not a squared correlation.
    NaN if `truth` does not vary.
    """
    total = float(np.mean((truth - truth.mean()) ** 2)) if len(truth) else 0.0
    return 1 - float(np.mean((truth - predicted) ** 2)) / total if total else float("nan")


def mean_of_defined(values: Sequence[Floats], count: int) -> Floats:
    """[count] the mean of the `values` [count] that are not NaN; NaN without any.

    A task or class without patients in a replicate has no AUROC there; the others still count.
    """
    stacked = np.array(values).reshape(len(values), count)
    known = ~np.isnan(stacked)
    number = known.sum(axis=0)
    mean: Floats = np.where(known, stacked, 0.0).sum(axis=0) / np.where(number > 0, number, np.nan)
    return mean


def attention_entropy(attention: Floats) -> Floats:
    """[T] entropy of each task's attention, as a share of that of uniform attention.

    attention [T, T]. 1: the task attends to all tasks alike; 0: to one task.
    """
    weights = np.clip(attention, 1e-12, 1.0)
    shares: Floats = -(weights * np.log(weights)).sum(axis=1) / np.log(attention.shape[1])
    return shares
