"""Training throughput: samples and patients per second, with one process and with several.

Each process trains its own member, as with `torchrun … m3h-model train`. The settings alternate in
each round and are compared with the first setting of the round, so that other load on the machine
affects all of them. A timed epoch includes the held-out loss; the first epoch is not timed. On CUDA
each number of processes runs in fp32 and in bf16.

    python benchmarks/training.py --processes 2                    # synthetic patients
    python benchmarks/training.py --cohort runs/eicu --processes 8 --device cuda
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.cohorts import labels, synthetic
from model.cohorts.store import Cohort, write
from model.training.config import TrainConfig
from model.training.preparation import PreparedTraining
from model.training.processes.device import Device
from model.training.processes.distributed import join_process_group
from model.training.trainer import Trainer
from schemas.features import FeatureSpec


@dataclass(frozen=True)
class Setting:
    """`threads`: of each process."""

    processes: int
    threads: int
    precision: str


def settings(most: int, device: Device) -> list[Setting]:
    cores = len(os.sched_getaffinity(0))
    if device.torch_device.type == "cuda":
        numbers = [(n, max(1, cores // n)) for n in (1, most)]
        precisions = ["fp32", "bf16"] if device.bf16 else ["fp32"]
    else:
        numbers = [(1, 1), (1, cores), (most, max(1, cores // most))]
        precisions = ["fp32"]
    every = [Setting(n, threads, p) for p in precisions for n, threads in numbers]
    return list(dict.fromkeys(every))


def measure(options: argparse.Namespace) -> None:
    """Trains a member in one process, and writes its throughput."""
    with join_process_group() as processes:
        device = Device.choose(options.device, processes)
        device = Device(device.torch_device, options.precision == "bf16", device.sharers)
        # The same number of members in all settings, so that each has as many patients.
        config = TrainConfig(members=options.processes, epochs=1 + options.epochs, patience=10**6)
        cohort = Cohort.load(options.cohort)
        prepared = PreparedTraining([cohort], config, device=device, processes=processes)
        learn = prepared.splits[processes.rank][0]
        start = 0.0
        for epoch in Trainer(prepared).run():
            if epoch.number == 1:
                processes.barrier()
                start = time.perf_counter()
            elif epoch.number == config.epochs:
                break
        seconds = (time.perf_counter() - start) / options.epochs
        on_gpu = device.torch_device.type == "cuda"
        results = {
            "samples": len(learn) / seconds,
            "patients": len(np.unique(prepared.data.samples.patient[learn])) / seconds,
            "host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "device": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0.0,
        }
        out = options.measure / f"{processes.rank}.json"
        out.write_text(json.dumps(results), encoding="utf-8")
        processes.barrier()


def run(setting: Setting, options: argparse.Namespace, cohort: Path) -> dict[str, float]:
    """The summed throughput of the processes, and the largest memory of one, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        child: dict[str, Any] = {
            "measure": folder,
            "cohort": cohort,
            "device": options.device,
            "precision": setting.precision,
            "processes": options.processes,
            "epochs": options.epochs,
        }
        arguments = [text for name, value in child.items() for text in (f"--{name}", str(value))]
        subprocess.run(
            [sys.executable, *launch, str(setting.processes), __file__, *arguments],
            env={**os.environ, "OMP_NUM_THREADS": str(setting.threads)},
            check=True,
        )
        results = [json.loads(file.read_text("utf-8")) for file in Path(folder).glob("*.json")]
    summed = {name: sum(result[name] for result in results) for name in ("samples", "patients")}
    return summed | {name: max(result[name] for result in results) for name in ("host", "device")}


def table(chosen: list[Setting], rounds: list[list[dict[str, float]]]) -> str:
    """Medians over the rounds; each ratio is within a round."""
    head = (
        "processes",
        "threads each",
        "precision",
        "samples/s",
        "patients/s",
        "against the first (least, most)",
        "host MiB each",
        "GPU MiB each",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for i, setting in enumerate(chosen):
        results = [results[i] for results in rounds]
        median = {name: float(np.median([r[name] for r in results])) for name in results[0]}
        ratios = [results[i]["samples"] / results[0]["samples"] for results in rounds]
        lines.append(
            f"| {setting.processes} | {setting.threads} | {setting.precision} "
            f"| {median['samples']:.0f} | {median['patients']:.0f} "
            f"| {np.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f}) "
            f"| {median['host']:.0f} | {median['device']:.0f} |"
        )
    return "\n".join(lines)


def make_cohort(folder: Path) -> Path:
    records = synthetic.patients(synthetic.PATIENTS, synthetic.SEED)
    made_by, spec = (synthetic, labels), FeatureSpec.default()
    source = synthetic.SOURCE
    for _ in write(records, folder, name="synthetic", source=source, made_by=made_by, spec=spec):
        pass
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--cohort", type=Path, help="made by 'm3h-model cohort'; else synthetic")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs")
    parser.add_argument("--rounds", type=int, default=3)
    # The options with which this program starts itself in each process.
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        measure(options)
        return
    device = Device.choose(options.device)
    chosen = settings(options.processes, device)
    with tempfile.TemporaryDirectory() as made:
        cohort = options.cohort or make_cohort(Path(made))
        rounds = [[run(s, options, cohort) for s in chosen] for _ in range(options.rounds)]
    print(
        f"{cohort.name if options.cohort else 'synthetic'} on {device.torch_device.type}, "
        f"{len(os.sched_getaffinity(0))} cores, {options.rounds} rounds\n"
    )
    print(table(chosen, rounds))


if __name__ == "__main__":
    main()
