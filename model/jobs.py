"""Work that takes hours, in pieces: each piece is a file, and one whose file is there is done."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

Arrays = dict[str, npt.NDArray[Any]]
J = TypeVar("J", bound="Job")


class Job(Protocol):
    """A piece of work. Two that have the same `file` are the same."""

    @property
    def file(self) -> str: ...


def run_all(
    jobs: Sequence[J], folder: Path, prepare: Callable[[], Callable[[J], Arrays]]
) -> Iterator[tuple[J, bool]]:
    """Runs the jobs that are not done yet, one on each core; yields each, and whether it ran.

    Each of the processes prepares once, and is given what it prepared for every job.
    """
    folder.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs if not (folder / job.file).is_file()]
    yield from ((job, False) for job in jobs if job not in todo)
    workers = len(os.sched_getaffinity(0))
    start = (prepare, folder)
    with ProcessPoolExecutor(workers, get_context("spawn"), _start, start) as pool:
        running = {pool.submit(_do, job): job for job in todo}
        for done in as_completed(running):
            done.result()
            yield running[done], True


_HERE: dict[str, Any] = {}


def _start(prepare: Callable[[], Callable[[Any], Arrays]], folder: Path) -> None:
    torch.set_num_threads(1)
    _HERE["run"], _HERE["folder"] = prepare(), folder


def _do(job: Job) -> None:
    keep(_HERE["run"](job), _HERE["folder"] / job.file)


def keep(found: Arrays, file: Path) -> None:
    """Writes the file at once, so that being killed never leaves half of one."""
    partial = file.with_name(f"{file.name}.partial.npz")
    arrays: dict[str, Any] = dict(found)
    np.savez(partial, **arrays)
    partial.replace(file)
