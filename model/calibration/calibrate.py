"""Numbers that can be acted on: calibration, intervals, sets; from patients not learned from.

All of it uses predictions that a member made for hospitals that were held out of its training.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax
from sklearn.isotonic import IsotonicRegression

from schemas.manifest import Sets, Steps

Floats = npt.NDArray[np.float64]

# A set that is to leave out a class with right needs this many patients of the class.
FEWEST_FOR_A_SET = 20
MISSED = 0.1  # the share of a class's own patients whose set may miss it
PULL = 2.0
POINTS = 60  # scores at which a Venn-Abers interval is kept
STEPS = 30  # of expectation maximisation


def stretch(evidence: Floats, base: Floats, target: Floats, weight: Floats) -> float:
    """The factor on the evidence that makes `base + factor * evidence` the likeliest log-odds.

    A quadratic PULL towards 1 leaves a task with few patients nearly as it is. The factor stays
    above 0: calibration never turns a ranking around. (Temperature scaling, Guo et al. 2017,
    around the prevalence.)
    """

    def objective(factor: float) -> float:
        z = base + factor * evidence
        loss = weight * (np.logaddexp(0.0, z) - target * z)
        return float(loss.sum() + PULL / 2 * (factor - 1) ** 2)

    return float(minimize_scalar(objective, bounds=(0.05, 5.0), method="bounded").x)


def half_a_patient(patients: float) -> float:
    """The log-odds of all but half a patient: nothing surer can be said from so many."""
    return math.log(2 * patients + 1)


def venn_abers(probability: Floats, outcome: Floats, weight: Floats) -> Steps:
    """The interval of each probability: what it would be, had the patient (not) the disease.

    Inductive Venn-Abers prediction (Vovk, Petej & Fedorova 2015): isotonic regression with the
    patient counted once as healthy and once as ill. Both ends only grow with the score; they are
    kept at POINTS scores, and between two of them the lower end is the left one's and the upper end
    the right one's, which is never too narrow.
    """
    grid = np.unique(np.quantile(probability, np.linspace(0.0, 1.0, POINTS)))
    w = np.append(weight, 1.0)

    def end(label: float) -> list[float]:
        y = np.append(outcome, label)
        found = []
        for score in grid:
            x = np.append(probability, score)
            fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit(x, y, w)
            found.append(float(fitted.predict([score])[0]))
        return found

    return Steps(scores=tuple(grid.tolist()), low=tuple(end(0.0)), high=tuple(end(1.0)))


def conformal_sets(
    probabilities: Floats, outcome: Floats, weight: Floats, classes: Sequence[str]
) -> Sets:
    """For each class the smallest probability with which it still belongs to a patient's set.

    Label-conditional split conformal prediction (Vovk 2012): of the patients of each class, at
    most MISSED have a set without it. `probabilities` [n, classes]; `outcome` [n] class indices.
    """
    thresholds = {}
    for k, name in enumerate(classes):
        mine = outcome == k
        patients = float(weight[mine].sum())
        if patients < FEWEST_FOR_A_SET:
            few = math.floor(patients + 0.5)
            return Sets(reason=f"only {few} patients with the outcome {name!r} to make one from")
        thresholds[name] = weighted_quantile(
            probabilities[mine, k], weight[mine], MISSED - (1 - MISSED) / patients
        )
    return Sets(thresholds=thresholds)


def weighted_quantile(values: Floats, weight: Floats, share: float) -> float:
    """The largest value that at most `share` of the weight lies below."""
    order = np.argsort(values)
    below = np.cumsum(weight[order]) - weight[order]
    allowed = np.flatnonzero(below <= max(share, 0.0) * weight.sum())
    return float(values[order][allowed[-1]])


def local_margin(miss: Floats, weight: Floats) -> float | None:
    """By how much to move one end of an interval outwards, so that it misses MISSED / 2 of them.

    Split conformal prediction (Vovk 2012) by the patients of another hospital; `miss` [n]: how far
    each one's outcome lies beyond the end. None where there are too few patients to say.
    """
    patients = float(weight.sum())
    if patients < FEWEST_FOR_A_SET:
        return None
    return weighted_quantile(miss, weight, (1 - MISSED / 2) * (1 + 1 / patients))


def prior_shift(log_odds: Floats, outcome: Floats, weight: Floats) -> Floats:
    """What to add to each task's log-odds at a new hospital, where diseases are charted otherwise.

    All [n, T], outcomes NaN where unknown (weight [n]). If only the prevalence differs there
    (label shift), a right posterior is right again once its log-odds are moved by the log of the
    ratio of the prior odds (Saerens et al. 2002, eq. 4). Outcomes are known here, so that the
    number is found as the likeliest intercept beside the model's log-odds. Of a model that knows
    nothing (the same log-odds for everybody) it makes the local prevalence.

    With shrinkage: the tasks' shifts lie around a common one, and how far they differ is learned
    from all of them (empirical Bayes, by expectation maximisation), so that a task with few
    patients follows the others. A task without any label stays as it is.
    """
    known = ~np.isnan(outcome)
    tasks = np.flatnonzero(known.any(axis=0))
    shifts = np.zeros(outcome.shape[1])
    common, variance = 0.0, 1.0
    for _ in range(STEPS if len(tasks) else 0):
        found = []
        for t in tasks:
            z, y, w = log_odds[known[:, t], t], outcome[known[:, t], t], weight[known[:, t]]
            shifts[t] = _likeliest_shift(z, y, w, common, variance)
            p = 1 / (1 + np.exp(-z - shifts[t]))
            found.append(1 / ((w * p * (1 - p)).sum() + 1 / variance))
        # Weak priors, as of one more task that does not shift.
        common = float(shifts[tasks].sum() / (len(tasks) + variance))
        spread = (shifts[tasks] - common) ** 2 + np.array(found)
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
    """The same for a choice of classes: [K], to be added to the log-probabilities [n, K].

    The likeliest, with a normal prior of variance 1 around no shift; `outcome` [n] class indices.
    """
    rows, chosen = np.arange(len(outcome)), outcome.astype(np.intp)

    def objective(shift: Floats) -> float:
        fit = log_softmax(log_p + shift, axis=1)[rows, chosen]
        return float(shift @ shift / 2 - weight @ fit)

    found: Floats = minimize(objective, np.zeros(log_p.shape[1])).x
    return found
