"""Coverage of TIM's intervals, compared with exact Shapley values.

With 8 tasks all coalitions can be trained: each on each fold with each seed. The exact values are
those of the mean over folds and seeds, for the same patients. Then coalitions are drawn many times
as `m3h-model tim` draws them. The table has the share of their intervals (for the variance of
coalitions and seeds) that contain the exact value.

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
from model.tim.matrix import CoalitionValues, estimate_row
from model.training.config import TrainConfig
from model.training.processes.jobs import Arrays, claim_folder, run_jobs

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
class TrainingFactory:
    """Loads the cohort in a worker process."""

    cohort: Path
    hours: float

    def __call__(self) -> Callable[[NetworkJob], Arrays]:
        return coalition_training.CoalitionTraining(patients(self.cohort, self.hours), CONFIG).run


def exact(source: int, values: CoalitionValues) -> Floats:
    """[T - 1] the Shapley values of the other tasks, by their definition."""
    others = [task for task in range(len(TASKS)) if task != source]

    def value(players: tuple[int, ...]) -> float:
        tasks = tuple(sorted((source, *players)))
        by_network = [
            values.of(NetworkJob(f, s, tasks))[source][0]
            for f in range(FOLDS)
            for s in range(SEEDS)
        ]
        return float(np.nanmean(by_network))

    shapley = np.zeros(len(others))
    for k, player in enumerate(others):
        rest = [task for task in others if task != player]
        for size in range(len(rest) + 1):
            for players in combinations(rest, size):
                gain = value((*players, player)) - value(players)
                shapley[k] += gain / comb(len(rest), size) / len(others)
    return shapley


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--coalitions", type=int, nargs="+", default=[60, 120, 240])
    options = parser.parse_args()
    cohort = patients(options.cohort, options.hours)
    identity = {"cohort": cohort.digest, "tasks": TASKS, "hours": options.hours}
    claim_folder(options.work, identity)
    numbers = range(len(TASKS))
    jobs = [
        NetworkJob(fold, seed, tasks)
        for size in range(1, len(TASKS) + 1)
        for tasks in combinations(numbers, size)
        for fold in range(FOLDS)
        for seed in range(SEEDS)
    ]
    running = run_jobs(jobs, options.work, TrainingFactory(options.cohort, options.hours))
    for _ in track(running, "networks", total=len(jobs)):
        pass
    values = CoalitionValues(options.work, cohort)
    truth = [exact(source, values) for source in numbers]
    spread = np.std(np.concatenate(truth))
    print(f"{len(jobs)} networks; standard deviation of the {len(TASKS) * 7} cells {spread:.4f}\n")
    print("| coalitions | intervals with the exact value | standard error | error of a row's sum |")
    print("|---|---|---|---|")
    for count in options.coalitions:
        covered, errors, sums = [], [], []
        for draw in range(options.draws):
            drawn = coalition_training.first_coalitions(len(TASKS), count, seed=draw)
            for source in numbers:
                row = estimate_row(source, drawn, values)
                assert row is not None
                half = half_width(row.coalition_variance, np.array(row.degrees_of_freedom))
                covered.append(np.abs(row.values - truth[source]) <= half)
                errors.append(row.coalition_variance)
                sums.append(abs(row.values.sum() - truth[source].sum()))
        error = np.sqrt(np.mean(errors))
        print(f"| {count} | {np.mean(covered):.1%} | {error:.4f} | {max(sums):.0e} |")


if __name__ == "__main__":
    main()
