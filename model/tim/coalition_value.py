"""What a network is worth to each of its tasks, on patients that it never learned from.

The metric is the evaluation's, of the patients as they are and as bootstraps over hospitals would
have them.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model.cohorts.store import Cohort
from model.evaluation.evaluate import Fold
from model.evaluation.measure import replicate_weights, weighted_auroc
from model.representations.phenotypes import spreads, standardised
from model.training.data import Data, Rows
from schemas.tasks import Task

Floats = npt.NDArray[np.float64]

METRICS = {
    "binary": "AUROC",
    "multiclass": "macro-AUROC",
    "regression": "R² of log-days",
    "clustering": "variance explained",
}


@dataclass(frozen=True)
class Patients:
    """The test patients of a fold. `times` [1 + R, sites]: the first row is the data as they are.

    outcomes [n, T]; site [n] numbers of the columns of `times`; statistics [n, V] as they shape
    phenotypes.
    """

    outcomes: Floats
    site: Rows
    times: Floats
    statistics: Floats

    @classmethod
    def of(cls, cohort: Cohort, fold: Fold) -> "Patients":
        samples = cohort.samples.take(fold.test)
        _, first, site = np.unique(samples.site, return_index=True, return_inverse=True)
        weight = replicate_weights(samples.site, np.zeros(len(site), np.intp), seed=fold.number)
        test = Data([replace(cohort, samples=samples)], ("series",))
        statistics = standardised(test, spreads(cohort, fold.learn)).nan_to_num().double()
        return cls(samples.outcomes.astype(np.float64), site, weight[:, first], statistics.numpy())

    def worth(self, task: Task, column: int, raw: Floats) -> Floats:
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
            mean: Floats = np.mean(areas, axis=0)
            return mean
        if task.kind == "regression":
            days = np.log(np.maximum(outcome[known], 1 / 24))
            return 1 - self._variance(days - raw[known, 0], known) / self._variance(days, known)
        return self._explained(raw.argmax(axis=1))

    def _auroc(self, outcome: Floats, score: Floats, known: npt.NDArray[np.bool_]) -> Floats:
        area, positives = weighted_auroc(outcome, score, self.site[known], self.times)
        return np.where(positives > 0, area, np.nan)

    def _variance(self, x: Floats, known: npt.NDArray[np.bool_]) -> Floats:
        """[1 + R] of values [n], of [n, V] the sum over V; weighted as the replicates are."""
        weight = self.times[:, self.site[known]]
        total = weight.sum(axis=1)
        x = x.reshape(len(x), -1)
        mean = weight @ x / total[:, None]
        variance: Floats = weight @ (x**2).sum(axis=1) / total - (mean**2).sum(axis=1)
        return variance

    def _explained(self, cluster: Rows) -> Floats:
        """[1 + R] the share of the statistics' variance that lies between the clusters."""
        everyone = np.ones(len(cluster), np.bool_)
        whole = self._variance(self.statistics, everyone)
        weight = self.times[:, self.site].sum(axis=1)
        within = np.zeros(len(weight))
        for k in np.unique(cluster):
            mine = cluster == k
            share = self.times[:, self.site[mine]].sum(axis=1) / weight
            inside = share > 0
            with np.errstate(invalid="ignore", divide="ignore"):
                variance = self._variance(self.statistics[mine], mine)
            within += np.where(inside, share * np.nan_to_num(variance), 0.0)
        return 1 - within / whole
