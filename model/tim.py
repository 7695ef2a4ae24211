"""TIM: which task teaches which. Coalitions of tasks are trained together, and compared.

What is fixed in all coalitions of a fold is label-free: representations, splits, the phenotypes'
prototypes. All else is learned anew by each, from weights and in an order of patients that only
depend on the seed. What each network says of the fold's test patients is kept as a file; a network
whose file is there is not trained again, so that a killed run goes on and a longer one adds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.checkpoint import Facts
from model.coalitions import Coalition, certain, draw, estimate, margin
from model.cohort import Cohort
from model.data import Data, Represented, Rows, member_outputs
from model.device import CPU, Device
from model.evaluate import Fold, hospital_folds
from model.jobs import Arrays, keep
from model.measure import replicate_weights, weighted_auroc
from model.phenotypes import spreads, standardised
from model.prepare import Prepared, RunError, TrainConfig
from model.stacked import AT_ONCE, Stacked
from model.train import MemberRun, Trainer
from schemas.response import MODALITIES
from schemas.tasks import Task
from schemas.tim import Row, Tim

Floats = npt.NDArray[np.float64]

FOLDS = 5
SEEDS = 3  # of the ends on each fold; coalitions take turns with them
# What makes a network quick without making it another: what is compared is trained alike.
SETTINGS = {"members": SEEDS, "batch": 256, "patience": 4}
METRICS = {
    "binary": "AUROC",
    "multiclass": "macro-AUROC",
    "regression": "R² of log-days",
    "clustering": "variance explained",
}


@dataclass(frozen=True)
class Job:
    """One network: these tasks, by index, without the hospitals of the fold."""

    fold: int
    seed: int
    tasks: tuple[int, ...]

    @property
    def file(self) -> str:
        return f"{self.fold}-{self.seed}-{sum(1 << task for task in self.tasks):x}.npz"


def alone(task: int, fold: int) -> list[Job]:
    return [Job(fold, seed, (task,)) for seed in range(SEEDS)]


def together(tasks: int, fold: int) -> list[Job]:
    return [Job(fold, seed, tuple(range(tasks))) for seed in range(SEEDS)]


def job_of(coalition: Coalition) -> Job:
    return Job(coalition.fold, coalition.number % SEEDS, coalition.tasks)


def coalitions(tasks: int, count: int, seed: int = 0) -> list[Coalition]:
    return list(islice(draw(tasks, FOLDS, seed), count))


def every_job(tasks: int, count: int, seed: int = 0) -> list[Job]:
    """The ends first; a coalition that was drawn twice is trained once."""
    ends = [job for f in range(FOLDS) for job in together(tasks, f)]
    ends += [job for f in range(FOLDS) for task in range(tasks) for job in alone(task, f)]
    drawn = [job_of(coalition) for coalition in coalitions(tasks, count, seed)]
    return list(dict.fromkeys([*ends, *drawn]))


def check(facts: Facts, cohort: Cohort) -> None:
    """Raises RunError unless the model learned from this very cohort."""
    if cohort.digest not in {learned.digest for learned in facts.cohorts}:
        raise RunError(
            f"the model did not learn from {cohort.name} as it is now (its digest is another); "
            "give the cohort of its training, or train it anew"
        )


# ---- training ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """What a process reads before it trains: the cohort, and each fold's representations."""

    cohort: Path
    config: TrainConfig

    def __call__(self) -> Callable[[Job], Arrays]:
        return Games(Cohort.load(self.cohort), self.config).run


class Games:
    """Trains networks of some tasks on the folds of a cohort."""

    def __init__(self, cohort: Cohort, config: TrainConfig, device: Device = CPU) -> None:
        self.cohort, self.device = cohort, device
        self.config = config.model_copy(update=SETTINGS)
        self.folds = list(hospital_folds(cohort, FOLDS))
        self._prepared: dict[int, Shared] = {}

    def run(self, job: Job) -> Arrays:
        """What the network says of the fold's test patients: raw outputs, and mean attention."""
        return self.shared(job.fold).run(job)

    def run_at_once(self, jobs: Sequence[Job], folder: Path) -> Iterator[tuple[Job, bool]]:
        """The same of many, trained side by side; files as `model.jobs` keeps them."""
        todo = [job for job in jobs if not (folder / job.file).is_file()]
        yield from ((job, False) for job in jobs if job not in todo)
        # Networks of as many tasks learn about as long.
        todo.sort(key=lambda job: (job.fold, job.seed, len(job.tasks)))
        for (fold, seed), alike in groupby(todo, key=lambda job: (job.fold, job.seed)):
            every = list(alike)
            for some in (every[i : i + AT_ONCE] for i in range(0, len(every), AT_ONCE)):
                for job, found in zip(some, self.shared(fold).run_at_once(some, seed), strict=True):
                    keep(found, folder / job.file)
                    yield job, True

    def shared(self, fold: int) -> "Shared":
        """What is shared by all networks of a fold."""
        if fold not in self._prepared:
            here = self.folds[fold]
            self._prepared[fold] = Shared(self.cohort, here, self.config, self.device)
        return self._prepared[fold]


class Shared:
    """What all networks of a fold share."""

    def __init__(self, cohort: Cohort, fold: Fold, config: TrainConfig, device: Device) -> None:
        learn, test = (
            replace(cohort, samples=cohort.samples.take(rows)) for rows in (fold.learn, fold.test)
        )
        self.prepared = Prepared([learn], config, device=device)
        self.data = Data([test], MODALITIES)
        self.represented = Represented.of(self.data, self.prepared.encoders, device)

    def run(self, job: Job) -> Arrays:
        names = [self.prepared.facts.tasks[task].name for task in job.tasks]
        run = MemberRun(Trainer(self.prepared, tasks=names), job.seed)
        for _ in run.epochs(None):
            pass
        rows = np.arange(len(self.data))
        raw, attention = member_outputs(run.mean, self.represented, self.data, rows)
        return _told(raw, attention.mean(dim=0))

    def run_at_once(self, jobs: Sequence[Job], seed: int) -> Iterator[Arrays]:
        tasks = self.prepared.facts.tasks
        taking = torch.tensor([[i in job.tasks for i in range(len(tasks))] for job in jobs])
        stacked = Stacked(self.prepared, seed, taking)
        stacked.run()
        raw, attention = stacked.outputs(self.represented, self.data.present)
        binary = [i for i, task in enumerate(tasks) if task.kind == "binary"]
        for k, job in enumerate(jobs):
            rows, names = list(job.tasks), {tasks[i].name for i in job.tasks}
            mine = {name: value[k] for name, value in raw.items() if name in names}
            if columns := [binary.index(i) for i in rows if i in binary]:
                mine["binary"] = raw["binary"][k][:, columns]
            yield _told(mine, attention[k][rows][:, rows])


def _told(raw: Mapping[str, Tensor], attention: Tensor) -> Arrays:
    found = {f"raw/{name}": value.numpy() for name, value in raw.items()}
    return found | {"attention": attention.numpy()}


# ---- what a network is worth to each of its tasks ------------------------------------------------


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


class Worth:
    """What the networks of a folder are worth, by task; read once each."""

    def __init__(self, folder: Path, cohort: Cohort) -> None:
        self.folder, self.cohort = folder, cohort
        self.patients = [Patients.of(cohort, fold) for fold in hospital_folds(cohort, FOLDS)]
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


# ---- the matrix ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Game:
    """One source's row. values, variances [T - 1]; NaN where nothing could be measured."""

    values: Floats
    of_coalitions: Floats
    of_patients: Floats
    degrees_of_freedom: int
    gain: float


def game(source: int, drawn: Sequence[Coalition], worth: Worth, tasks: int) -> Game | None:
    """The Shapley values of the other tasks for one; None if no fold can test it."""
    ends = {
        fold: tuple(
            np.stack([worth.of(job)[source] for job in jobs])
            for jobs in (alone(source, fold), together(tasks, fold))
        )
        for fold in range(FOLDS)
    }
    folds = [f for f, both in ends.items() if not any(np.isnan(end[:, 0]).any() for end in both)]
    mine = [c for c in drawn if source in c.tasks and c.fold in folds]
    if not mine:
        return None
    others = [task for task in range(tasks) if task != source]
    players = np.array([[task in c.tasks for task in others] for c in mine])
    fold = np.array([folds.index(c.fold) for c in mine])
    found = estimate(players, fold, len(folds))
    v = np.stack([worth.of(job_of(c))[source] for c in mine])
    by_seed = [np.stack([ends[f][end] for f in folds]) for end in range(2)]  # [folds, seeds, 1 + R]
    lone, all_of_them = (end.mean(axis=1) for end in by_seed)
    values = found.values(v, lone, all_of_them)
    of_seeds = (float(end[:, :, 0].var(axis=1, ddof=1).mean()) / SEEDS for end in by_seed)
    first = (v[:, 0], lone[:, 0], all_of_them[:, 0])
    return Game(
        values=values[0],
        of_coalitions=found.variance_of_coalitions(*first) + found.variance_of_ends(*of_seeds),
        of_patients=np.nanvar(values[1:], axis=0, ddof=1),
        degrees_of_freedom=found.degrees_of_freedom,
        gain=float((all_of_them - lone)[:, 0].mean()),
    )


def matrix(folder: Path, cohort: Cohort, drawn: Sequence[Coalition], command: str = "") -> Tim:
    """TIM of the networks in the folder. Raises ValueError if the coalitions are too few."""
    tasks = len(cohort.tasks)
    worth = Worth(folder, cohort)
    shape = (tasks, tasks)
    values, variance = np.full(shape, np.nan), np.full(shape, np.nan)
    freedom, gain = np.ones((tasks, 1)), np.full(tasks, np.nan)
    for source in range(tasks):
        found = game(source, drawn, worth, tasks)
        if found is not None:
            others = np.arange(tasks) != source
            values[source, others] = found.values
            variance[source, others] = found.of_coalitions + found.of_patients
            freedom[source], gain[source] = found.degrees_of_freedom, found.gain
    half = margin(variance, freedom)
    names = tuple(task.name for task in cohort.tasks)
    return Tim(
        tasks=names,
        sources=names,
        matrix=_rows(values),
        lower=_rows(values - half),
        upper=_rows(values + half),
        certain=tuple(map(tuple, certain(values, variance, freedom).tolist())),
        multitask_gain=_rows(gain[None])[0],
        metric=tuple(METRICS[task.kind] for task in cohort.tasks),
        mean_attention=_rows(_attention(folder, tasks)),
        coalitions=len(drawn),
        patients=sum(
            len(np.unique(c))
            for c in [cohort.samples.patient[f.test] for f in hospital_folds(cohort, FOLDS)]
        ),
        command=command,
    )


def _attention(folder: Path, tasks: int) -> Floats:
    """[T, T] of the networks of all tasks, the mean over test patients, seeds and folds."""
    found = []
    for fold in range(FOLDS):
        for job in together(tasks, fold):
            with np.load(folder / job.file) as kept:
                found.append(kept["attention"])
    mean: Floats = np.mean(found, axis=0)
    return mean


def _rows(values: Floats) -> tuple[Row, ...]:
    return tuple(
        tuple(None if np.isnan(value) else round(float(value), 6) for value in row)
        for row in values
    )
