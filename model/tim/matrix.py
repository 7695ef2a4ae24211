"""TIM, the task interaction matrix: how much each task helps each other task.

It is computed from the values of the networks that `model.tim.coalition_training` trained.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from model.cohorts.store import Cohort
from model.evaluation.bootstrap import REPLICATES, interval
from model.evaluation.folds import Fold, hospital_folds
from model.tim.coalition_training import (
    FOLDS,
    SEEDS,
    NetworkJob,
    all_task_jobs,
    job_of,
    single_task_jobs,
)
from model.tim.coalition_value import METRICS, FoldPatients
from model.tim.coalitions import (
    Coalition,
    TooFewError,
    half_width,
    shapley_estimator,
    significant,
)
from schemas.tim import Agreement, Row, Tim

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

MIN_REPLICATES = 100


class CoalitionValues:
    """The values of the networks in a folder, by task. Each file is read once."""

    def __init__(self, folder: Path, cohort: Cohort, folds: Iterable[Fold] | None = None) -> None:
        self.folder, self.cohort = folder, cohort
        self.folds = list(folds or hospital_folds(cohort, FOLDS))
        self.patients = [FoldPatients.of(cohort, fold) for fold in self.folds]
        self._values: dict[NetworkJob, dict[int, Floats]] = {}

    def of(self, job: NetworkJob) -> dict[int, Floats]:
        """[1 + R] the value for each of the job's tasks."""
        if job not in self._values:
            tasks = self.cohort.tasks
            with np.load(self.folder / job.file) as file:
                raw = {n.removeprefix("raw/"): file[n] for n in file.files if n.startswith("raw/")}
            binary = [task for task in job.tasks if tasks[task].kind == "binary"]
            values = {}
            for task in job.tasks:
                kind, name = tasks[task].kind, tasks[task].name
                task_raw = raw["binary"][:, binary.index(task)] if kind == "binary" else raw[name]
                patients = self.patients[job.fold]
                values[task] = patients.task_value(tasks[task], task, task_raw.astype(np.float64))
            self._values[job] = values
        return self._values[job]


@dataclass(frozen=True)
class RowEstimate:
    """One row of the matrix: the Shapley values for one source task.

    values, coalition_variance, patient_variance: [T - 1]. `gain`: the value of the all-task network
    above that of the single-task network.
    """

    values: Floats
    coalition_variance: Floats
    patient_variance: Floats
    degrees_of_freedom: int
    gain: float
    gain_variance: float


def estimate_row(
    source: int, drawn: Sequence[Coalition], values: CoalitionValues
) -> RowEstimate | None:
    """The Shapley values of the other tasks for `source`; None if too few patients can test it.

    Raises TooFewError if there are too few coalitions.
    """
    tasks = len(values.cohort.tasks)
    ends = {
        (one.fold, one.seed): (values.of(one)[source], values.of(every)[source])
        for fold in range(FOLDS)
        for one, every in zip(
            single_task_jobs(source, fold), all_task_jobs(tasks, fold), strict=True
        )
    }
    strata = [stratum for stratum, both in ends.items() if not np.isnan([e[0] for e in both]).any()]
    jobs = [job for job in map(job_of, drawn) if source in job.tasks and job.stratum in strata]
    if not jobs:
        return None
    players = _players(source, [job.tasks for job in jobs], tasks)
    stratum = np.array([strata.index(job.stratum) for job in jobs])
    v = np.stack([values.of(job)[source] for job in jobs])
    single, joint = (np.stack([ends[s][end] for s in strata]) for end in range(2))
    # A replicate is undefined if, in one of the folds, none of its patients has the disease.
    defined = ~np.isnan(np.concatenate([v, single, joint])).any(axis=0)
    if defined.sum() < MIN_REPLICATES:
        return None
    actual = (v[:, 0], single[:, 0], joint[:, 0])
    defined[0] = False  # the first column is the data as they are, no replicate
    replicates = (v[:, defined], single[:, defined], joint[:, defined])
    estimator = shapley_estimator(players, stratum)
    gains = joint - single
    seed_variance = gains[:, 0].reshape(-1, SEEDS).var(axis=1, ddof=1).mean() / len(gains)
    return RowEstimate(
        values=estimator.values(*actual),
        coalition_variance=estimator.variance_of_coalitions(*actual),
        patient_variance=estimator.variance_of_patients(*replicates),
        degrees_of_freedom=estimator.degrees_of_freedom,
        gain=float(gains[:, 0].mean()),
        gain_variance=float(seed_variance + gains[:, defined].mean(axis=0).var(ddof=1)),
    )


def _players(source: int, coalitions: Sequence[Sequence[int]], tasks: int) -> Bools:
    """[m, T - 1] which other tasks are in each of the source's coalitions."""
    others = [task for task in range(tasks) if task != source]
    members = [[task in coalition for task in others] for coalition in coalitions]
    return np.array(members, np.bool_).reshape(len(coalitions), len(others))


def check_enough(drawn: Sequence[Coalition], tasks: int) -> None:
    """Raises TooFewError if the coalitions are too few for a matrix; before anything is trained."""
    for source in range(tasks):
        coalitions = [c.tasks for c in drawn if source in c.tasks]
        stratum = np.zeros(len(coalitions), np.intp)
        shapley_estimator(_players(source, coalitions, tasks), stratum)


@dataclass(frozen=True)
class MatrixEstimate:
    """All rows. values, variance [T, T]; degrees_of_freedom [T, 1]; gain, gain_variance [T]."""

    values: Floats
    variance: Floats
    degrees_of_freedom: Floats
    gain: Floats
    gain_variance: Floats


def estimate_matrix(drawn: Sequence[Coalition], values: CoalitionValues) -> MatrixEstimate:
    """Raises TooFewError if there are too few coalitions."""
    tasks = len(values.cohort.tasks)
    shape = (tasks, tasks)
    cells, variance = np.full(shape, np.nan), np.full(shape, np.nan)
    freedom = np.ones((tasks, 1))
    gain, gain_variance = np.full(tasks, np.nan), np.full(tasks, np.nan)
    for source in range(tasks):
        row = estimate_row(source, drawn, values)
        if row is not None:
            others = np.arange(tasks) != source
            cells[source, others] = row.values
            variance[source, others] = row.coalition_variance + row.patient_variance
            freedom[source] = row.degrees_of_freedom
            gain[source], gain_variance[source] = row.gain, row.gain_variance
    return MatrixEstimate(cells, variance, freedom, gain, gain_variance)


def compute_tim(values: CoalitionValues, drawn: Sequence[Coalition], command: str = "") -> Tim:
    """The matrix with intervals. Raises TooFewError if there are too few coalitions."""
    cohort = values.cohort
    estimate = estimate_matrix(drawn, values)
    half = half_width(estimate.variance, estimate.degrees_of_freedom)
    half_gain = half_width(estimate.gain_variance, estimate.degrees_of_freedom[:, 0])
    attention = _mean_attention(values)
    patients = cohort.samples.patient
    certain = significant(estimate.values, estimate.variance, estimate.degrees_of_freedom)
    names = tuple(task.name for task in cohort.tasks)
    return Tim(
        tasks=names,
        sources=names,
        matrix=_rows(estimate.values),
        lower=_rows(estimate.values - half),
        upper=_rows(estimate.values + half),
        certain=tuple(map(tuple, certain.tolist())),
        multitask_gain=_row(estimate.gain),
        gain_lower=_row(estimate.gain - half_gain),
        gain_upper=_row(estimate.gain + half_gain),
        metric=tuple(METRICS[task.kind] for task in cohort.tasks),
        mean_attention=_rows(attention),
        halves=_split_half_agreement(drawn, values),
        attention_agreement=correlation(estimate.values, attention, ranks=True),
        coalitions=len(drawn),
        patients=len(np.unique(np.concatenate([patients[fold.test] for fold in values.folds]))),
        cohort=cohort.digest,
        command=command,
    )


def _split_half_agreement(drawn: Sequence[Coalition], values: CoalitionValues) -> Agreement | None:
    """The correlation of the matrices of two halves; None if a half has too few coalitions."""
    try:
        one, other = (estimate_matrix(half, values).values for half in (drawn[::2], drawn[1::2]))
    except TooFewError:
        return None
    return correlation(one, other)


def correlation(one: Floats, other: Floats, *, ranks: bool = False) -> Agreement | None:
    """The correlation of two matrices [T, T] within rows; with `ranks`, of the ranks in a row.

    Each row is centred, because a row's sum does not depend on its cells' differences. The interval
    is a bootstrap over rows. None if the rows of a matrix are constant.
    """
    products = []
    for pair in zip(one, other, strict=True):
        x, y = np.array(pair)[:, ~np.isnan(pair).any(axis=0)]
        if len(x) > 1:
            x, y = (stats.rankdata(z) if ranks else z for z in (x, y))
            x, y = x - x.mean(), y - y.mean()
            products.append([x @ y, x @ x, y @ y])
    rows = np.random.default_rng(0).integers(0, len(products), (REPLICATES, len(products)))
    rows = np.vstack([np.arange(len(products)), rows])
    covariance, *variances = np.array(products)[rows].sum(axis=1).T
    if not np.all(variances):
        return None
    value, lower, upper = interval(covariance / np.sqrt(variances[0] * variances[1]))
    return Agreement(value=value, lower=lower, upper=upper)


def _mean_attention(values: CoalitionValues) -> Floats:
    """[T, T] of the all-task networks, the mean over test patients, seeds and folds."""
    attention = []
    for fold in range(FOLDS):
        for job in all_task_jobs(len(values.cohort.tasks), fold):
            with np.load(values.folder / job.file) as file:
                attention.append(file["attention"])
    mean: Floats = np.mean(attention, axis=0)
    return mean


def _rows(values: Floats) -> tuple[Row, ...]:
    return tuple(map(_row, values))


def _row(values: Floats) -> Row:
    return tuple(None if np.isnan(value) else round(float(value), 6) for value in values)
