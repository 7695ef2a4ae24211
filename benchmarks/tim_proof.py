"""Does TIM find what was planted? On the synthetic cohort, where it is known which tasks share a
factor, and with the labels of one task shuffled, which then can help nobody.

    python benchmarks/tim_proof.py --work runs/tim-proof                # resumes; hours on 2 cores
    python benchmarks/tim_proof.py --work runs/tim-proof --coalitions 2048
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.progress import track
from sklearn.metrics import roc_auc_score

from model import games, labels
from model.cohort import Cohort, write
from model.cohorts import Record, synthetic
from model.jobs import run_all
from model.prepare import TrainConfig
from model.synthetic_study import relations
from model.tim import matrix
from schemas.features import FeatureSpec

SHUFFLED = "malignancy"


def records(patients: int) -> Iterator[Record]:
    """The synthetic patients, with the labels of one task dealt at random."""
    every = list(synthetic.patients(patients, synthetic.SEED))
    other = np.random.default_rng(0).permutation(patients)
    for record, k in zip(every, other, strict=True):
        label = every[k].outcomes.get(SHUFFLED)
        outcomes = {name: value for name, value in record.outcomes.items() if name != SHUFFLED}
        if label is not None:
            outcomes[SHUFFLED] = label
        yield replace(record, outcomes=outcomes)


def made(folder: Path, patients: int) -> Cohort:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=synthetic.PATIENTS)
    parser.add_argument("--coalitions", type=int, default=512)
    options = parser.parse_args()
    folder = options.work / f"cohort-{options.patients}"
    cohort = made(folder, options.patients)
    tasks = cohort.tasks
    networks = options.work / f"networks-{options.patients}"
    jobs = games.every_job(len(tasks), options.coalitions)
    running = run_all(jobs, networks, games.Opened(folder, TrainConfig()))
    for _ in track(running, "networks", total=len(jobs)):
        pass
    found = matrix(networks, cohort, games.coalitions(len(tasks), options.coalitions))

    binary = np.array([task.kind == "binary" for task in tasks])
    pairs = binary[:, None] & binary & ~np.eye(len(tasks), dtype=np.bool_)
    values = np.array(found.matrix, dtype=np.float64)
    strength, related = relations(tasks)
    pairs &= ~np.isnan(values)
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
    attention = np.array(found.mean_attention, dtype=np.float64)
    certain = np.array(found.certain)
    rows = np.nansum(values, axis=1) - np.array(found.multitask_gain, dtype=np.float64)
    apart, seen = (roc_auc_score(related[pairs], m[pairs]) for m in (values, attention))
    print(f"{options.patients} patients, {options.coalitions} coalitions")
    print(f"a related pair has the larger cell: AUROC {apart:.3f} (mean attention: {seen:.3f})")
    print(f"strongest planted helper among the first three: {np.mean(top):.0%} of {len(top)} tasks")
    print(f"cells certain: {certain.sum()}; of related pairs {certain[related & pairs].sum()}")
    print(f"cells certain in the column of the shuffled task: {certain[:, shuffled].sum()}")
    print(f"rows miss their gain by at most {np.nanmax(np.abs(rows)):.1e}")


if __name__ == "__main__":
    main()
