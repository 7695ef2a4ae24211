"""Training of networks of coalitions of tasks, on the folds of a cohort, for TIM.

The networks of a fold share everything that needs no label: representations, splits, prototypes of
the phenotypes. Everything else is trained again for each network; first weights and the order of
patients depend only on the seed. Each network's outputs for the fold's test patients are stored in
a file. A network whose file exists is not trained again, so that a killed run can be resumed, and a
run with more coalitions adds to an earlier one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.cohorts.store import Cohort
from model.errors import RunError
from model.evaluation.folds import Fold, hospital_folds
from model.network.checkpoint import Facts
from model.network.heads import EVIDENCE, TREES
from model.tim.batched_training import MAX_NETWORKS, BatchedTraining
from model.tim.coalitions import Coalition, draw_coalitions
from model.training.config import TrainConfig
from model.training.data import RepresentedSamples, SampleTensors, member_outputs
from model.training.member_run import MemberRun
from model.training.preparation import PreparedTraining
from model.training.processes.device import CPU, Device
from model.training.processes.jobs import Arrays, write_arrays
from model.training.task_network import TaskNetwork
from schemas.response import MODALITIES

FOLDS = 5
SEEDS = 3  # of the single-task and all-task networks of a fold; coalitions alternate between them
# Settings that make the networks fast. All compared networks have them.
FAST_SETTINGS = {
    "members": SEEDS,
    "batch": 256,
    "learning_rate": 1e-3,
    "patience": 4,
    "direction_weight": 0.0,
}


@dataclass(frozen=True)
class NetworkJob:
    """One network: its tasks, by index, trained without the hospitals of the fold."""

    fold: int
    seed: int
    tasks: tuple[int, ...]

    @property
    def file(self) -> str:
        return f"{self.fold}-{self.seed}-{sum(1 << task for task in self.tasks):x}.npz"

    @property
    def stratum(self) -> tuple[int, int]:
        """The patients and the first weights; networks are compared within a stratum."""
        return self.fold, self.seed


def coalition_config(config: TrainConfig) -> TrainConfig:
    """The model's own configuration, with FAST_SETTINGS without groups of tasks and trees.

    Groups would hide the effect of one task on another. Trees learn each task alone.
    """
    net = config.net.model_copy(update={"groups": (), "trees": {}})
    return config.model_copy(update={**FAST_SETTINGS, "net": net})


def single_task_jobs(task: int, fold: int) -> list[NetworkJob]:
    return [NetworkJob(fold, seed, (task,)) for seed in range(SEEDS)]


def all_task_jobs(tasks: int, fold: int) -> list[NetworkJob]:
    return [NetworkJob(fold, seed, tuple(range(tasks))) for seed in range(SEEDS)]


def job_of(coalition: Coalition) -> NetworkJob:
    return NetworkJob(coalition.fold, coalition.number % SEEDS, coalition.tasks)


def first_coalitions(tasks: int, count: int, seed: int = 0) -> list[Coalition]:
    return list(islice(draw_coalitions(tasks, FOLDS, seed), count))


def all_jobs(tasks: int, count: int, seed: int = 0) -> list[NetworkJob]:
    """The jobs of all tasks, of single tasks, and of `count` coalitions, without duplicates."""
    jobs = [job for f in range(FOLDS) for job in all_task_jobs(tasks, f)]
    jobs += [
        job for f in range(FOLDS) for task in range(tasks) for job in single_task_jobs(task, f)
    ]
    jobs += [job_of(coalition) for coalition in first_coalitions(tasks, count, seed)]
    return list(dict.fromkeys(jobs))


def check_cohort(facts: Facts, cohort: Cohort) -> None:
    """Raises RunError unless the model was trained on this very cohort."""
    if cohort.digest not in {learned.digest for learned in facts.cohorts}:
        raise RunError(
            f"the model was not trained on {cohort.name} in its present form (the digests differ); "
            "give the cohort of its training, or train it again"
        )


# ---- training ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CoalitionTrainingFactory:
    """Loads the cohort in a worker process (`model.training.processes.jobs.run_jobs`)."""

    cohort: Path
    config: TrainConfig

    def __call__(self) -> Callable[[NetworkJob], Arrays]:
        return CoalitionTraining(Cohort.load(self.cohort), self.config).run


class CoalitionTraining:
    """Trains networks of some tasks on FOLDS folds of a cohort."""

    def __init__(
        self,
        cohort: Cohort,
        config: TrainConfig,
        device: Device = CPU,
        folds: Iterable[Fold] | None = None,
    ) -> None:
        self.cohort, self.config, self.device = cohort, config, device
        self.folds = list(folds or hospital_folds(cohort, FOLDS))
        self._fold_trainings: dict[int, FoldTraining] = {}

    def run(self, job: NetworkJob) -> Arrays:
        """Trains one network: its raw outputs and mean attention on the fold's test patients."""
        return self.fold_training(job.fold).run(job)

    def run_batched(
        self, jobs: Sequence[NetworkJob], folder: Path
    ) -> Iterator[tuple[NetworkJob, bool]]:
        """Trains many networks at once; files and results as in `run_jobs`."""
        pending = [job for job in jobs if not (folder / job.file).is_file()]
        yield from ((job, False) for job in jobs if job not in pending)
        # Networks with the same number of tasks train for about the same time.
        pending.sort(key=lambda job: (job.fold, job.seed, len(job.tasks)))
        for (fold, seed), stratum in groupby(pending, key=lambda job: job.stratum):
            alike = list(stratum)
            for start in range(0, len(alike), MAX_NETWORKS):
                batch = alike[start : start + MAX_NETWORKS]
                results = self.fold_training(fold).run_batched(batch, seed)
                for job, arrays in zip(batch, results, strict=True):
                    write_arrays(arrays, folder / job.file)
                    yield job, True

    def fold_training(self, fold: int) -> "FoldTraining":
        if fold not in self._fold_trainings:
            self._fold_trainings[fold] = FoldTraining(
                self.cohort, self.folds[fold], self.config, self.device
            )
        return self._fold_trainings[fold]


class FoldTraining:
    """Trains the networks of one fold, which share its preparation and its test patients."""

    def __init__(self, cohort: Cohort, fold: Fold, config: TrainConfig, device: Device) -> None:
        learn, test = (
            replace(cohort, samples=cohort.samples.take(rows)) for rows in (fold.learn, fold.test)
        )
        self.prepared = PreparedTraining([learn], config, device=device)
        self.data = SampleTensors([test], MODALITIES)
        self.represented = RepresentedSamples.compute(self.data, self.prepared.encoders, device)

    def run(self, job: NetworkJob) -> Arrays:
        names = [self.prepared.facts.tasks[task].name for task in job.tasks]
        run = MemberRun(TaskNetwork(self.prepared, tasks=names), job.seed)
        for _ in run.epochs(None):
            pass
        rows = np.arange(len(self.data))
        raw, attention = member_outputs(run.mean, self.represented, self.data, rows)
        return _as_arrays(raw, attention.mean(dim=0))

    def run_batched(self, jobs: Sequence[NetworkJob], seed: int) -> Iterator[Arrays]:
        """The results of `run` for each job, trained at once; all jobs must have the seed."""
        tasks = self.prepared.facts.tasks
        active = torch.tensor([[i in job.tasks for i in range(len(tasks))] for job in jobs])
        training = BatchedTraining(self.prepared, seed, active)
        training.run()
        raw, attention = training.outputs(self.represented, self.data.present)
        binary = [i for i, task in enumerate(tasks) if task.kind == "binary"]
        for k, job in enumerate(jobs):
            rows, names = list(job.tasks), {tasks[i].name for i in job.tasks}
            job_raw = {name: value[k] for name, value in raw.items() if name in names}
            if columns := [binary.index(i) for i in rows if i in binary]:
                job_raw["binary"] = raw["binary"][k][:, columns]
            yield _as_arrays(job_raw, attention[k][rows][:, rows])


def _as_arrays(raw: Mapping[str, Tensor], attention: Tensor) -> Arrays:
    arrays = {
        f"raw/{name}": value.numpy() for name, value in raw.items() if name not in (EVIDENCE, TREES)
    }
    return arrays | {"attention": attention.numpy()}
