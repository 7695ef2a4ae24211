"""TIM: which task teaches which. What the networks of coalitions are worth, made a matrix."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from model.cohorts.store import Cohort
from model.evaluation.evaluate import Fold, hospital_folds
from model.evaluation.measure import REPLICATES, interval
from model.tim.coalition_training import FOLDS, SEEDS, Job, alone, job_of, together
from model.tim.coalition_value import METRICS, Patients
from model.tim.coalitions import Coalition, TooFewError, certain, estimate, margin
from schemas.tim import Agreement, Row, Tim

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

FEWEST_REPLICATES = 100


class Worth:
    """What the networks of a folder are worth, by task; read once each."""

    def __init__(self, folder: Path, cohort: Cohort, folds: Iterable[Fold] | None = None) -> None:
        self.folder, self.cohort = folder, cohort
        self.folds = list(folds or hospital_folds(cohort, FOLDS))
        self.patients = [Patients.of(cohort, fold) for fold in self.folds]
        self._of: dict[Job, dict[int, Floats]] = {}

    def of(self, job: Job) -> dict[int, Floats]:
        """[1 + R] of each of the job's tasks."""
        if job not in self._of:
            tasks = self.cohort.tasks
            with np.load(self.folder / job.file) as kept:
                raw = {n.removeprefix("raw/"): kept[n] for n in kept.files if n.startswith("raw/")}
            binary = [task for task in job.tasks if tasks[task].kind == "binary"]
            found = {}
            for task in job.tasks:
                kind, name = tasks[task].kind, tasks[task].name
                mine = raw["binary"][:, binary.index(task)] if kind == "binary" else raw[name]
                test = self.patients[job.fold]
                found[task] = test.worth(tasks[task], task, mine.astype(np.float64))
            self._of[job] = found
        return self._of[job]


@dataclass(frozen=True)
class Game:
    """One source's row. values [T - 1] and the two parts of their variance; the gain and its."""

    values: Floats
    of_coalitions: Floats
    of_patients: Floats
    degrees_of_freedom: int
    gain: float
    of_gain: float


def game(source: int, drawn: Sequence[Coalition], worth: Worth) -> Game | None:
    """The Shapley values of the other tasks for one; None if too few patients can test it."""
    tasks = len(worth.cohort.tasks)
    ends = {
        (one.fold, one.seed): (worth.of(one)[source], worth.of(whole)[source])
        for fold in range(FOLDS)
        for one, whole in zip(alone(source, fold), together(tasks, fold), strict=True)
    }
    strata = [stratum for stratum, both in ends.items() if not np.isnan([e[0] for e in both]).any()]
    mine = [job for job in map(job_of, drawn) if source in job.tasks and job.stratum in strata]
    if not mine:
        return None
    players = _players(source, [job.tasks for job in mine], tasks)
    stratum = np.array([strata.index(job.stratum) for job in mine])
    v = np.stack([worth.of(job)[source] for job in mine])
    lone, all_of_them = (np.stack([ends[s][end] for s in strata]) for end in range(2))
    # A replicate without a patient who has the disease, in one of the folds, tells nothing.
    told = ~np.isnan(np.concatenate([v, lone, all_of_them])).any(axis=0)
    if told.sum() < FEWEST_REPLICATES:
        return None
    first = (v[:, 0], lone[:, 0], all_of_them[:, 0])
    told[0] = False  # the data as they are
    found = estimate(players, stratum)
    gains = all_of_them - lone
    of_seeds = gains[:, 0].reshape(-1, SEEDS).var(axis=1, ddof=1).mean() / len(gains)
    return Game(
        values=found.values(*first),
        of_coalitions=found.variance_of_coalitions(*first),
        of_patients=found.variance_of_patients(v[:, told], lone[:, told], all_of_them[:, told]),
        degrees_of_freedom=found.degrees_of_freedom,
        gain=float(gains[:, 0].mean()),
        of_gain=float(of_seeds + gains[:, told].mean(axis=0).var(ddof=1)),
    )


def _players(source: int, coalitions: Sequence[Sequence[int]], tasks: int) -> Bools:
    """[m, T - 1] who is in each of the source's coalitions, beside itself."""
    others = [task for task in range(tasks) if task != source]
    found = [[task in coalition for task in others] for coalition in coalitions]
    return np.array(found, np.bool_).reshape(len(coalitions), len(others))


def check_enough(drawn: Sequence[Coalition], tasks: int) -> None:
    """Raises TooFewError before anything is trained."""
    for source in range(tasks):
        mine = [c.tasks for c in drawn if source in c.tasks]
        estimate(_players(source, mine, tasks), np.zeros(len(mine), np.intp))


@dataclass(frozen=True)
class Cells:
    """All rows. values, variance [T, T]; degrees_of_freedom [T, 1]; gain, of_gain [T]."""

    values: Floats
    variance: Floats
    degrees_of_freedom: Floats
    gain: Floats
    of_gain: Floats


def cells(drawn: Sequence[Coalition], worth: Worth) -> Cells:
    """Raises TooFewError if there are not coalitions enough."""
    tasks = len(worth.cohort.tasks)
    shape = (tasks, tasks)
    values, variance = np.full(shape, np.nan), np.full(shape, np.nan)
    freedom = np.ones((tasks, 1))
    gain, of_gain = np.full(tasks, np.nan), np.full(tasks, np.nan)
    for source in range(tasks):
        found = game(source, drawn, worth)
        if found is not None:
            others = np.arange(tasks) != source
            values[source, others] = found.values
            variance[source, others] = found.of_coalitions + found.of_patients
            freedom[source] = found.degrees_of_freedom
            gain[source], of_gain[source] = found.gain, found.of_gain
    return Cells(values, variance, freedom, gain, of_gain)


def matrix(worth: Worth, drawn: Sequence[Coalition], command: str = "") -> Tim:
    """TIM of the networks that were trained. Raises TooFewError as `cells` does."""
    cohort = worth.cohort
    found = cells(drawn, worth)
    half = margin(found.variance, found.degrees_of_freedom)
    half_gain = margin(found.of_gain, found.degrees_of_freedom[:, 0])
    attention = _attention(worth)
    tested = cohort.samples.patient
    sure = certain(found.values, found.variance, found.degrees_of_freedom)
    names = tuple(task.name for task in cohort.tasks)
    return Tim(
        tasks=names,
        sources=names,
        matrix=_rows(found.values),
        lower=_rows(found.values - half),
        upper=_rows(found.values + half),
        certain=tuple(map(tuple, sure.tolist())),
        multitask_gain=_row(found.gain),
        gain_lower=_row(found.gain - half_gain),
        gain_upper=_row(found.gain + half_gain),
        metric=tuple(METRICS[task.kind] for task in cohort.tasks),
        mean_attention=_rows(attention),
        halves=_halves(drawn, worth),
        attention_agreement=correlation(found.values, attention, ranks=True),
        coalitions=len(drawn),
        patients=len(np.unique(np.concatenate([tested[fold.test] for fold in worth.folds]))),
        cohort=cohort.digest,
        command=command,
    )


def _halves(drawn: Sequence[Coalition], worth: Worth) -> Agreement | None:
    """None if half of the coalitions are too few for a matrix."""
    try:
        one, other = (cells(half, worth).values for half in (drawn[::2], drawn[1::2]))
    except TooFewError:
        return None
    return correlation(one, other)


def correlation(one: Floats, other: Floats, *, ranks: bool = False) -> Agreement | None:
    """How alike two matrices [T, T] are, each row about its own mean; or in each row's ranks.

    What a row adds up to tells nothing of its cells. The interval is a bootstrap over rows. None if
    the rows of a matrix are all alike.
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
    together, *apart = np.array(products)[rows].sum(axis=1).T
    if not np.all(apart):
        return None
    value, lower, upper = interval(together / np.sqrt(apart[0] * apart[1]))
    return Agreement(value=value, lower=lower, upper=upper)


def _attention(worth: Worth) -> Floats:
    """[T, T] of the networks of all tasks, the mean over test patients, seeds and folds."""
    found = []
    for fold in range(FOLDS):
        for job in together(len(worth.cohort.tasks), fold):
            with np.load(worth.folder / job.file) as kept:
                found.append(kept["attention"])
    mean: Floats = np.mean(found, axis=0)
    return mean


def _rows(values: Floats) -> tuple[Row, ...]:
    return tuple(map(_row, values))


def _row(values: Floats) -> Row:
    return tuple(None if np.isnan(value) else round(float(value), 6) for value in values)
