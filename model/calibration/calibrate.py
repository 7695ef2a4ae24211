"""Calibration of probabilities, Venn-Abers intervals, conformal sets and local recalibration.

All functions are fitted on predictions for patients that were held out of the training.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, minimize, minimize_scalar
from scipy.special import log_softmax

from schemas.manifest import ConformalSets, VennAbersCurve

Floats = npt.NDArray[np.float64]

MIN_CLASS_PATIENTS = 20  # patients of a class that a conformal threshold needs
MISS_RATE = 0.1  # the share of a class's patients whose set may miss the class
SCALE_PENALTY = 2.0
MIN_EVIDENCE_SCALE = 0.9
# The scales of the evidence, of what the network learned, and of the trees, which repeat the other
# two. They were chosen with the penalty on held-out hospitals (docs/experiments.md).
USUAL_SCALES, STACKING_PENALTY = (0.9, 0.5, 0.3), 10.0
MAX_SCORES = 60  # scores at which a Venn-Abers interval is stored
EM_STEPS = 30  # steps of expectation maximisation


def fit_scales(parts: Floats, base: Floats, target: Floats, weight: Floats) -> Floats:
    """The maximum-likelihood factors [3] of `base + factors @ parts`, the calibrated log-odds.

    `parts` [3, n]: the evidence of findings, what the network learned, and the trees. This is
    stacking (Wolpert 1992) around the prevalence. A quadratic penalty pulls the factors towards
    USUAL_SCALES, so that a task with few patients hardly changes. The factor of the evidence is at
    least MIN_EVIDENCE_SCALE, so that an effect keeps its least size.
    """
    usual = np.array(USUAL_SCALES)

    def objective(factors: Floats) -> float:
        z = base + factors @ parts
        loss = weight * (np.logaddexp(0.0, z) - target * z)
        return float(loss.sum() + STACKING_PENALTY / 2 * ((factors - usual) ** 2).sum())

    bounds = [(MIN_EVIDENCE_SCALE, 5.0), (0.0, 5.0), (0.0, 5.0)]
    return np.asarray(minimize(objective, usual, method="L-BFGS-B", bounds=bounds).x)


def fit_shift(log_odds: Floats, target: Floats, weight: Floats) -> float:
    """The maximum-likelihood shift of log-odds; a quadratic penalty pulls it towards 0."""

    def objective(shift: float) -> float:
        z = log_odds + shift
        loss = weight * (np.logaddexp(0.0, z) - target * z)
        return float(loss.sum() + SCALE_PENALTY / 2 * shift**2)

    return float(minimize_scalar(objective, bounds=(-5.0, 5.0), method="bounded").x)


def log_odds_bound(patients: float) -> float:
    """The largest log-odds that so many patients support: those of all but half a patient."""
    return math.log(2 * patients + 1)


def venn_abers(probability: Floats, outcome: Floats, weight: Floats) -> VennAbersCurve:
    """The interval of each probability, as a step function of the score.

    Inductive Venn-Abers prediction (Vovk, Petej & Fedorova 2015): isotonic regression with the
    patient counted once as healthy (lower end) and once as ill (upper end). Both ends grow with the
    score. They are stored at MAX_SCORES scores. Between two stored scores the lower end is that of
    the left one and the upper end that of the right one, so that no interval is too narrow.
    """
    grid = np.unique(np.quantile(probability, np.linspace(0.0, 1.0, MAX_SCORES)))
    scores, group = np.unique(probability, return_inverse=True)
    patients = np.bincount(group, weights=weight)
    ill = np.bincount(group, weights=weight * outcome)

    def end(label: float) -> list[float]:
        values = []
        for score, place in zip(grid, np.searchsorted(scores, grid), strict=True):
            # The patient is a group of its own; equal scores have the same value.
            w, y = np.insert(patients, place, 1.0), np.insert(ill, place, label)
            if place < len(scores) and scores[place] == score:
                w[place], y[place] = w[place] + w[place + 1], y[place] + y[place + 1]
                w, y = np.delete(w, place + 1), np.delete(y, place + 1)
            values.append(float(isotonic_regression(y / w, weights=w).x[place]))
        return values

    return VennAbersCurve(scores=tuple(grid.tolist()), low=tuple(end(0.0)), high=tuple(end(1.0)))


def conformal_sets(
    probabilities: Floats, outcome: Floats, weight: Floats, classes: Sequence[str]
) -> ConformalSets:
    """For each class, the smallest probability with which it is in a patient's set.

    Label-conditional split conformal prediction (Vovk 2012): among the patients of each class, at
    most a share of MISS_RATE have a set without the class. `probabilities` [n, classes]; `outcome`
    [n] class indices. With too few patients of a class, the result has a reason and no thresholds.
    """
    thresholds = {}
    for k, name in enumerate(classes):
        in_class = outcome == k
        patients = float(weight[in_class].sum())
        if patients < MIN_CLASS_PATIENTS:
            few = math.floor(patients + 0.5)
            needed = f"a set needs {MIN_CLASS_PATIENTS}"
            return ConformalSets(reason=f"only {few} patients have the outcome {name!r}; {needed}")
        thresholds[name] = weighted_quantile(
            probabilities[in_class, k], weight[in_class], MISS_RATE - (1 - MISS_RATE) / patients
        )
    return ConformalSets(thresholds=thresholds)


def weighted_quantile(values: Floats, weight: Floats, share: float) -> float:
    """The largest value below which at most `share` of the weight lies."""
    order = np.argsort(values)
    below = np.cumsum(weight[order]) - weight[order]
    allowed = np.flatnonzero(below <= max(share, 0.0) * weight.sum())
    return float(values[order][allowed[-1]])


def conformal_margin(miss: Floats, weight: Floats, share: float) -> float:
    """The outward shift of an interval's end beyond which at most 1 - `share` of outcomes lie.

    Split conformal prediction (Vovk 2012): the quantile has the finite-sample correction (n + 1) /
    n, where n is the number of patients, so that a new patient is covered with the promised
    probability. `miss` [n]: how far each patient's outcome lies beyond the end.
    """
    return weighted_quantile(miss, weight, share * (1 + 1 / float(weight.sum())))


def local_margin(miss: Floats, weight: Floats) -> float | None:
    """The outward shift of an interval's end with which it misses MISS_RATE / 2 of the outcomes.

    `conformal_margin` of the patients of another hospital. None if there are too few patients.
    """
    if float(weight.sum()) < MIN_CLASS_PATIENTS:
        return None
    return conformal_margin(miss, weight, 1 - MISS_RATE / 2)


def prior_shift(log_odds: Floats, outcome: Floats, weight: Floats) -> Floats:
    """The shift [T] of each task's log-odds at a new hospital with other prevalences.

    `log_odds`, `outcome` [n, T], an unknown outcome is NaN; `weight` [n]. If only the prevalence
    differs (label shift), adding the log of the ratio of the prior odds to the log-odds makes a
    calibrated model calibrated again (Saerens et al. 2002, eq. 4). Outcomes are known here, so the
    shift is fitted as an intercept by maximum likelihood. For a model with the same log-odds for
    all patients it yields the local prevalence.

    The shifts are shrunk towards a common one (empirical Bayes, by expectation maximisation), so
    that a task with few patients follows the others. A task without labels has no shift.
    """
    known = ~np.isnan(outcome)
    tasks = np.flatnonzero(known.any(axis=0))
    shifts = np.zeros(outcome.shape[1])
    common, variance = 0.0, 1.0
    for _ in range(EM_STEPS if len(tasks) else 0):
        variances = []
        for t in tasks:
            z, y, w = log_odds[known[:, t], t], outcome[known[:, t], t], weight[known[:, t]]
            shifts[t] = _likeliest_shift(z, y, w, common, variance)
            p = 1 / (1 + np.exp(-z - shifts[t]))
            variances.append(1 / ((w * p * (1 - p)).sum() + 1 / variance))
        # A weak prior: one more task without a shift.
        common = float(shifts[tasks].sum() / (len(tasks) + variance))
        spread = (shifts[tasks] - common) ** 2 + np.array(variances)
        variance = float((spread.sum() + 0.1) / (len(tasks) + 1))
    return shifts


def _likeliest_shift(
    log_odds: Floats, outcome: Floats, weight: Floats, common: float, variance: float
) -> float:
    def objective(shift: float) -> float:
        z = log_odds + shift
        loss = weight * (np.logaddexp(0.0, z) - outcome * z)
        return float(loss.sum() + (shift - common) ** 2 / (2 * variance))

    return float(minimize_scalar(objective, bounds=(-8.0, 8.0), method="bounded").x)


def class_shift(log_p: Floats, outcome: Floats, weight: Floats) -> Floats:
    """The shift [K] of the log-probabilities [n, K] of a multiclass task at a new hospital.

    The maximum of the posterior with a standard normal prior. `outcome` [n] class indices.
    """
    rows, chosen = np.arange(len(outcome)), outcome.astype(np.intp)

    def objective(shift: Floats) -> float:
        fit = log_softmax(log_p + shift, axis=1)[rows, chosen]
        return float(shift @ shift / 2 - weight @ fit)

    shift: Floats = minimize(objective, np.zeros(log_p.shape[1])).x
    return shift
