"""The value of a network for each of its tasks: the evaluation's metric on test patients.

It is computed for the patients as they are, and for bootstraps over hospitals.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model.cohorts.store import Cohort
from model.evaluation.bootstrap import replicate_weights, weighted_auroc
from model.evaluation.folds import Fold
from model.evaluation.metrics import mean_of_defined
from model.training.data import Rows, SampleTensors
from model.training.phenotypes import fit_scaler, standardise
from schemas.tasks import Task

Floats = npt.NDArray[np.float64]

METRICS = {
    "binary": "AUROC",
    "multiclass": "macro-AUROC",
    "regression": "R² of log-days",
    "clustering": "variance explained",
}


@dataclass(frozen=True)
class FoldPatients:
    """The test patients of a fold.

    outcomes [n, T]; site [n]: columns of `weights`; weights [1 + R, sites] of R bootstrap
    replicates, the first row of the data as they are; statistics [n, V] as in the phenotypes.
    """

    outcomes: Floats
    site: Rows
    weights: Floats
    statistics: Floats

    @classmethod
    def of(cls, cohort: Cohort, fold: Fold) -> "FoldPatients":
        samples = cohort.samples.take(fold.test)
        _, first, site = np.unique(samples.site, return_index=True, return_inverse=True)
        weight = replicate_weights(samples.site, np.zeros(len(site), np.intp), seed=fold.number)
        test = SampleTensors([replace(cohort, samples=samples)], ("series",))
        statistics = standardise(test, fit_scaler(cohort, fold.learn)).nan_to_num().double()
        return cls(samples.outcomes.astype(np.float64), site, weight[:, first], statistics.numpy())

    def task_value(self, task: Task, column: int, raw: Floats) -> Floats:
        """[1 + R] the metric of a task; NaN where it is not defined.

        `raw`: [n] log-odds, [n, classes] logits, [n, 3] log-days, or [n, clusters] logits.
        """
        outcome = self.outcomes[:, column]
        known = ~np.isnan(outcome)
        if task.kind == "binary":
            return self._auroc(outcome[known], raw[known], known)
        if task.kind == "multiclass":
            classes = np.unique(outcome[known]).astype(int)
            areas = [
                self._auroc((outcome == k)[known] * 1.0, raw[known, k], known) for k in classes
            ]
            return mean_of_defined(areas, len(self.weights))
        if task.kind == "regression":
            days = np.log(np.maximum(outcome[known], 1 / 24))
            return self._r_squared(days, raw[known, 0], known)
        return self._explained_variance(raw.argmax(axis=1))

    def _auroc(self, outcome: Floats, score: Floats, known: npt.NDArray[np.bool_]) -> Floats:
        area, positives = weighted_auroc(outcome, score, self.site[known], self.weights)
        return np.where(positives > 0, area, np.nan)

    def _r_squared(self, truth: Floats, guess: Floats, known: npt.NDArray[np.bool_]) -> Floats:
        """[1 + R] 1 - squared error / variance of `truth` [n]. A constant bias is an error."""
        weight = self.weights[:, self.site[known]]
        variance = self._variance(truth, known)
        with np.errstate(invalid="ignore", divide="ignore"):
            error = weight @ (truth - guess) ** 2 / weight.sum(axis=1)
            value: Floats = 1 - error / np.where(variance > 0, variance, np.nan)
        return value

    def _variance(self, x: Floats, known: npt.NDArray[np.bool_]) -> Floats:
        """[1 + R] the weighted variance of values [n]; of [n, V], the sum over V."""
        weight = self.weights[:, self.site[known]]
        drawn = weight.sum(axis=1)
        total = np.where(drawn > 0, drawn, np.nan)
        x = x.reshape(len(x), -1)
        mean = weight @ x / total[:, None]
        variance: Floats = weight @ (x**2).sum(axis=1) / total - (mean**2).sum(axis=1)
        return variance

    def _explained_variance(self, cluster: Rows) -> Floats:
        """[1 + R] the share of the statistics' variance that lies between the clusters."""
        everyone = np.ones(len(cluster), np.bool_)
        total = self._variance(self.statistics, everyone)
        weight = self.weights[:, self.site].sum(axis=1)
        within = np.zeros(len(weight))
        for k in np.unique(cluster):
            members = cluster == k
            share = self.weights[:, self.site[members]].sum(axis=1) / weight
            present = share > 0
            with np.errstate(invalid="ignore", divide="ignore"):
                variance = self._variance(self.statistics[members], members)
            within += np.where(present, share * np.nan_to_num(variance), 0.0)
        return 1 - within / total
