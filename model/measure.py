"""What the report measures: AUROC and how sure it is, calibration, coverage, operations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression

from model.data import Rows
from schemas.tasks import Task

Floats = npt.NDArray[np.float64]

REPLICATES = 1000
FEWEST_FOR_CALIBRATION = 50


@dataclass(frozen=True)
class Tested:
    """A model's predictions of all test patients, at one landmark.

    scores[task]: [n] of a binary task, [n, classes], or [n, 3] days; outcome [n, T]; fold [n];
    site [n] of the hospital (or, outside, the patient).
    """

    tasks: tuple[Task, ...]
    scores: dict[str, Floats]
    outcome: Floats
    fold: Rows
    site: npt.NDArray[np.str_]
    rows: Rows
    facts: tuple[dict[str, Any], ...]


# ---- AUROC, and how sure it is -----------------------------------------------------------------


def weighted_auroc(outcome: Floats, score: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """The AUROC under each row of `weight` [replicates, n], and its weight of positives."""
    order = np.argsort(score, kind="stable")
    y, w = outcome[order], weight[:, order]
    first = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    positive = np.add.reduceat(w * y, first, axis=1)
    negative = np.add.reduceat(w * (1 - y), first, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    positives, negatives = positive.sum(axis=1), negative.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (positive * below).sum(axis=1) / (positives * negatives)
    return area, np.where((positives > 0) & (negatives > 0), positives, 0.0)


def replicate_weights(site: npt.NDArray[np.str_], fold: Rows, seed: int = 0) -> Floats:
    """[1 + REPLICATES, n] how often each patient is drawn; hospitals are drawn, within folds.

    The first row is the data as they are.
    """
    draw = np.random.default_rng(seed)
    weight = np.ones((1 + REPLICATES, len(site)))
    for f in np.unique(fold):
        here = fold == f
        _, code = np.unique(site[here], return_inverse=True)
        count = code.max() + 1
        times = draw.multinomial(count, np.full(count, 1 / count), REPLICATES)
        weight[1:, here] = times[:, code]
    return weight


def task_aurocs(tested: Tested, weight: Floats, fewest: int) -> dict[str, Floats]:
    """[1 + REPLICATES] of each task with enough positives: positives-weighted over folds."""
    found = {}
    for i, task in enumerate(tested.tasks):
        outcome = tested.outcome[:, i]
        if task.kind == "binary" and np.nansum(outcome) >= fewest:
            found[task.name] = _over_folds(tested, outcome, tested.scores[task.name], weight)
        elif task.kind == "multiclass" and task.name in tested.scores:
            p = tested.scores[task.name]
            known = ~np.isnan(outcome)
            by_class = [
                _over_folds(tested, np.where(known, outcome == k, np.nan), p[:, k], weight)
                for k in range(p.shape[1])
                if (outcome == k).sum() >= fewest
            ]
            found[task.name] = np.mean(by_class, axis=0)
    return found


def _over_folds(tested: Tested, outcome: Floats, score: Floats, weight: Floats) -> Floats:
    areas, weights = [], []
    for f in np.unique(tested.fold):
        here = (tested.fold == f) & ~np.isnan(outcome)
        area, positives = weighted_auroc(outcome[here], score[here], weight[:, here])
        areas.append(np.nan_to_num(area))
        weights.append(positives)
    total = np.sum(weights, axis=0)
    mean: Floats = (np.array(areas) * np.array(weights)).sum(axis=0) / np.where(
        total, total, np.nan
    )
    return mean


def interval(replicates: Floats) -> tuple[float, float, float]:
    """The figure of the data as they are, and the 95 % interval of the replicates."""
    low, high = np.nanquantile(replicates[1:], [0.025, 0.975])
    return float(replicates[0]), float(low), float(high)


class Compared:
    """Models side by side on the same patients, under the same replicates."""

    def __init__(self, tested: Mapping[str, Tested], fewest: int) -> None:
        self.tested = tested
        first = next(iter(tested.values()))
        weight = replicate_weights(first.site, first.fold)
        self.by_task = {m: task_aurocs(t, weight, fewest) for m, t in tested.items()}
        self.tasks = list(next(iter(self.by_task.values())))
        self.mean = {
            model: np.mean([areas[task] for task in self.tasks], axis=0)
            for model, areas in self.by_task.items()
        }

    def ahead(self, model: str, other: str) -> tuple[float, float, float]:
        """By how much a model's mean AUROC is above another's, paired."""
        return interval(self.mean[model] - self.mean[other])

    def relative_gain(self, model: str, other: str) -> tuple[float, float, float]:
        """The mean over tasks of (a - b) / b."""
        gains = [
            (self.by_task[model][t] - self.by_task[other][t]) / self.by_task[other][t]
            for t in self.tasks
        ]
        return interval(np.mean(gains, axis=0))


# ---- numbers that can be acted on ----------------------------------------------------------------


def pooled(tested: Tested, fewest: int) -> tuple[Floats, Floats, Floats]:
    """Probability, outcome and task number of all binary tasks with enough positives, in a row."""
    p, y, fold = [], [], []
    for i, task in enumerate(tested.tasks):
        outcome = tested.outcome[:, i]
        if task.kind == "binary" and np.nansum(outcome) >= fewest:
            known = ~np.isnan(outcome)
            p.append(tested.scores[task.name][known])
            y.append(outcome[known])
            fold.append(np.full(int(known.sum()), i))
    return np.concatenate(p), np.concatenate(y), np.concatenate(fold)


def calibration(tested: Tested, fewest: int = FEWEST_FOR_CALIBRATION) -> dict[str, float]:
    """Slope and intercept of a logistic recalibration, Brier skill, and calibration error.

    The noise floor is the calibration error that a perfectly calibrated model of the same
    probabilities would show by chance.
    """
    p, y, task = pooled(tested, fewest)
    log_odds = np.log(p / (1 - p))
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(log_odds[:, None], y)
    usual = np.array([y[task == t].mean() for t in np.unique(task)])
    reference = np.mean((y - usual[np.searchsorted(np.unique(task), task)]) ** 2)
    draw = np.random.default_rng(0)
    floor = [calibration_error(p, (draw.random(len(p)) < p).astype(float)) for _ in range(100)]
    return {
        "slope": float(fitted.coef_[0, 0]),
        "intercept": _intercept(log_odds, y),
        "brier_skill": float(1 - np.mean((p - y) ** 2) / reference),
        "calibration_error": calibration_error(p, y),
        "noise_floor": float(np.mean(floor)),
    }


def _intercept(log_odds: Floats, y: Floats) -> float:
    """Calibration in the large: what must be added to the log-odds so that the mean is right."""

    def excess(shift: float) -> float:
        return float((1 / (1 + np.exp(-log_odds - shift))).mean() - y.mean())

    return float(brentq(excess, -5, 5))


def calibration_error(p: Floats, y: Floats, bins: int = 10) -> float:
    """Mean distance of predicted and observed rate, in bins of equal mass."""
    parts = np.array_split(np.argsort(p), bins)
    return float(
        np.average([abs(p[i].mean() - y[i].mean()) for i in parts], weights=list(map(len, parts)))
    )


def coverage(tested: Tested, fewest: int = FEWEST_FOR_CALIBRATION) -> dict[str, float]:
    """How often sets and intervals hold what came, pooled."""
    held: dict[str, list[bool]] = {"positives": [], "negatives": [], "length_of_stay": []}
    sizes = []
    for i, task in enumerate(tested.tasks):
        outcome = tested.outcome[:, i]
        known = ~np.isnan(outcome)
        if task.kind == "binary" and np.nansum(outcome) >= fewest:
            for f in np.unique(tested.fold):
                limits = tested.facts[f]["sets"][task.name]["thresholds"]
                here = known & (tested.fold == f)
                p, y = tested.scores[task.name][here], outcome[here] == 1
                if limits:
                    yes, no = p >= limits["yes"], 1 - p >= limits["no"]
                    held["positives"] += yes[y].tolist()
                    held["negatives"] += no[~y].tolist()
                    sizes += (yes.astype(int) + no).tolist()
        elif task.kind == "regression":
            _, low, high = tested.scores[task.name][known].T
            days = np.maximum(outcome[known], 1 / 24)
            held["length_of_stay"] += ((low <= days) & (days <= high)).tolist()
    found = {name: float(np.mean(values)) for name, values in held.items()}
    return found | {"undecided": float(np.mean(np.array(sizes) == 2))}


def operations(tested: Tested) -> dict[str, float]:
    """Length of stay and disposition."""
    found = {}
    for i, task in enumerate(tested.tasks):
        known = ~np.isnan(tested.outcome[:, i])
        if task.kind == "regression" and task.name in tested.scores:
            days = tested.outcome[known, i]
            guess = tested.scores[task.name][known, 0]
            log = np.log(np.maximum(days, 1 / 24))
            found["mae_days"] = float(np.abs(days - guess).mean())
            found["r2_log_days"] = float(
                1 - np.mean((log - np.log(guess)) ** 2) / np.mean((log - log.mean()) ** 2)
            )
    return found
