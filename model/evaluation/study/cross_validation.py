"""Cross-validation by patient: a network and its baselines on the patients of one cohort.

For a cohort of one hospital, or of few: each patient is predicted by models that learned from the
other folds' patients, at all landmarks. `model.evaluation.study` tests on whole hospitals instead,
which is harder, and needs many of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.model_selection import GroupKFold

from model.cohorts.store import Cohort, CohortError
from model.evaluation.baselines import (
    InputColumns,
    gradient_boosting,
    logistic_regression,
)
from model.evaluation.bootstrap import Comparison, Estimate, interval
from model.evaluation.folds import rows_at
from model.evaluation.metrics import Floats, Rows, log_odds
from model.evaluation.predictions import Predictions, pooled
from model.evaluation.study.networks import multitask_outputs
from model.evaluation.study.tuning import CANDIDATES
from model.evaluation.task_calibration import task_calibration
from model.training.config import TrainConfig
from model.training.data import SampleTensors
from model.training.preparation import PreparedTraining
from model.training.processes.jobs import Arrays
from schemas.response import MODALITIES

FOLDS = 5
# Raise it if the files of jobs get another meaning, so that earlier files are not read.
VERSION = 1
# Tasks with fewer positives at the tested landmark have no figures.
MIN_POSITIVES = 20
NETWORK = "m3h"
_BASELINES = {"lightgbm": gradient_boosting, "logistic_regression": logistic_regression}
MODELS = (NETWORK, *_BASELINES)
# The baselines' settings that learn from every landmark, as the network does.
_SETTINGS = {name: next(s for s in CANDIDATES[name] if s["every_landmark"]) for name in _BASELINES}
_NEWTON_STEPS = 12
_MIN_SPREAD = 1e-6  # of log-odds; below, no slope can be fitted


@dataclass(frozen=True)
class FoldJob:
    """A model that learns from the other folds' patients."""

    model: str
    fold: int

    @property
    def file(self) -> str:
        return f"{self.model}-{self.fold}.npz"


JOBS = tuple(FoldJob(model, fold) for model in MODELS for fold in range(FOLDS))


class CrossValidation:
    """Runs the jobs on a cohort, tested at the landmark `hours`.

    Raises CohortError if the cohort has no sample there, no labelled task or too few patients.
    """

    def __init__(self, cohort: Cohort, config: TrainConfig, hours: float) -> None:
        self.cohort, self.config = cohort.of_tasks(cohort.labelled_tasks()), config
        self.rows = rows_at(cohort, hours)
        patients = len(np.unique(cohort.samples.patient))
        if patients < FOLDS * max(config.members, FOLDS):
            raise CohortError(
                f"the cohort {cohort.name} has {patients} patients, too few for {FOLDS} folds of "
                f"{config.members} networks"
            )

    def run(self, job: FoldJob) -> Arrays:
        """The test rows, and the probabilities [rows, binary tasks] of the job's model."""
        patient = self.cohort.samples.patient
        folds = GroupKFold(FOLDS, shuffle=True, random_state=0).split(patient, groups=patient)
        learn, test = list(folds)[job.fold]
        test = np.intersect1d(test, self.rows)
        if job.model == NETWORK:
            part = replace(self.cohort, samples=self.cohort.samples.take(learn))
            prepared = PreparedTraining([part], self.config)
            data = SampleTensors([self.cohort], MODALITIES)
            outputs = multitask_outputs(prepared, data, test)
            return {"rows": test, "binary": outputs["output/binary"]}
        return {"rows": test, "binary": self._baseline(job.model, learn, test)}

    def _baseline(self, model: str, learn: Rows, test: Rows) -> Floats:
        data = SampleTensors([self.cohort], MODALITIES)
        inputs = InputColumns(data, learn, self.cohort.spec.vocabulary)
        fit, settings = _BASELINES[model], _SETTINGS[model]
        return fit(inputs, data, self.cohort.tasks, learn, settings)(data, test)["binary"]


@dataclass(frozen=True)
class OpenCrossValidation:
    """Opens the cross-validation of a cohort on disk, in the process that runs its jobs."""

    cohort: Path
    config: TrainConfig
    hours: float

    def __call__(self) -> Callable[[FoldJob], Arrays]:
        return CrossValidation(Cohort.load(self.cohort), self.config, self.hours).run


def summarise(work: Path, cohort: Cohort) -> dict[str, dict[str, dict[str, Any]]]:
    """Figures by task and model; [figure, both ends of its 95 % interval] over patients.

    `auroc`: mean of the folds, weighted by positives. `ahead_by`: AUROC of the network minus that
    of the model, paired. `slope` and `intercept`: `model.evaluation.task_calibration`, over all
    folds. `positives`, `patients`: numbers. Raises FileNotFoundError if a job was not run,
    CohortError if no task has enough positives.
    """
    cohort = cohort.of_tasks(cohort.labelled_tasks())
    predictions = {model: _predictions(work, cohort, model) for model in MODELS}
    comparison = Comparison(predictions, MIN_POSITIVES)
    binary = predictions[NETWORK].binary_tasks(MIN_POSITIVES)
    if not binary:
        raise CohortError(
            f"no binary task of the cohort {cohort.name} has {MIN_POSITIVES} positives"
        )
    figures: dict[str, dict[str, dict[str, Any]]] = {task: {} for task in binary}
    for model, of_model in predictions.items():
        calibration = task_calibration(of_model, binary)
        for task in binary:
            auroc = comparison.by_task[model][task]
            p, y, _ = pooled(of_model, [task])
            known = ~np.isnan(of_model.outcome[:, of_model.column(task)])
            slope, intercept = _calibration_intervals(p, y, comparison.weight[:, known])
            ahead = comparison.by_task[NETWORK][task] - auroc
            figures[task][model] = {
                "patients": len(y),
                "positives": int(y.sum()),
                "auroc": interval(auroc),
                **({} if model == NETWORK else {"ahead_by": interval(ahead)}),
                "slope": slope,
                "intercept": intercept,
                "observed_to_expected": calibration[task]["observed_to_expected"],
                "brier": float(np.mean((p - y) ** 2)),
            }
    return figures


def _predictions(work: Path, cohort: Cohort, model: str) -> Predictions:
    rows, p = [], []
    for fold in range(FOLDS):
        with np.load(work / FoldJob(model, fold).file) as arrays:
            rows.append(arrays["rows"])
            p.append(arrays["binary"].astype(np.float64))
    row = np.concatenate(rows)
    names = [task.name for task in cohort.tasks if task.kind == "binary"]
    return Predictions(
        tasks=cohort.tasks,
        scores=dict(zip(names, np.concatenate(p).T, strict=True)),
        outcome=cohort.samples.outcomes[row].astype(np.float64),
        fold=np.repeat(np.arange(FOLDS), [len(part) for part in rows]),
        site=cohort.samples.patient[row],
        rows=row,
    )


def _calibration_intervals(p: Floats, y: Floats, weight: Floats) -> tuple[Estimate, Estimate]:
    """Slope and intercept. weight [replicates, n]: how often each patient is drawn."""
    z = log_odds(p)
    slope = _recalibrated(z, y, weight, with_slope=True)[:, 1]
    intercept = _recalibrated(z, y, weight, with_slope=False)[:, 0]
    return interval(slope), interval(intercept)


def _recalibrated(z: Floats, y: Floats, weight: Floats, *, with_slope: bool) -> Floats:
    """[replicates, 2] intercept and slope of logistic regressions of `y` [n] on log-odds `z` [n].

    Without slope it is 1. The Newton steps of all replicates are taken together. A replicate with
    one outcome only, or with constant log-odds, has no slope, and is NaN.
    """
    fitted = np.tile([0.0, 1.0], (len(weight), 1))
    design = np.stack([np.ones_like(z), z][: 1 + with_slope])
    free = len(design)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for _ in range(_NEWTON_STEPS):
            p = expit(fitted[:, :1] + fitted[:, 1:] * z)
            gradient = (weight * (y - p)) @ design.T
            curvature = weight * p * (1 - p)
            hessian = np.stack([[(curvature * a) @ b for b in design] for a in design])
            step = np.linalg.pinv(hessian.transpose(2, 0, 1)) @ gradient[:, :, None]
            fitted[:, :free] += step[:, :, 0]
    positives, total = weight @ y, weight.sum(axis=1)
    fitted[(positives == 0) | (positives == total)] = np.nan
    if with_slope and np.ptp(z) < _MIN_SPREAD:
        fitted[:, 1] = np.nan
    return fitted
