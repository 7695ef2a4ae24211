"""Resumable jobs, and the folder that belongs to one run."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from model.errors import RunError
from model.training.processes.jobs import Arrays, claim_folder, run_jobs, write_arrays


def test_a_folder_of_another_run_is_refused(tmp_path):
    folder = tmp_path / "work"
    claim_folder(folder, {"cohort": "a", "training": {"epochs": 3}})
    write_arrays({"x": np.zeros(2)}, folder / "1.npz")
    claim_folder(folder, {"training": {"epochs": 3}, "cohort": "a"})
    with pytest.raises(RunError, match="work holds another run"):
        claim_folder(folder, {"cohort": "b", "training": {"epochs": 3}})


def test_a_folder_with_unidentified_files_is_refused(tmp_path):
    write_arrays({"x": np.zeros(2)}, tmp_path / "1.npz")
    with pytest.raises(RunError, match="holds another run"):
        claim_folder(tmp_path, {"cohort": "a"})


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Lets worker processes import this module."""
    monkeypatch.syspath_prepend(Path(__file__).parents[3])


@dataclass(frozen=True)
class _Job:
    group: str
    number: int

    @property
    def file(self) -> str:
        return f"{self.group}{self.number}.npz"


def _prepare() -> Callable[[_Job], Arrays]:
    """A worker that writes the groups of the jobs that it ran, itself included."""
    ran: list[str] = []

    def run(job: _Job) -> Arrays:
        ran.append(job.group)
        return {"ran": np.array(ran)}

    return run


def test_each_job_runs_once_and_a_finished_one_never_again(tmp_path):
    jobs = [_Job(group, number) for number in range(2) for group in "abc"]
    first = list(run_jobs(jobs[:2], tmp_path, _prepare))
    assert sorted(job.file for job, _ in first) == ["a0.npz", "b0.npz"]
    assert all(ran for _, ran in first)
    again = list(run_jobs(jobs, tmp_path, _prepare))
    assert [job for job, ran in again if not ran] == jobs[:2]
    assert {job for job, ran in again if ran} == set(jobs[2:])


def test_a_worker_runs_the_jobs_of_a_group_one_after_another(tmp_path):
    jobs = [_Job(group, number) for number in range(3) for group in "abc"]
    list(run_jobs(jobs, tmp_path, _prepare, group=lambda job: job.group))
    orders = []
    for job in jobs:
        with np.load(tmp_path / job.file) as arrays:
            orders.append(arrays["ran"].tolist())
    longest = [o for o in orders if not any(o == p[: len(o)] and len(p) > len(o) for p in orders)]
    # A worker changes to a group that another one runs only when no other group is left.
    changes = sum(a != b for order in longest for a, b in itertools.pairwise(order))
    assert changes <= 3


def test_the_error_of_a_job_ends_the_run(tmp_path):
    with pytest.raises(ZeroDivisionError):
        list(run_jobs([_Job("a", 0)], tmp_path, _prepare_to_fail))
    assert not list(tmp_path.glob("*.npz"))


def _prepare_to_fail() -> Callable[[_Job], Arrays]:
    def run(job: _Job) -> Arrays:
        return {"x": np.array(1 // job.number)}

    return run
