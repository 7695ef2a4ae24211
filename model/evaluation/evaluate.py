"""Scores of one trained model on a cohort, task by task."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score

from model.cohorts.store import Cohort, CohortError
from model.evaluation.folds import rows_at
from model.evaluation.metrics import (
    MIN_POSITIVES,
    SHORTEST_DAYS,
    Floats,
    Rows,
    r_squared,
    within_fold_auroc,
)
from model.network.checkpoint import Checkpoint
from model.network.m3h import M3H
from model.training.data import RepresentedSamples, SampleTensors, ensemble_outputs
from schemas.response import MODALITIES
from schemas.tasks import Task


@dataclass(frozen=True)
class Score:
    """The scores of a task: numbers of labelled and positive patients, and metrics by name."""

    task: str
    kind: str
    labelled: int
    positives: int | None
    metrics: dict[str, float]


def evaluate(checkpoint: Checkpoint, cohort: Cohort, hours: float | None) -> list[Score]:
    """Scores of a trained model on a cohort, at one landmark (None: all).

    Raises CohortError if the feature specs of cohort and model differ.
    """
    if cohort.spec != checkpoint.facts.spec:
        raise CohortError(
            f"the cohort {cohort.name} was made with other variables, tokens or images than the "
            "model's; make it with the version and the options of the model's cohorts"
        )
    data = SampleTensors([cohort], MODALITIES)
    rows = rows_at(cohort, hours)
    outputs = served_outputs(checkpoint.net(), data, rows)
    outcomes = cohort.samples.outcomes[rows]
    return score_tasks(checkpoint.facts.tasks, outcomes, outputs, np.zeros(len(rows), np.intp))


@torch.no_grad()
def served_outputs(net: M3H, data: SampleTensors, rows: Rows) -> dict[str, Floats]:
    """The outputs by name as they are served: calibrated and coherent."""
    represented = RepresentedSamples.compute(data, net.encoders)
    raw, _ = ensemble_outputs(net, represented, data, rows)
    return {name: value.double().numpy() for name, value in net.calibrate(raw).items()}


def score_tasks(
    tasks: Sequence[Task],
    outcomes: npt.NDArray[np.float32],
    outputs: dict[str, Floats],
    fold: Rows,
) -> list[Score]:
    """The scores of each task. outcomes [n, T]; outputs by name as served; fold [n]."""
    binary = [t.name for t in tasks if t.kind == "binary"]
    scores = []
    for i, task in enumerate(tasks):
        outcome = outcomes[:, i].astype(np.float64)
        known = ~np.isnan(outcome)
        positives, metrics = None, {}
        if task.kind == "binary":
            p = outputs["binary"][:, binary.index(task.name)]
            positives = int(outcome[known].sum())
            metrics = _binary_metrics(outcome, p, fold)
        elif task.kind == "multiclass" and task.name in outputs:
            p = outputs[task.name]
            by_class = [
                within_fold_auroc(np.where(known, outcome == k, np.nan), p[:, k], fold)
                for k in range(len(task.classes))
            ]
            # A class without patients, or with all of them, has no AUROC.
            if not np.isnan(by_class).all():
                metrics = {"auroc": float(np.nanmean(by_class))}
        elif task.kind == "regression" and task.name in outputs and known.any():
            metrics = _regression_metrics(outcome[known], outputs[task.name][known, 0])
        scores.append(Score(task.name, task.kind, int(known.sum()), positives, metrics))
    return scores


def _binary_metrics(outcome: Floats, p: Floats, fold: Rows) -> dict[str, float]:
    known = ~np.isnan(outcome)
    y, q = outcome[known], p[known]
    metrics = {
        "auroc": within_fold_auroc(outcome, p, fold),
        "brier": float(np.mean((q - y) ** 2)) if len(y) else float("nan"),
    }
    if len(np.unique(y)) == 2:  # otherwise there is no reference to compare with
        metrics["brier_skill"] = 1 - metrics["brier"] / float(np.var(y))
        metrics["auprc"] = float(average_precision_score(y, q))
    return {name: value for name, value in metrics.items() if not np.isnan(value)}


def _regression_metrics(days: Floats, predicted: Floats) -> dict[str, float]:
    log_days, log_predicted = np.log(np.maximum(days, SHORTEST_DAYS)), np.log(predicted)
    return {
        "mae_days": float(np.mean(np.abs(days - predicted))),
        "r2_log_days": r_squared(log_days, log_predicted),
    }


def mean_auroc(scores: Sequence[Score]) -> float:
    """The mean AUROC over all tasks with an AUROC and enough positives; NaN without any."""
    aurocs = [
        s.metrics["auroc"]
        for s in scores
        if "auroc" in s.metrics and (s.positives is None or s.positives >= MIN_POSITIVES)
    ]
    return float(np.mean(aurocs)) if aurocs else float("nan")
