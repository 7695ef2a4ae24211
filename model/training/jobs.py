"""Work that takes hours, in pieces: each piece is a file, and one whose file is there is done."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from model.training.prepare import RunError

Arrays = dict[str, npt.NDArray[Any]]
J = TypeVar("J", bound="Job")

OF = "of.json"


class Job(Protocol):
    """A piece of work. Two that have the same `file` are the same."""

    @property
    def file(self) -> str: ...


def claim(folder: Path, of: Mapping[str, Any]) -> None:
    """Makes the folder one of jobs of these cohorts and this configuration.

    Raises RunError if its files are of others, or of what nobody knows.
    """
    mine = json.dumps(of, indent=1, sort_keys=True)
    told = folder / OF
    if told.is_file():
        alike = told.read_text(encoding="utf-8") == mine
    else:
        alike = not any(folder.glob("*.npz"))
    if not alike:
        raise RunError(
            f"{folder} holds another run (other cohorts or another configuration); "
            "take another folder, or remove it to start anew"
        )
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{OF}.{os.getpid()}.partial"
    partial.write_text(mine, encoding="utf-8")
    partial.replace(told)


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
