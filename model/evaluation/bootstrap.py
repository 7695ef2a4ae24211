"""Bootstraps over hospitals: AUROCs with confidence intervals, and paired comparisons of models."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from model.evaluation.metrics import Floats, Rows, mean_of_defined
from model.evaluation.predictions import Predictions

REPLICATES = 1000

Estimate = tuple[float, float, float]  # a figure and both ends of its 95 % interval


def replicate_weights(site: npt.NDArray[np.str_], fold: Rows, seed: int = 0) -> Floats:
    """[1 + REPLICATES, n] how often each patient is drawn. Hospitals are drawn within folds.

    The first row is the original data: every patient once.
    """
    draw = np.random.default_rng(seed)
    weight = np.ones((1 + REPLICATES, len(site)))
    for number in np.unique(fold):
        rows = fold == number
        _, code = np.unique(site[rows], return_inverse=True)
        sites = code.max() + 1
        counts = draw.multinomial(sites, np.full(sites, 1 / sites), REPLICATES)
        weight[1:, rows] = counts[:, code]
    return weight


def weighted_auroc(
    outcome: Floats, score: Floats, site: Rows, counts: Floats
) -> tuple[Floats, Floats]:
    """[replicates] the AUROC with each site's patients counted `counts` times; and the positives.

    site [n] are columns of `counts` [replicates, sites]. For each pair of sites, the number of
    times that a patient with the disease scores above a patient without it is computed once; a
    replicate only weighs these numbers.
    """
    ill, well = outcome == 1, outcome == 0
    above = score[ill][:, None] - score[well]
    wins = (above > 0) + (above == 0) / 2
    sites = np.arange(counts.shape[1])
    site_of_ill, site_of_well = (
        (site[rows][:, None] == sites).astype(np.float64) for rows in (ill, well)
    )
    pairs = site_of_ill.T @ wins @ site_of_well
    positives, negatives = counts @ site_of_ill.sum(axis=0), counts @ site_of_well.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = ((counts @ pairs) * counts).sum(axis=1) / (positives * negatives)
    return area, np.where((positives > 0) & (negatives > 0), positives, 0.0)


def task_aurocs(predictions: Predictions, weight: Floats, min_positives: int) -> dict[str, Floats]:
    """[1 + REPLICATES] AUROC of each task with enough positives, weighted by positives over folds.

    The AUROC of a task with several classes is the mean over the classes with enough positives.
    """
    aurocs = {}
    binary = predictions.binary_tasks(min_positives)
    for i, task in enumerate(predictions.tasks):
        outcome = predictions.outcome[:, i]
        if task.name in binary:
            score = predictions.scores[task.name]
            aurocs[task.name] = _over_folds(predictions, outcome, score, weight)
        elif task.kind == "multiclass" and task.name in predictions.scores:
            score = predictions.scores[task.name]
            known = ~np.isnan(outcome)
            by_class = [
                _over_folds(predictions, np.where(known, outcome == k, np.nan), score[:, k], weight)
                for k in range(score.shape[1])
                if (outcome == k).sum() >= min_positives
            ]
            if by_class:
                aurocs[task.name] = mean_of_defined(by_class, len(weight))
    return aurocs


def _over_folds(predictions: Predictions, outcome: Floats, score: Floats, weight: Floats) -> Floats:
    areas, weights = [], []
    for number in np.unique(predictions.fold):
        rows = (predictions.fold == number) & ~np.isnan(outcome)
        _, first, site = np.unique(predictions.site[rows], return_index=True, return_inverse=True)
        counts = weight[:, np.flatnonzero(rows)[first]]
        area, positives = weighted_auroc(outcome[rows], score[rows], site, counts)
        areas.append(np.nan_to_num(area))
        weights.append(positives)
    total = np.sum(weights, axis=0)
    mean: Floats = (np.array(areas) * np.array(weights)).sum(axis=0) / np.where(
        total, total, np.nan
    )
    return mean


def interval(replicates: Floats) -> Estimate:
    """The figure of the original data, and the 95 % interval of the replicates."""
    if np.isnan(replicates[1:]).all():
        return float(replicates[0]), float("nan"), float("nan")
    low, high = np.nanquantile(replicates[1:], [0.025, 0.975])
    return float(replicates[0]), float(low), float(high)


class Comparison:
    """AUROCs of several models on the same patients, with the same replicates.

    `by_task[model][task]` and `mean[model]` (over the tasks) are arrays [1 + REPLICATES].
    """

    def __init__(self, predictions: Mapping[str, Predictions], min_positives: int) -> None:
        self.predictions = predictions
        first = next(iter(predictions.values()))
        self.weight = replicate_weights(first.site, first.fold)
        self.by_task = {
            m: task_aurocs(p, self.weight, min_positives) for m, p in predictions.items()
        }
        self.tasks = list(next(iter(self.by_task.values())))
        self.mean = {model: self.mean_over(model, self.tasks) for model in predictions}

    def mean_over(self, model: str, tasks: Sequence[str]) -> Floats:
        """[1 + REPLICATES] a model's mean AUROC over those of the tasks that are defined."""
        return mean_of_defined([self.by_task[model][task] for task in tasks], len(self.weight))

    def difference(self, model: str, other: str) -> Estimate:
        """The mean AUROC of a model minus that of another, paired."""
        return interval(self.mean[model] - self.mean[other])

    def gains(self, model: str, other: str) -> dict[str, Floats]:
        """[1 + REPLICATES] the AUROC of a model minus that of another, by task."""
        return {t: self.by_task[model][t] - self.by_task[other][t] for t in self.tasks}

    def relative_gain(self, model: str, other: str) -> Estimate:
        """The mean over tasks of (a - b) / b."""
        gains = self.gains(model, other)
        relative = [g / self.by_task[other][t] for t, g in gains.items()]
        return interval(mean_of_defined(relative, len(self.weight)))


def rank_correlation(by_task: Sequence[Floats], fixed: Floats) -> Estimate:
    """Spearman's rank correlation over tasks of a figure (its replicates) with a fixed number."""
    ranks = rankdata(np.array(by_task), axis=0)
    fixed_ranks = rankdata(fixed)
    centred, fixed_centred = ranks - ranks.mean(axis=0), fixed_ranks - fixed_ranks.mean()
    covariance = (centred * fixed_centred[:, None]).sum(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0) * (fixed_centred**2).sum())
    return interval(covariance / np.where(norm > 0, norm, np.nan))


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
