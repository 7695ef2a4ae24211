"""Training throughput of coalitions: one network after the other, and batched.

In each round the same networks of a fold are trained in both ways for a fixed number of epochs.
Batched training is compared with the loop of the same round, so that other load on the machine
affects both. The last column is the largest difference between the networks' outputs.

    python benchmarks/tim/run.py                                   # synthetic patients, on a CPU
    python benchmarks/tim/run.py --cohort runs/eicu --device cuda --networks 256
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from training import make_cohort

from model.cohorts.store import Cohort
from model.tim.coalition_training import CoalitionTraining, NetworkJob
from model.tim.coalitions import draw_coalitions
from model.training.config import TrainConfig
from model.training.processes.device import Device
from model.training.processes.jobs import Arrays

Run = Callable[[list[NetworkJob]], dict[NetworkJob, Arrays]]


def variants(training: CoalitionTraining, device: Device) -> dict[str, Run]:
    def loop(jobs: list[NetworkJob]) -> dict[NetworkJob, Arrays]:
        return {job: training.run(job) for job in jobs}

    def batched(count: int) -> Run:
        def run(jobs: list[NetworkJob]) -> dict[NetworkJob, Arrays]:
            outputs: dict[NetworkJob, Arrays] = {}
            for start in range(0, len(jobs), count):
                batch = jobs[start : start + count]
                results = training.fold_training(0).run_batched(batch, 0)
                outputs |= dict(zip(batch, results, strict=True))
            return outputs

        return run

    sizes = (64, 256) if device.torch_device.type == "cuda" else (4, 16)
    return {"loop": loop} | {f"batches of {size}": batched(size) for size in sizes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--cohort", type=Path, help="made by 'm3h-model cohort'; else synthetic")
    parser.add_argument("--networks", type=int, default=16)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    device = Device.choose(options.device)
    if device.torch_device.type == "cpu":
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        cohort = Cohort.load(options.cohort or make_cohort(Path(made)))
    config = TrainConfig(epochs=options.epochs, patience=10**6)
    training = CoalitionTraining(cohort, config, device)
    drawn = islice(draw_coalitions(len(cohort.tasks), 1, seed=0), options.networks)
    jobs = sorted((NetworkJob(0, 0, c.tasks) for c in drawn), key=lambda job: len(job.tasks))
    chosen = variants(training, device)
    training.run(jobs[0])  # prepares the fold, which is not timed
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    outputs: dict[str, dict[NetworkJob, Arrays]] = {}
    for _ in range(options.rounds):
        for name, run in chosen.items():
            start = time.perf_counter()
            outputs[name] = run(jobs)
            seconds[name].append(time.perf_counter() - start)
    print(
        f"{cohort.name} on {device}, {len(os.sched_getaffinity(0))} cores, {len(jobs)} networks of "
        f"{len(jobs[0].tasks)} to {len(jobs[-1].tasks)} tasks, {options.rounds} rounds\n"
    )
    print("| variant | networks/s | against the loop (least, most) | largest difference |")
    print("|---|---|---|---|")
    for name, durations in seconds.items():
        ratios = [a / b for a, b in zip(seconds["loop"], durations, strict=True)]
        difference = max(
            float(np.abs(outputs[name][job][key] - outputs["loop"][job][key]).max())
            for job in jobs
            for key in outputs["loop"][job]
        )
        print(
            f"| {name} | {len(jobs) / np.median(durations):.2f} | {np.median(ratios):.2f} "
            f"({min(ratios):.2f}, {max(ratios):.2f}) | {difference:.1e} |"
        )
    print(f"\n{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB at most")


if __name__ == "__main__":
    main()
