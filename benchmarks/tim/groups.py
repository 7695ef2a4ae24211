"""Comparison of the groups that TIM suggests with joint training of all tasks.

Nested: for each fold over hospitals, TIM is computed from the training hospitals only, with folds
of its own among them. A model with the suggested groups is then compared with the joint model on
the fold's test hospitals, which neither has seen. The control has random groups of the same sizes.

    python benchmarks/tim/groups.py --cohort runs/eicu --work runs/tim-groups     # resumes
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from model.cohorts.store import Cohort
from model.evaluation.bootstrap import Comparison
from model.evaluation.folds import Fold, hospital_folds
from model.evaluation.predictions import Predictions
from model.tim import coalition_training
from model.tim.coalition_training import NetworkJob
from model.tim.matrix import CoalitionValues, compute_tim
from model.tim.task_groups import suggest
from model.training.config import TrainConfig
from model.training.data import RepresentedSamples, SampleTensors, ensemble_outputs
from model.training.preparation import PreparedTraining
from model.training.processes.jobs import Arrays, claim_folder, run_jobs, write_arrays
from model.training.trainer import Trainer
from schemas.response import MODALITIES

CONFIG = coalition_training.coalition_config(TrainConfig())
JOINT, SUGGESTED, RANDOM = VARIANTS = ("all together", "suggested groups", "random groups")
MIN_POSITIVES = 20  # of a task whose AUROC counts, as in the report
Groups = Sequence[Sequence[str]]


def training_cohort(cohort: Cohort, fold: Fold) -> Cohort:
    return replace(cohort, samples=cohort.samples.take(fold.learn))


@dataclass(frozen=True)
class TrainingFactory:
    """Loads the cohort in a worker process."""

    cohort: Path
    fold: int

    def __call__(self) -> Callable[[NetworkJob], Arrays]:
        cohort = Cohort.load(self.cohort)
        fold = list(hospital_folds(cohort))[self.fold]
        return coalition_training.CoalitionTraining(training_cohort(cohort, fold), CONFIG).run


def suggested_groups(folder: Path, work: Path, cohort: Cohort, fold: Fold, count: int) -> Groups:
    """The groups that TIM suggests on a fold's training hospitals."""
    part, tasks = training_cohort(cohort, fold), len(cohort.tasks)
    claim_folder(
        work, {"cohort": cohort.digest, "fold": fold.number, "training": CONFIG.model_dump()}
    )
    jobs = coalition_training.all_jobs(tasks, count)
    running = run_jobs(jobs, work, TrainingFactory(folder, fold.number))
    for _ in track(running, f"networks, fold {fold.number}", total=len(jobs)):
        pass
    return suggest(
        compute_tim(CoalitionValues(work, part), coalition_training.first_coalitions(tasks, count))
    )


def random_groups(groups: Groups, tasks: Sequence[str], seed: int) -> Groups:
    """Random groups of tasks, of the same sizes."""
    order = np.random.default_rng(seed).permutation(tasks).tolist()
    ends = np.cumsum([len(group) for group in groups])[:-1]
    return [part.tolist() for part in np.split(np.array(order), ends)]


def test_outputs(cohort: Cohort, fold: Fold, groups: Groups) -> Arrays:
    """[patients, binary tasks] the log-odds of the fold's test patients."""
    net = CONFIG.net.model_copy(update={"groups": tuple(map(tuple, groups))})
    prepared = PreparedTraining(
        [training_cohort(cohort, fold)], CONFIG.model_copy(update={"net": net, "patience": 8})
    )
    trainer = Trainer(prepared)
    for _ in trainer.run():
        pass
    data = SampleTensors([cohort], MODALITIES)
    with torch.no_grad():
        represented = RepresentedSamples.compute(data, prepared.encoders)
        raw, _ = ensemble_outputs(trainer.net, represented, data, fold.test)
    return {"binary": raw["binary"].numpy()}


def tested(cohort: Cohort, folds: Sequence[Fold], files: Sequence[Path]) -> Predictions:
    rows = np.concatenate([fold.test for fold in folds])
    scores = np.concatenate([np.load(file)["binary"] for file in files]).astype(np.float64)
    binary = [task.name for task in cohort.tasks if task.kind == "binary"]
    return Predictions(
        tasks=cohort.tasks,
        scores=dict(zip(binary, scores.T, strict=True)),
        outcome=cohort.samples.outcomes[rows].astype(np.float64),
        fold=np.repeat([fold.number for fold in folds], [len(fold.test) for fold in folds]),
        site=cohort.samples.site[rows],
        rows=rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--coalitions", type=int, default=512)
    parser.add_argument("--folds", type=int, default=5, help="how many of the five")
    options = parser.parse_args()
    cohort = Cohort.load(options.cohort)
    names = [task.name for task in cohort.tasks]
    folds = list(hospital_folds(cohort))[: options.folds]
    files: dict[str, list[Path]] = {variant: [] for variant in VARIANTS}
    for fold in folds:
        work = options.work / f"fold-{fold.number}"
        groups = suggested_groups(options.cohort, work, cohort, fold, options.coalitions)
        print(
            f"fold {fold.number}: groups of {', '.join(str(len(g)) for g in groups)} tasks;", end=""
        )
        print(" single tasks:", ", ".join(g[0] for g in groups if len(g) == 1) or "none")
        random = random_groups(groups, names, fold.number)
        variants = {JOINT: [], SUGGESTED: groups, RANDOM: random}
        for variant, variant_groups in variants.items():
            file = options.work / f"{fold.number} {variant}, {options.coalitions}.npz"
            if not file.is_file():
                write_arrays(test_outputs(cohort, fold, variant_groups), file)
            files[variant].append(file)
    compared = Comparison(
        {variant: tested(cohort, folds, files[variant]) for variant in VARIANTS}, MIN_POSITIVES
    )
    tasks = f"{len(compared.tasks)} tasks with at least {MIN_POSITIVES} positives"
    print(f"\n{tasks}, {len(folds)} folds\n")
    print("| training | mean AUROC | difference from joint training, 95 % interval |")
    print("|---|---|---|")
    for variant in VARIANTS:
        value, low, high = compared.difference(variant, JOINT)
        mean = compared.mean[variant][0]
        print(f"| {variant} | {mean:.4f} | {value:+.4f} [{low:+.4f}, {high:+.4f}] |")


if __name__ == "__main__":
    main()
