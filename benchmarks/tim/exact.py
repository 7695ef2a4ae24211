"""Do TIM's intervals hold the exact Shapley values? With 8 tasks every coalition can be trained.

On the same patients: each coalition is trained on each fold with each seed, and the exact values
are those of its mean worth. Then, again and again, some coalitions are drawn, as `m3h-model tim`
draws them, and it is counted how often their intervals (the part of the coalitions and seeds) hold
the exact value.

    python benchmarks/tim/exact.py --cohort runs/eicu --work runs/tim-exact     # resumes
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import track

from model.cohorts.store import Cohort
from model.tim import coalition_training
from model.tim.coalition_training import FOLDS, SEEDS, NetworkJob
from model.tim.coalitions import half_width
from model.tim.compute_tim import CoalitionValues, estimate_row
from model.training.config import TrainConfig
from model.training.jobs import Arrays, claim_folder, run_jobs

TASKS = (
    "respiratory_failure",
    "septic_shock",
    "sepsis",
    "acute_kidney_injury",
    "chronic_kidney_disease",
    "end_stage_renal_disease",
    "in_hospital_mortality",
    "length_of_stay",
)
CONFIG = coalition_training.coalition_config(TrainConfig())
Floats = npt.NDArray[np.float64]


def patients(cohort: Path, hours: float) -> Cohort:
    """The cohort at one landmark, with the eight tasks."""
    whole = Cohort.load(cohort).of_tasks(TASKS)
    rows = np.flatnonzero(whole.samples.landmark == hours)
    return replace(whole, samples=whole.samples.take(rows))


@dataclass(frozen=True)
class CohortLoader:
    cohort: Path
    hours: float

    def __call__(self) -> Callable[[NetworkJob], Arrays]:
        return coalition_training.CoalitionTraining(patients(self.cohort, self.hours), CONFIG).run


def exact(source: int, worth: CoalitionValues) -> Floats:
    """[T - 1] the Shapley values of the others, by their definition."""
    others = [task for task in range(len(TASKS)) if task != source]

    def value(players: tuple[int, ...]) -> float:
        tasks = tuple(sorted((source, *players)))
        every = [
            worth.of(NetworkJob(f, s, tasks))[source][0] for f in range(FOLDS) for s in range(SEEDS)
        ]
        return float(np.nanmean(every))

    found = np.zeros(len(others))
    for k, player in enumerate(others):
        rest = [task for task in others if task != player]
        for size in range(len(rest) + 1):
            for some in combinations(rest, size):
                step = value((*some, player)) - value(some)
                found[k] += step / comb(len(rest), size) / len(others)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--coalitions", type=int, nargs="+", default=[60, 120, 240])
    options = parser.parse_args()
    cohort = patients(options.cohort, options.hours)
    of = {"cohort": cohort.digest, "tasks": TASKS, "hours": options.hours}
    claim_folder(options.work, of)
    numbers = range(len(TASKS))
    jobs = [
        NetworkJob(fold, seed, tasks)
        for size in range(1, len(TASKS) + 1)
        for tasks in combinations(numbers, size)
        for fold in range(FOLDS)
        for seed in range(SEEDS)
    ]
    running = run_jobs(jobs, options.work, CohortLoader(options.cohort, options.hours))
    for _ in track(running, "networks", total=len(jobs)):
        pass
    worth = CoalitionValues(options.work, cohort)
    truth = [exact(source, worth) for source in numbers]
    spread = np.std(np.concatenate(truth))
    print(f"{len(jobs)} networks; standard deviation of the {len(TASKS) * 7} cells {spread:.4f}\n")
    print(
        "| coalitions | intervals that hold the exact value | standard error | row's sum off by |"
    )
    print("|---|---|---|---|")
    for count in options.coalitions:
        held, errors, sums = [], [], []
        for draw in range(options.draws):
            drawn = coalition_training.first_coalitions(len(TASKS), count, seed=draw)
            for source in numbers:
                found = estimate_row(source, drawn, worth)
                assert found is not None
                half = half_width(found.coalition_variance, np.array(found.degrees_of_freedom))
                held.append(np.abs(found.values - truth[source]) <= half)
                errors.append(found.coalition_variance)
                sums.append(abs(found.values.sum() - truth[source].sum()))
        error = np.sqrt(np.mean(errors))
        print(f"| {count} | {np.mean(held):.1%} | {error:.4f} | {max(sums):.0e} |")


if __name__ == "__main__":
    main()
