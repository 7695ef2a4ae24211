"""A model's predictions on test patients, and their metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from model.evaluation.metrics import SHORTEST_DAYS, Floats, Rows, r_squared
from schemas.tasks import Task

ROC_POINTS = np.linspace(0.0, 1.0, 41)


@dataclass(frozen=True)
class Predictions:
    """A model's predictions of all test patients at one landmark.

    scores[task]: [n] of a binary task, [n, classes], or [n, 3] days; outcome [n, T]; fold [n];
    site [n]: the hospital (on another database: the patient); rows [n] of the cohort; facts: of
    each fold's checkpoint; attention: [T, T] of each fold, mean over the patients; unusual [n, 4]
    by modality, from 0 to 1, NaN where absent.
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

    def select(self, chosen: npt.NDArray[np.bool_]) -> "Predictions":
        """The predictions of some patients; chosen [n]."""
        return replace(
            self,
            scores={name: p[chosen] for name, p in self.scores.items()},
            outcome=self.outcome[chosen],
            fold=self.fold[chosen],
            site=self.site[chosen],
            rows=self.rows[chosen],
            unusual=None if self.unusual is None else self.unusual[chosen],
        )

    def charted_later(self, charted: Floats) -> "Predictions":
        """The same predictions with labels only of diseases that were first charted after `as_of`.

        `charted` [n, T]: hours from `as_of` to the first charting. A patient whose disease was
        charted before has no label of it; a patient in whom it was never charted is a negative.
        Tasks other than diseases have no label.
        """
        outcome = np.where((self.outcome == 1) & ~(charted > 0), np.nan, self.outcome)
        outcome[:, [not task.is_disease for task in self.tasks]] = np.nan
        return replace(self, outcome=outcome)

    def binary_tasks(self, min_positives: int) -> list[str]:
        """The names of the binary tasks with at least `min_positives` positives."""
        positives = np.nansum(self.outcome, axis=0)
        counted = zip(self.tasks, positives, strict=True)
        return [t.name for t, count in counted if t.kind == "binary" and count >= min_positives]

    def column(self, task: str) -> int:
        return [t.name for t in self.tasks].index(task)


def pooled(predictions: Predictions, tasks: Sequence[str]) -> tuple[Floats, Floats, Rows]:
    """Probability, outcome and task column of the labelled patients of binary tasks, joined."""
    probability, outcome, column = [], [], []
    for task in tasks:
        i = predictions.column(task)
        known = ~np.isnan(predictions.outcome[:, i])
        probability.append(predictions.scores[task][known])
        outcome.append(predictions.outcome[known, i])
        column.append(np.full(int(known.sum()), i))
    return np.concatenate(probability), np.concatenate(outcome), np.concatenate(column)


def length_of_stay_metrics(predictions: Predictions) -> dict[str, float]:
    """Length of stay: mean absolute error, R² of the logarithm, and the error of the median."""
    metrics = {}
    for i, task in enumerate(predictions.tasks):
        known = ~np.isnan(predictions.outcome[:, i])
        if task.kind == "regression" and task.name in predictions.scores:
            days = predictions.outcome[known, i]
            predicted = predictions.scores[task.name][known, 0]
            log_days = np.log(np.maximum(days, SHORTEST_DAYS))
            metrics["mae_days"] = float(np.abs(days - predicted).mean())
            metrics["mae_of_the_median"] = float(np.abs(days - np.median(days)).mean())
            metrics["r2_log_days"] = r_squared(log_days, np.log(predicted))
    return metrics


def auprc_and_brier(predictions: Predictions, min_positives: int) -> dict[str, float]:
    """Means over binary tasks with enough positives; all folds' probabilities together."""
    areas, errors = [], []
    for task in predictions.binary_tasks(min_positives):
        probability, outcome, _ = pooled(predictions, [task])
        areas.append(average_precision_score(outcome, probability))
        errors.append(np.mean((probability - outcome) ** 2))
    return {"auprc": float(np.mean(areas)), "brier": float(np.mean(errors))}


def roc_curve(predictions: Predictions, task: str) -> list[float]:
    """The sensitivity at the false positive rates ROC_POINTS: the mean over folds, weighted by
    positives, as for the AUROC.
    """
    outcome, score = predictions.outcome[:, predictions.column(task)], predictions.scores[task]
    curves, weights = [], []
    for number in np.unique(predictions.fold):
        rows = (predictions.fold == number) & ~np.isnan(outcome)
        positives = outcome[rows].sum()
        if 0 < positives < rows.sum():
            false_positive_rate, sensitivity, _ = sklearn_roc_curve(outcome[rows], score[rows])
            curves.append(np.interp(ROC_POINTS, false_positive_rate, sensitivity))
            weights.append(positives)
    return [float(v) for v in np.average(curves, axis=0, weights=weights)]
