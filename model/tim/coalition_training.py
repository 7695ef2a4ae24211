"""Networks of some tasks, trained on the folds of a cohort: what TIM compares.

What is fixed in all coalitions of a fold is label-free: representations, splits, the phenotypes'
prototypes. All else is learned anew by each, from weights and in an order of patients that only
depend on the seed. What each network says of the fold's test patients is kept as a file; a network
whose file is there is not trained again, so that a killed run goes on and a longer one adds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.cohorts.store import Cohort
from model.evaluation.evaluate import Fold, hospital_folds
from model.network.checkpoint import Facts
from model.tim.coalitions import Coalition, draw
from model.training.batched_training import AT_ONCE, Stacked
from model.training.data import Data, Represented, member_outputs
from model.training.device import CPU, Device
from model.training.jobs import Arrays, keep
from model.training.prepare import Prepared, RunError, TrainConfig
from model.training.train import MemberRun, Trainer
from schemas.response import MODALITIES

FOLDS = 5
SEEDS = 3  # of the ends on each fold; coalitions take turns with them
# What makes a network quick without making it another: what is compared is trained alike.
SETTINGS = {"members": SEEDS, "batch": 256, "patience": 4}


@dataclass(frozen=True)
class Job:
    """One network: these tasks, by index, without the hospitals of the fold."""

    fold: int
    seed: int
    tasks: tuple[int, ...]

    @property
    def file(self) -> str:
        return f"{self.fold}-{self.seed}-{sum(1 << task for task in self.tasks):x}.npz"

    @property
    def stratum(self) -> tuple[int, int]:
        """What it has in common with its ends: the patients, and the first weights."""
        return self.fold, self.seed


def settings(config: TrainConfig) -> TrainConfig:
    """How the networks are trained: as the model was, with SETTINGS, and no groups.

    Who would help whom is asked of tasks that nothing keeps apart.
    """
    net = config.net.model_copy(update={"groups": ()})
    return config.model_copy(update={**SETTINGS, "net": net})


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
    """Trains networks of some tasks on the folds of a cohort, as many as FOLDS."""

    def __init__(
        self,
        cohort: Cohort,
        config: TrainConfig,
        device: Device = CPU,
        folds: Iterable[Fold] | None = None,
    ) -> None:
        self.cohort, self.config, self.device = cohort, config, device
        self.folds = list(folds or hospital_folds(cohort, FOLDS))
        self._prepared: dict[int, Shared] = {}

    def run(self, job: Job) -> Arrays:
        """What the network says of the fold's test patients: raw outputs, and mean attention."""
        return self.shared(job.fold).run(job)

    def run_at_once(self, jobs: Sequence[Job], folder: Path) -> Iterator[tuple[Job, bool]]:
        """The same of many, trained side by side; files as `model.training.jobs` keeps them."""
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
