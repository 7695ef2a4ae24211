"""Resumable jobs: each job writes one file, and a job whose file exists is done."""

import json
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from model.errors import RunError

Arrays = dict[str, npt.NDArray[Any]]
J = TypeVar("J", bound="Job")

IDENTITY = "of.json"


class Job(Protocol):
    """A job. Two jobs with the same `file` are the same."""

    @property
    def file(self) -> str: ...


def claim_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Makes the folder that of jobs with this identity: their cohorts and configuration.

    Raises RunError if the folder holds files of jobs with another or an unknown identity.
    """
    text = json.dumps(identity, indent=1, sort_keys=True)
    path = folder / IDENTITY
    if path.is_file():
        same = path.read_text(encoding="utf-8") == text
    else:
        same = not any(folder.glob("*.npz"))
    if not same:
        raise RunError(
            f"{folder} holds another run (other cohorts or another configuration); "
            "take another folder, or remove it to start again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{IDENTITY}.{os.getpid()}.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def run_jobs(
    jobs: Sequence[J],
    folder: Path,
    prepare: Callable[[], Callable[[J], Arrays]],
    *,
    group: Callable[[J], Hashable] = lambda job: job.file,
) -> Iterator[tuple[J, bool]]:
    """Runs the jobs that are not done, one on each core; yields each job, and whether it ran.

    `prepare` is called once in each worker process and returns the function that runs a job. A
    worker takes jobs of one `group` one after another, so that it can keep what they share.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pending = [job for job in jobs if not (folder / job.file).is_file()]
    yield from ((job, False) for job in jobs if job not in pending)
    with ExitStack() as stack:
        start = (prepare, folder)
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), _start_worker, start))
            for _ in range(min(len(os.sched_getaffinity(0)), len(pending)))
        ]
        running: dict[Future[None], tuple[J, ProcessPoolExecutor]] = {}

        def start_next(pool: ProcessPoolExecutor, last: J | None) -> None:
            if pending:
                job = _next_job(pending, group, last, [job for job, _ in running.values()])
                pending.remove(job)
                running[pool.submit(_run_job, job)] = job, pool

        for pool in pools:
            start_next(pool, None)
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job, pool = running.pop(future)
                future.result()
                start_next(pool, job)
                yield job, True


def _next_job(
    pending: Sequence[J], group: Callable[[J], Hashable], last: J | None, running: Sequence[J]
) -> J:
    """The first job of the group of `last`; else of a group that no other worker runs; else any."""
    taken = {group(job) for job in running}
    same = (job for job in pending if last is not None and group(job) == group(last))
    free = (job for job in pending if group(job) not in taken)
    return next(same, None) or next(free, None) or pending[0]


_WORKER: dict[str, Any] = {}


def _start_worker(prepare: Callable[[], Callable[[Any], Arrays]], folder: Path) -> None:
    torch.set_num_threads(1)
    _WORKER["run"], _WORKER["folder"] = prepare(), folder


def _run_job(job: Job) -> None:
    write_arrays(_WORKER["run"](job), _WORKER["folder"] / job.file)


def write_arrays(arrays: Arrays, file: Path) -> None:
    """Writes the file atomically: a killed process never leaves a partial file."""
    partial = file.with_name(f"{file.name}.partial.npz")
    content: dict[str, Any] = dict(arrays)
    np.savez(partial, **content)
    partial.replace(file)
