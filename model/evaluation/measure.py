"""What the report measures: AUROC and how sure it is, calibration, coverage, operations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from model.calibration.calibrate import prior_shift
from model.training.data import Rows
from schemas.tasks import Task

Floats = npt.NDArray[np.float64]

Figures = tuple[float, float, float]  # a figure, and both ends of its 95 % interval
Found = dict[str, Any]  # what a section of the report measures; JSON can hold it

REPLICATES = 1000
NEAREST = 1e-6  # nearer to 0 or 1 than this, log-odds are noise
ROC_POINTS = np.linspace(0.0, 1.0, 41)
FEWEST_FOR_CALIBRATION = 50


@dataclass(frozen=True)
class Tested:
    """A model's predictions of all test patients, at one landmark.

    scores[task]: [n] of a binary task, [n, classes], or [n, 3] days; outcome [n, T]; fold [n];
    site [n] of the hospital (or, outside, the patient); facts, attention [T, T] (mean over the
    patients): one for each fold; unusual [n, 4] by modality, from 0 to 1, NaN where absent.
    """

    tasks: tuple[Task, ...]
    scores: dict[str, Floats]
    outcome: Floats
    fold: Rows
    site: npt.NDArray[np.str_]
    rows: Rows
    facts: tuple[dict[str, Any], ...] = ()
    attention: tuple[Floats, ...] = ()
    unusual: Floats | None = None

    def part(self, chosen: npt.NDArray[np.bool_]) -> "Tested":
        """Some of the patients."""
        return replace(
            self,
            scores={name: p[chosen] for name, p in self.scores.items()},
            outcome=self.outcome[chosen],
            fold=self.fold[chosen],
            site=self.site[chosen],
            rows=self.rows[chosen],
            unusual=None if self.unusual is None else self.unusual[chosen],
        )

    def foreseen(self, charted: Floats) -> "Tested":
        """Of diseases alone, and of those that were not yet charted.

        `charted` [n, T] hours from `as_of`. A patient with a disease that was charted before has no
        label of it; one in whom it never was is a negative, as ever.
        """
        outcome = np.where((self.outcome == 1) & ~(charted > 0), np.nan, self.outcome)
        outcome[:, [not task.is_disease for task in self.tasks]] = np.nan
        return replace(self, outcome=outcome)

    def binary_with(self, fewest: int) -> list[str]:
        """The binary tasks with at least so many positives."""
        positives = np.nansum(self.outcome, axis=0)
        found = zip(self.tasks, positives, strict=True)
        return [t.name for t, count in found if t.kind == "binary" and count >= fewest]

    def column(self, task: str) -> int:
        return [t.name for t in self.tasks].index(task)


# ---- AUROC, and how sure it is -----------------------------------------------------------------


def weighted_auroc(
    outcome: Floats, score: Floats, site: Rows, times: Floats
) -> tuple[Floats, Floats]:
    """[replicates] the AUROC where each site's patients are there so many times, and the positives.

    site [n] numbers of the columns of `times` [replicates, sites]. Of each pair of sites it is
    counted once how often a patient with the disease scores above one without; a replicate only
    weighs these counts.
    """
    ill, well = outcome == 1, outcome == 0
    above = score[ill][:, None] - score[well]
    wins = (above > 0) + (above == 0) / 2
    every = np.arange(times.shape[1])
    of_ill, of_well = ((site[some][:, None] == every).astype(np.float64) for some in (ill, well))
    pairs = of_ill.T @ wins @ of_well
    positives, negatives = times @ of_ill.sum(axis=0), times @ of_well.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = ((times @ pairs) * times).sum(axis=1) / (positives * negatives)
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
    """[1 + REPLICATES] of each task with enough positives: positives-weighted over folds.

    Of a task with several classes it is the mean over those classes that are frequent enough.
    """
    found = {}
    enough = tested.binary_with(fewest)
    for i, task in enumerate(tested.tasks):
        outcome = tested.outcome[:, i]
        if task.name in enough:
            found[task.name] = _over_folds(tested, outcome, tested.scores[task.name], weight)
        elif task.kind == "multiclass" and task.name in tested.scores:
            p = tested.scores[task.name]
            known = ~np.isnan(outcome)
            by_class = [
                _over_folds(tested, np.where(known, outcome == k, np.nan), p[:, k], weight)
                for k in range(p.shape[1])
                if (outcome == k).sum() >= fewest
            ]
            if by_class:
                found[task.name] = np.mean(by_class, axis=0)
    return found


def _over_folds(tested: Tested, outcome: Floats, score: Floats, weight: Floats) -> Floats:
    areas, weights = [], []
    for f in np.unique(tested.fold):
        here = (tested.fold == f) & ~np.isnan(outcome)
        _, first, site = np.unique(tested.site[here], return_index=True, return_inverse=True)
        times = weight[:, np.flatnonzero(here)[first]]
        area, positives = weighted_auroc(outcome[here], score[here], site, times)
        areas.append(np.nan_to_num(area))
        weights.append(positives)
    total = np.sum(weights, axis=0)
    mean: Floats = (np.array(areas) * np.array(weights)).sum(axis=0) / np.where(
        total, total, np.nan
    )
    return mean


def interval(replicates: Floats) -> Figures:
    """The figure of the data as they are, and the 95 % interval of the replicates."""
    if np.isnan(replicates[1:]).all():
        return float(replicates[0]), float("nan"), float("nan")
    low, high = np.nanquantile(replicates[1:], [0.025, 0.975])
    return float(replicates[0]), float(low), float(high)


class Compared:
    """Models side by side on the same patients, under the same replicates."""

    def __init__(self, tested: Mapping[str, Tested], fewest: int) -> None:
        self.tested = tested
        first = next(iter(tested.values()))
        self.weight = replicate_weights(first.site, first.fold)
        self.by_task = {m: task_aurocs(t, self.weight, fewest) for m, t in tested.items()}
        self.tasks = list(next(iter(self.by_task.values())))
        self.mean = {model: self.mean_of(model, self.tasks) for model in tested}

    def mean_of(self, model: str, tasks: Sequence[str]) -> Floats:
        """[1 + REPLICATES] a model's mean AUROC over some of the tasks."""
        mean: Floats = np.mean([self.by_task[model][task] for task in tasks], axis=0)
        return mean

    def ahead(self, model: str, other: str) -> Figures:
        """By how much a model's mean AUROC is above another's, paired."""
        return interval(self.mean[model] - self.mean[other])

    def gain(self, model: str, other: str) -> dict[str, Floats]:
        """[1 + REPLICATES] of each task: by how much a model is above another."""
        return {t: self.by_task[model][t] - self.by_task[other][t] for t in self.tasks}

    def relative_gain(self, model: str, other: str) -> Figures:
        """The mean over tasks of (a - b) / b."""
        gains = self.gain(model, other)
        return interval(np.mean([g / self.by_task[other][t] for t, g in gains.items()], axis=0))


def rank_correlation(by_task: Sequence[Floats], with_: Floats) -> Figures:
    """Spearman's, of a figure of each task (its replicates) with one fixed number of each task."""
    ranks = rankdata(np.array(by_task), axis=0)
    fixed = rankdata(with_)
    spread = (ranks - ranks.mean(axis=0)), (fixed - fixed.mean())
    together = (spread[0] * spread[1][:, None]).sum(axis=0)
    size = np.sqrt((spread[0] ** 2).sum(axis=0) * (spread[1] ** 2).sum())
    return interval(together / np.where(size > 0, size, np.nan))


def by_thirds(gains: Mapping[str, Floats], number: Mapping[str, float]) -> list[dict[str, Any]]:
    """The mean gain of the tasks with the lowest, middle and highest `number`."""
    order = sorted(gains, key=lambda task: number[task])
    return [
        {
            "from": number[part[0]],
            "to": number[part[-1]],
            "tasks": len(part),
            "gain": interval(np.mean([gains[task] for task in part], axis=0)),
        }
        for part in (list(p) for p in np.array_split(np.array(order), 3))
        if part
    ]


# ---- numbers that can be acted on ----------------------------------------------------------------


def pooled(tested: Tested, tasks: Sequence[str]) -> tuple[Floats, Floats, Rows]:
    """Probability, outcome and task number of some binary tasks, in a row."""
    p, y, number = [], [], []
    for task in tasks:
        i = tested.column(task)
        known = ~np.isnan(tested.outcome[:, i])
        p.append(tested.scores[task][known])
        y.append(tested.outcome[known, i])
        number.append(np.full(int(known.sum()), i))
    return np.concatenate(p), np.concatenate(y), np.concatenate(number)


def calibration(tested: Tested, tasks: Sequence[str] | None = None) -> dict[str, float]:
    """Slope and intercept of a logistic recalibration, Brier skill, and calibration error, pooled
    over the tasks (None: those with at least FEWEST_FOR_CALIBRATION positives).

    The noise floor is the calibration error that a perfectly calibrated model of the same
    probabilities would show by chance.
    """
    some = tested.binary_with(FEWEST_FOR_CALIBRATION) if tasks is None else tasks
    p, y, task = pooled(tested, some)
    z = logit(np.clip(p, NEAREST, 1 - NEAREST))
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(z[:, None], y)
    numbers = np.unique(task)
    usual = np.array([y[task == t].mean() for t in numbers])
    reference = np.mean((y - usual[np.searchsorted(numbers, task)]) ** 2)
    draw = np.random.default_rng(0)
    floor = [calibration_error(p, (draw.random(len(p)) < p).astype(float)) for _ in range(100)]
    return {
        "slope": float(fitted.coef_[0, 0]),
        "intercept": _intercept(z, y),
        "brier_skill": float(1 - np.mean((p - y) ** 2) / reference),
        "calibration_error": calibration_error(p, y),
        "noise_floor": float(np.mean(floor)),
    }


def _intercept(log_odds: Floats, y: Floats) -> float:
    """Calibration in the large: what must be added to the log-odds so that the mean is right."""

    def excess(shift: float) -> float:
        return float(expit(log_odds + shift).mean() - y.mean())

    return float(brentq(excess, -20, 20))


def calibration_curve(tested: Tested, points: int = 20) -> dict[str, list[float]]:
    """Mean probability and observed rate in bins of equal mass, pooled as `calibration` does."""
    p, y, _ = pooled(tested, tested.binary_with(FEWEST_FOR_CALIBRATION))
    parts = np.array_split(np.argsort(p), points)
    return {
        "predicted": [float(p[i].mean()) for i in parts],
        "observed": [float(y[i].mean()) for i in parts],
    }


def observed_to_expected(tested: Tested, tasks: Sequence[str], weight: Floats) -> Figures:
    """How many diseases were charted for each that the probabilities add up to, over the tasks."""
    observed, expected = np.zeros(len(tested.rows)), np.zeros(len(tested.rows))
    for task in tasks:
        outcome = tested.outcome[:, tested.column(task)]
        known = ~np.isnan(outcome)
        observed += np.where(known, outcome, 0.0)
        expected += np.where(known, tested.scores[task], 0.0)
    total = weight @ expected
    return interval((weight @ observed) / np.where(total > 0, total, np.nan))


def calibration_error(p: Floats, y: Floats, bins: int = 10) -> float:
    """Mean distance of predicted and observed rate, in bins of equal mass."""
    parts = np.array_split(np.argsort(p), bins)
    return float(
        np.average([abs(p[i].mean() - y[i].mean()) for i in parts], weights=list(map(len, parts)))
    )


def coverage(tested: Tested) -> dict[str, float]:
    """How often sets and intervals hold what came, pooled as `calibration` does."""
    held: dict[str, list[bool]] = {"positives": [], "negatives": [], "length_of_stay": []}
    sizes = []
    enough = tested.binary_with(FEWEST_FOR_CALIBRATION)
    for i, task in enumerate(tested.tasks):
        outcome = tested.outcome[:, i]
        known = ~np.isnan(outcome)
        if task.name in enough:
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
    found = {name: _share(values) for name, values in held.items()}
    return found | {"undecided": _share([size == 2 for size in sizes])}


def _share(told: Sequence[bool]) -> float:
    return float(np.mean(told)) if told else float("nan")


def recalibrated(tested: Tested, tasks: Sequence[str], patients: int, splits: int) -> Found:
    """What a correction for the local prevalence, learned from few patients, does for the others.

    For each random split: `prior_shift` from so many patients (`site`), then the calibration of the
    others before and after; of each figure the mean and the 95 % range over the splits.
    """
    binary = tested.binary_with(0)
    columns = [tested.column(name) for name in binary]
    outcome = tested.outcome[:, columns]
    z = logit(np.clip(np.stack([tested.scores[b] for b in binary], axis=1), NEAREST, 1 - NEAREST))
    everyone, code, count = np.unique(tested.site, return_inverse=True, return_counts=True)
    each: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    draw = np.random.default_rng(0)
    for _ in range(splits):
        chosen = np.isin(code, draw.permutation(len(everyone))[:patients])
        shift = prior_shift(z[chosen], outcome[chosen], 1 / count[code[chosen]])
        after = expit(z[~chosen] + shift)
        _keep_subsets(after, binary, tested.tasks)
        others = tested.part(~chosen)
        scores = others.scores | dict(zip(binary, after.T, strict=True))
        here = [t for t in tasks if np.nansum(others.outcome[:, others.column(t)])]
        each["before"].append(calibration(others, here))
        each["after"].append(calibration(replace(others, scores=scores), here))
    found: Found = {"patients": patients, "others": len(everyone) - patients, "splits": splits}
    for when, figures in each.items():
        found[when] = {
            name: (
                float(np.mean([f[name] for f in figures])),
                *map(float, np.quantile([f[name] for f in figures], [0.025, 0.975])),
            )
            for name in figures[0]
        }
    pairs = list(zip(each["before"], each["after"], strict=True))
    found["brier_skill_rises"] = float(
        np.mean([a["brier_skill"] > b["brier_skill"] for b, a in pairs])
    )
    return found


def _keep_subsets(p: Floats, names: Sequence[str], tasks: Sequence[Task]) -> None:
    """As in the graphs: a task never exceeds the one that it is a subset of."""
    for task in tasks:
        if task.subset_of is not None:
            child, parent = names.index(task.name), names.index(task.subset_of)
            p[:, child] = np.minimum(p[:, child], p[:, parent])


# ---- other figures -------------------------------------------------------------------------------


def operations(tested: Tested) -> dict[str, float]:
    """Length of stay: mean absolute error, R² of the logarithm, and what the median alone errs."""
    found = {}
    for i, task in enumerate(tested.tasks):
        known = ~np.isnan(tested.outcome[:, i])
        if task.kind == "regression" and task.name in tested.scores:
            days = tested.outcome[known, i]
            guess = tested.scores[task.name][known, 0]
            log = np.log(np.maximum(days, 1 / 24))
            found["mae_days"] = float(np.abs(days - guess).mean())
            found["mae_of_the_median"] = float(np.abs(days - np.median(days)).mean())
            found["r2_log_days"] = float(
                1 - np.mean((log - np.log(guess)) ** 2) / np.mean((log - log.mean()) ** 2)
            )
    return found


def precision_and_brier(tested: Tested, fewest: int) -> dict[str, float]:
    """Means over binary tasks with enough positives, of all folds' probabilities together."""
    areas, errors = [], []
    for task in tested.binary_with(fewest):
        p, y, _ = pooled(tested, [task])
        areas.append(average_precision_score(y, p))
        errors.append(np.mean((p - y) ** 2))
    return {"auprc": float(np.mean(areas)), "brier": float(np.mean(errors))}


def roc_curve(tested: Tested, task: str) -> list[float]:
    """The sensitivity at each of ROC_POINTS false positive rates: the mean over folds, weighted by
    positives, as the AUROC is.
    """
    outcome, score = tested.outcome[:, tested.column(task)], tested.scores[task]
    curves, weights = [], []
    for f in np.unique(tested.fold):
        here = (tested.fold == f) & ~np.isnan(outcome)
        positives = outcome[here].sum()
        if 0 < positives < here.sum():
            false, true, _ = sklearn_roc_curve(outcome[here], score[here])
            curves.append(np.interp(ROC_POINTS, false, true))
            weights.append(positives)
    return [float(v) for v in np.average(curves, axis=0, weights=weights)]


def entropy(attention: Floats) -> Floats:
    """[T] of each task's attention, as a share of the uniform one's: 1 is even, 0 is one task."""
    w = np.clip(attention, 1e-12, 1.0)
    shares: Floats = -(w * np.log(w)).sum(axis=1) / np.log(attention.shape[1])
    return shares
