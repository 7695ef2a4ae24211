"""How good the predictions are, task by task; and the folds by hospital."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GroupKFold

from model.cohorts.store import Cohort, CohortError
from model.network.checkpoint import Checkpoint
from model.network.m3h import M3H
from model.training.data import RepresentedSamples, Rows, SampleTensors, ensemble_outputs
from schemas.response import MODALITIES
from schemas.tasks import Task

Floats = npt.NDArray[np.float64]

# Fewer positives than this, and an AUROC says more of chance than of the model.
FEWEST_POSITIVES = 20
HEADLINE_HOURS = 24.0


@dataclass(frozen=True)
class Score:
    """One line of the table: a task, how many patients, and its metrics by name."""

    task: str
    kind: str
    labelled: int
    positives: int | None
    metrics: dict[str, float]


def auroc(outcome: Floats, score: Floats, fold: Rows) -> float:
    """The positives-weighted mean of within-fold AUROCs; NaN where no fold has both classes.

    Within folds, because the scores of different models are on different scales.
    """
    areas, weights = [], []
    for f in np.unique(fold):
        here = (fold == f) & ~np.isnan(outcome)
        positives = outcome[here].sum()
        if 0 < positives < here.sum():
            areas.append(roc_auc_score(outcome[here], score[here]))
            weights.append(positives)
    return float(np.average(areas, weights=weights)) if areas else float("nan")


def score_tasks(
    tasks: Sequence[Task],
    outcomes: npt.NDArray[np.float32],
    served: dict[str, Floats],
    fold: Rows,
) -> list[Score]:
    """The table. `served` holds outputs as they are served, by their names (`binary`, …)."""
    binary = [t.name for t in tasks if t.kind == "binary"]
    table = []
    for i, task in enumerate(tasks):
        outcome = outcomes[:, i].astype(np.float64)
        known = ~np.isnan(outcome)
        positives, metrics = None, {}
        if task.kind == "binary":
            p = served["binary"][:, binary.index(task.name)]
            positives = int(outcome[known].sum())
            metrics = _binary_metrics(outcome, p, fold)
        elif task.kind == "multiclass" and task.name in served:
            p = served[task.name]
            by_class = [
                auroc(np.where(known, outcome == k, np.nan), p[:, k], fold)
                for k in range(len(task.classes))
            ]
            metrics = {"auroc": float(np.mean(by_class))}
        elif task.kind == "regression" and task.name in served:
            metrics = _regression_metrics(outcome[known], served[task.name][known, 0])
        table.append(Score(task.name, task.kind, int(known.sum()), positives, metrics))
    return table


def _binary_metrics(outcome: Floats, p: Floats, fold: Rows) -> dict[str, float]:
    known = ~np.isnan(outcome)
    y, q = outcome[known], p[known]
    metrics = {"auroc": auroc(outcome, p, fold), "brier": float(np.mean((q - y) ** 2))}
    metrics["brier_skill"] = 1 - metrics["brier"] / max(float(np.var(y)), 1e-12)
    if y.any():
        metrics["auprc"] = float(average_precision_score(y, q))
    return metrics


def _regression_metrics(days: Floats, predicted: Floats) -> dict[str, float]:
    log, guess = np.log(np.maximum(days, 1 / 24)), np.log(predicted)
    return {
        "mae_days": float(np.mean(np.abs(days - predicted))),
        "r2_log_days": float(1 - np.var(log - guess) / np.var(log)),
    }


def mean_auroc(table: Sequence[Score]) -> float:
    """The headline: over all tasks that have an AUROC and enough positives."""
    enough = [
        s.metrics["auroc"]
        for s in table
        if "auroc" in s.metrics and (s.positives is None or s.positives >= FEWEST_POSITIVES)
    ]
    return float(np.mean(enough))


@torch.no_grad()
def served_outputs(net: M3H, data: SampleTensors, rows: Rows) -> dict[str, Floats]:
    """Outputs as they are served: calibrated and coherent."""
    represented = RepresentedSamples.compute(data, net.encoders)
    raw, _ = ensemble_outputs(net, represented, data, rows)
    return {name: value.double().numpy() for name, value in net.calibrate(raw).items()}


def evaluate(checkpoint: Checkpoint, cohort: Cohort, hours: float | None) -> list[Score]:
    """Scores of a trained model on a cohort, at one landmark (None: at all).

    Raises CohortError if the cohort was not made as those that the model learned from.
    """
    if cohort.spec != checkpoint.facts.spec:
        raise CohortError(
            f"the cohort {cohort.name} was made with other variables, tokens or images than the "
            "model's; make it with the version and the options that the model's was made with"
        )
    data = SampleTensors([cohort], MODALITIES)
    rows = rows_at(cohort, hours)
    served = served_outputs(checkpoint.net(), data, rows)
    outcomes = cohort.samples.outcomes[rows]
    return score_tasks(checkpoint.facts.tasks, outcomes, served, np.zeros(len(rows), np.intp))


def rows_at(cohort: Cohort, hours: float | None) -> Rows:
    """Rows of the samples at a landmark."""
    landmark = cohort.samples.landmark
    found = np.flatnonzero(landmark == hours) if hours is not None else np.arange(len(landmark))
    if not len(found):
        raise CohortError(f"the cohort {cohort.name} has no sample at {hours:g} h")
    return found


@dataclass(frozen=True)
class Fold:
    """One fold: the rows to learn from (all landmarks) and the rows to test on (24 h)."""

    number: int
    learn: Rows
    test: Rows


def hospital_folds(cohort: Cohort, count: int = 5) -> Iterator[Fold]:
    """Folds by hospital over the 24 h samples; no patient is ever on both sides."""
    samples, rows = cohort.samples, rows_at(cohort, HEADLINE_HOURS)
    sites = samples.site[rows]
    split = GroupKFold(count, shuffle=True, random_state=0)
    for number, (_, test) in enumerate(split.split(rows, groups=sites)):
        out = np.isin(samples.site, np.unique(sites[test]))
        out |= np.isin(samples.patient, np.unique(samples.patient[rows[test]]))
        yield Fold(number, np.flatnonzero(~out), rows[test])
