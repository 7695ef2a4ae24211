"""Does a model whose tasks learn in the groups that TIM suggests beat one that learns all together.

Nested: for each fold by hospital, TIM is made of the hospitals that are learned from alone, with
folds of its own among them; the groups that it suggests are then compared on the hospitals of the
fold, which nothing has seen. As a control, tasks are dealt at random to as many groups, as large.

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
from model.evaluation.evaluate import Fold, hospital_folds
from model.evaluation.measure import Compared, Tested
from model.tim import coalition_training
from model.tim.coalition_training import NetworkJob
from model.tim.compute_tim import CoalitionValues, compute_tim
from model.tim.task_groups import suggest
from model.training.config import TrainConfig
from model.training.data import RepresentedSamples, SampleTensors, ensemble_outputs
from model.training.jobs import Arrays, claim_folder, run_jobs, write_arrays
from model.training.preparation import PreparedTraining
from model.training.trainer import Trainer
from schemas.response import MODALITIES

CONFIG = coalition_training.coalition_config(TrainConfig())
TOGETHER, SUGGESTED, DEALT = WAYS = ("together", "as suggested", "dealt at random")
FEWEST = 20  # positives of a task whose AUROC counts, as in the report
Groups = Sequence[Sequence[str]]


def learned_from(cohort: Cohort, fold: Fold) -> Cohort:
    return replace(cohort, samples=cohort.samples.take(fold.learn))


@dataclass(frozen=True)
class CohortLoader:
    cohort: Path
    fold: int

    def __call__(self) -> Callable[[NetworkJob], Arrays]:
        cohort = Cohort.load(self.cohort)
        fold = list(hospital_folds(cohort))[self.fold]
        return coalition_training.CoalitionTraining(learned_from(cohort, fold), CONFIG).run


def suggested(folder: Path, work: Path, cohort: Cohort, fold: Fold, count: int) -> Groups:
    """The groups of the hospitals that a fold learns from."""
    part, tasks = learned_from(cohort, fold), len(cohort.tasks)
    claim_folder(
        work, {"cohort": cohort.digest, "fold": fold.number, "training": CONFIG.model_dump()}
    )
    jobs = coalition_training.all_jobs(tasks, count)
    running = run_jobs(jobs, work, CohortLoader(folder, fold.number))
    for _ in track(running, f"networks, fold {fold.number}", total=len(jobs)):
        pass
    return suggest(
        compute_tim(CoalitionValues(work, part), coalition_training.first_coalitions(tasks, count))
    )


def dealt(groups: Groups, tasks: Sequence[str], seed: int) -> Groups:
    """As many groups, as large, of tasks at random."""
    order = np.random.default_rng(seed).permutation(tasks).tolist()
    ends = np.cumsum([len(group) for group in groups])[:-1]
    return [part.tolist() for part in np.split(np.array(order), ends)]


def answers(cohort: Cohort, fold: Fold, groups: Groups) -> Arrays:
    """[patients, binary tasks] the log-odds of the fold's test patients."""
    net = CONFIG.net.model_copy(update={"groups": tuple(map(tuple, groups))})
    prepared = PreparedTraining(
        [learned_from(cohort, fold)], CONFIG.model_copy(update={"net": net, "patience": 8})
    )
    trainer = Trainer(prepared)
    for _ in trainer.run():
        pass
    data = SampleTensors([cohort], MODALITIES)
    with torch.no_grad():
        represented = RepresentedSamples.compute(data, prepared.encoders)
        raw, _ = ensemble_outputs(trainer.net, represented, data, fold.test)
    return {"binary": raw["binary"].numpy()}


def tested(cohort: Cohort, folds: Sequence[Fold], files: Sequence[Path]) -> Tested:
    rows = np.concatenate([fold.test for fold in folds])
    scores = np.concatenate([np.load(file)["binary"] for file in files]).astype(np.float64)
    binary = [task.name for task in cohort.tasks if task.kind == "binary"]
    return Tested(
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
    files: dict[str, list[Path]] = {way: [] for way in WAYS}
    for fold in folds:
        work = options.work / f"fold-{fold.number}"
        groups = suggested(options.cohort, work, cohort, fold, options.coalitions)
        print(
            f"fold {fold.number}: groups of {', '.join(str(len(g)) for g in groups)} tasks;", end=""
        )
        print(" alone:", ", ".join(g[0] for g in groups if len(g) == 1) or "none")
        ways = {TOGETHER: [], SUGGESTED: groups, DEALT: dealt(groups, names, fold.number)}
        for way, mine in ways.items():
            file = options.work / f"{fold.number} {way}, {options.coalitions}.npz"
            if not file.is_file():
                write_arrays(answers(cohort, fold, mine), file)
            files[way].append(file)
    compared = Compared({way: tested(cohort, folds, files[way]) for way in WAYS}, FEWEST)
    print(f"\n{len(compared.tasks)} tasks with at least {FEWEST} positives, {len(folds)} folds\n")
    print("| tasks learn | mean AUROC | above all together, 95 % interval |\n|---|---|---|")
    for way in WAYS:
        value, low, high = compared.ahead(way, TOGETHER)
        print(f"| {way} | {compared.mean[way][0]:.4f} | {value:+.4f} [{low:+.4f}, {high:+.4f}] |")


if __name__ == "__main__":
    main()
