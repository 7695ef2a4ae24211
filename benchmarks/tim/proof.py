"""A test of TIM on synthetic patients with known relations between tasks.

It is known which tasks share a factor. The labels of one task are shuffled, so that it cannot help
any other. Each fold's networks are trained on a fifth of the patients and tested on the others,
because the test is whether TIM reflects what the networks learned. The trunk is narrow, so that
tasks must share it. `--weakest` drops tasks until any two that share a factor have liabilities with
at least this correlation.

    python benchmarks/tim/proof.py --work runs/tim-proof               # resumes; half an hour
    python benchmarks/tim/proof.py --work runs/tim-proof --coalitions 2048
    python benchmarks/tim/proof.py --work runs/tim-proof --weakest 0.2 --coalitions 2048
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import track
from sklearn.metrics import roc_auc_score

from model.cohorts import Record, labels, synthetic
from model.cohorts.store import Cohort, write
from model.evaluation.folds import Fold, hospital_folds
from model.network.config import NetConfig
from model.tim import coalition_training
from model.tim.coalition_training import NetworkJob
from model.tim.matrix import CoalitionValues, compute_tim
from model.tim.synthetic_study import relations
from model.training.config import TrainConfig
from model.training.processes.jobs import Arrays, claim_folder, run_jobs
from schemas.features import FeatureSpec
from schemas.tasks import Task
from schemas.tim import Tim

SHUFFLED = "malignancy"
# The tasks with the largest loadings on four of the factors, and the shuffled task.
FEW = (
    *("sepsis", "septic_shock", "pneumonia", "urinary_tract_infection"),
    *("heart_failure", "cardiomyopathy", "valve_disease", "atrial_fibrillation"),
    *("end_stage_renal_disease", "chronic_kidney_disease", "acute_kidney_injury"),
    *("fluid_electrolyte_disorder", "copd", "respiratory_failure", "asthma", "pleural_effusion"),
    SHUFFLED,
)
CONFIG = coalition_training.coalition_config(
    # The synthetic diseases have other signs than the expected effects.
    TrainConfig(net=NetConfig(width=4, task_width=8, clinical_effects=False), learning_rate=3e-3)
)
CONFIG = CONFIG.model_copy(update={"batch": 64, "patience": 8})


def records(patients: int) -> Iterator[Record]:
    """The synthetic patients without X-rays, with the labels of one task shuffled."""
    every = list(synthetic.patients(patients, synthetic.SEED))
    other = np.random.default_rng(0).permutation(patients)
    for record, k in zip(every, other, strict=True):
        label = every[k].outcomes.get(SHUFFLED)
        outcomes = {name: value for name, value in record.outcomes.items() if name != SHUFFLED}
        if label is not None:
            outcomes[SHUFFLED] = label
        payload = record.payload.model_copy(update={"images": ()})
        yield replace(record, outcomes=outcomes, payload=payload)


def load_or_make(folder: Path, patients: int) -> Cohort:
    if not folder.is_dir():
        for _ in write(
            records(patients),
            folder,
            name="synthetic, one task shuffled",
            source=synthetic.SOURCE,
            made_by=(synthetic, labels),
            spec=FeatureSpec.default(),
        ):
            pass
    return Cohort.load(folder)


def drop_weak_relations(tasks: Sequence[Task], weakest: float) -> tuple[str, ...]:
    """Tasks of which any two that share a factor have liabilities correlated by `weakest`.

    Drops the task with the most weak relations first; of equals, the one with the least relations.
    """
    left = list(tasks)
    while True:
        strength, related = relations(left)
        np.fill_diagonal(related, val=False)
        weak = (related & (strength < weakest)).sum(axis=0)
        if not weak.any():
            return tuple(task.name for task in left)
        strong = np.where(related, strength, 0).sum(axis=0)
        del left[np.lexsort((strong, -weak))[0]]


def folds(cohort: Cohort) -> list[Fold]:
    return [
        Fold(f.number, f.test, f.learn) for f in hospital_folds(cohort, coalition_training.FOLDS)
    ]


@dataclass(frozen=True)
class TrainingFactory:
    """Loads the cohort in a worker process."""

    cohort: Path
    tasks: tuple[str, ...]

    def __call__(self) -> Callable[[NetworkJob], Arrays]:
        cohort = Cohort.load(self.cohort).of_tasks(self.tasks)
        return coalition_training.CoalitionTraining(cohort, CONFIG, folds=folds(cohort)).run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=5 * synthetic.PATIENTS)
    parser.add_argument("--coalitions", type=int, default=512)
    parser.add_argument("--every-task", action="store_true", help="all 44, not 17 of four factors")
    parser.add_argument("--weakest", type=float, default=0, help="of two that share a factor")
    options = parser.parse_args()
    folder = options.work / f"cohort-{options.patients}"
    cohort = load_or_make(folder, options.patients)
    if not options.every_task:
        cohort = cohort.of_tasks(FEW)
    if options.weakest:
        planted = [task for task in cohort.tasks if task.name != SHUFFLED]
        cohort = cohort.of_tasks((*drop_weak_relations(planted, options.weakest), SHUFFLED))
    tasks = cohort.tasks
    chosen = tuple(task.name for task in tasks)
    networks = options.work / f"networks-{options.patients}-{len(tasks)}"
    training = CONFIG.model_dump(mode="json")
    claim_folder(networks, {"cohort": cohort.digest, "tasks": chosen, "training": training})
    jobs = coalition_training.all_jobs(len(tasks), options.coalitions)
    for _ in track(
        run_jobs(jobs, networks, TrainingFactory(folder, chosen)), "networks", total=len(jobs)
    ):
        pass
    drawn = coalition_training.first_coalitions(len(tasks), options.coalitions)
    tim = compute_tim(CoalitionValues(networks, cohort, folds(cohort)), drawn)
    print(f"{options.patients} patients, {options.coalitions} coalitions")
    print_agreement(tim, tasks)


def print_agreement(tim: Tim, tasks: Sequence[Task]) -> None:
    """Compares the matrix with the known relations of the tasks."""
    binary = np.array([task.kind == "binary" for task in tasks])
    pairs = binary[:, None] & binary & ~np.eye(len(tasks), dtype=np.bool_)
    values = np.array(tim.matrix, dtype=np.float64)
    strength, related = relations(tasks)
    names = [task.name for task in tasks]
    shuffled = names.index(SHUFFLED)
    strength[shuffled], strength[:, shuffled] = 0, 0
    related[shuffled], related[:, shuffled] = False, False
    planted = [i for i in np.flatnonzero(binary) if (related[i] & pairs[i]).any()]
    top = [
        np.argmax(np.where(pairs[i], strength[i], -np.inf))
        in np.argsort(-np.where(pairs[i], values[i], -np.inf))[:3]
        for i in planted
    ]
    attention = np.array(tim.mean_attention, dtype=np.float64)
    certain = np.array(tim.certain)
    rows = np.nansum(values, axis=1) - np.array(tim.multitask_gain, dtype=np.float64)
    by_cells, by_attention = (roc_auc_score(related[pairs], m[pairs]) for m in (values, attention))
    print(f"a related pair has a larger cell: AUROC {by_cells:.3f}, attention {by_attention:.3f}")
    print(f"strongest planted helper among the first three: {np.mean(top):.0%} of {len(top)} tasks")
    print(f"certain cells: {certain.sum()}; of related pairs {certain[related & pairs].sum()}")
    helped = (certain & (values > 0))[:, shuffled].sum()
    print(
        f"certain cells in the column of the shuffled task: {certain[:, shuffled].sum()}, "
        f"{helped} of them positive"
    )
    print(f"agreement of halves of the coalitions: {tim.halves}")
    print(f"largest error of a row's sum: {np.nanmax(np.abs(rows)):.1e}")


if __name__ == "__main__":
    main()
