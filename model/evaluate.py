"""How good the predictions are, task by task, and beside logistic regression."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from model.checkpoint import Checkpoint
from model.cohort import Cohort, CohortError
from model.data import Data, Represented, Rows, raw_outputs
from model.net import M3H
from model.train import Prepared, TrainConfig, Trainer, held_out
from schemas.response import MODALITIES, Modality
from schemas.tasks import Task

Floats = npt.NDArray[np.float64]

# Fewer positives than this, and an AUROC says more of chance than of the model.
FEWEST_POSITIVES = 20
HEADLINE_HOURS = 24.0
INVERSE_PENALTIES = (0.0003, 0.001, 0.003, 0.01)


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
def served_outputs(net: M3H, data: Data, rows: Rows) -> dict[str, Floats]:
    """Outputs as they are served: calibrated and coherent."""
    represented = Represented.of(data, net.encoders)
    raw, _ = raw_outputs(net, represented, data, rows)
    return {name: value.double().numpy() for name, value in net.calibrate(raw).items()}


def evaluate(checkpoint: Checkpoint, cohort: Cohort, hours: float | None) -> list[Score]:
    """Scores of a trained model on a cohort, at one landmark (None: at all)."""
    data = Data([cohort], MODALITIES)
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


def cross_validate(
    cohort: Cohort, config: TrainConfig, modalities: Sequence[Modality], fold: Fold
) -> dict[str, Floats]:
    """Served outputs on a fold's test rows of a model that never saw its hospitals."""
    part = Cohort(
        name=cohort.name,
        source=cohort.source,
        tasks=cohort.tasks,
        spec=cohort.spec,
        samples=cohort.samples.take(fold.learn),
        digest=cohort.digest,
    )
    trainer = Trainer(Prepared([part], config, modalities=modalities))
    for _ in trainer.run():
        pass
    return served_outputs(trainer.net, Data([cohort], modalities), fold.test)


def logistic_regression(
    cohort: Cohort, modalities: Sequence[Modality], fold: Fold, seed: int
) -> dict[str, Floats]:
    """The same, from one logistic regression per task on the statistics at 24 h.

    The penalty is chosen once for all tasks, on hospitals held out of the training side.
    """
    samples = cohort.samples
    inputs = _flat_inputs(cohort, modalities)
    learn = np.intersect1d(fold.learn, rows_at(cohort, HEADLINE_HOURS))
    some, held = held_out(samples.take(learn), 1, seed)[0]
    tasks = [(i, t) for i, t in enumerate(cohort.tasks) if t.kind in ("binary", "multiclass")]

    def predict(penalty: float, rows: Rows, test: Rows) -> dict[str, Floats]:
        impute = SimpleImputer(strategy="median", keep_empty_features=True)
        scale = make_pipeline(impute, StandardScaler())
        x, x_test = scale.fit_transform(inputs[rows]), scale.transform(inputs[test])
        columns: dict[str, Floats] = {}
        for i, task in tasks:
            y = samples.outcomes[rows, i]
            columns[task.name] = _fit_predict(x, y, x_test, len(task.classes) or 2, penalty)
        binary = [columns[t.name][:, 1] for _, t in tasks if t.kind == "binary"]
        others = {t.name: columns[t.name] for _, t in tasks if t.kind == "multiclass"}
        return {"binary": np.stack(binary, axis=1), **others}

    def quality(penalty: float) -> float:
        test = learn[held]
        served = predict(penalty, learn[some], test)
        fold_of = np.zeros(len(test), np.intp)
        table = score_tasks(cohort.tasks, samples.outcomes[test], served, fold_of)
        return float(np.nanmean([s.metrics["auroc"] for s in table if "auroc" in s.metrics]))

    return predict(max(INVERSE_PENALTIES, key=quality), learn, fold.test)


def _fit_predict(
    x: Floats, y: npt.NDArray[np.float32], x_test: Floats, classes: int, penalty: float
) -> Floats:
    """[test, classes] probabilities; the observed share for a class that has no contrast."""
    known = ~np.isnan(y)
    shares = np.bincount(y[known].astype(int), minlength=classes) / max(known.sum(), 1)
    out = np.tile(shares, (len(x_test), 1)).astype(np.float64)
    there = np.unique(y[known]).astype(int)
    if len(there) > 1:
        model = LogisticRegression(C=penalty, max_iter=300).fit(x[known], y[known].astype(int))
        out[:, there] = model.predict_proba(x_test)
    return out


def _flat_inputs(cohort: Cohort, modalities: Sequence[Modality]) -> Floats:
    """[n, all tabular and series features with tails compressed, and which are missing]."""
    samples, parts = cohort.samples, []
    if "tabular" in modalities:
        parts.append(samples.tabular)
    if "series" in modalities:
        parts += [
            samples.statistics.reshape(len(samples), -1),
            samples.treatments.reshape(len(samples), -1),
        ]
    values = np.concatenate(parts, axis=1).astype(np.float64)
    missing = np.isnan(values)
    varies = missing.any(axis=0) & ~missing.all(axis=0)
    values = np.where(missing.all(axis=0), 0.0, values)
    return np.concatenate([np.arcsinh(values), missing[:, varies].astype(np.float64)], axis=1)
