"""Networks of coalitions are trained under equal conditions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.errors import RunError
from model.tim.coalition_training import (
    FOLDS,
    SEEDS,
    CoalitionTraining,
    NetworkJob,
    all_jobs,
    all_task_jobs,
    check_cohort,
    single_task_jobs,
)
from model.training.preparation import PreparedTraining
from model.training.processes.jobs import run_jobs
from model.training.trainer import Trainer
from tests.support.inputs.cohorts import CHOSEN, SMALL, small_cohort


def test_a_longer_run_has_all_jobs_of_a_shorter_one():
    short, long = all_jobs(5, 20), all_jobs(5, 40)
    assert len(short) == len(set(short))
    assert set(short) < set(long)
    ends = {job for f in range(FOLDS) for job in all_task_jobs(5, f)}
    ends |= {job for f in range(FOLDS) for task in range(5) for job in single_task_jobs(task, f)}
    assert len(ends) == 6 * FOLDS * SEEDS
    assert ends < set(short)


def test_a_network_of_some_tasks_starts_with_the_weights_of_the_complete_network():
    prepared = PreparedTraining([small_cohort()], SMALL)
    whole = Trainer(prepared, tasks=CHOSEN).net
    some = Trainer(prepared, tasks=CHOSEN[1:4]).net
    for one, other in zip(whole.fusion.members, some.fusion.members, strict=True):
        torch.testing.assert_close(one.project[1:4], other.project)
        torch.testing.assert_close(one.attention.query[1:4], other.attention.query)
        torch.testing.assert_close(one.heads.binary[1:3], other.heads.binary)
        torch.testing.assert_close(
            one.heads.other["length_of_stay"].weight, other.heads.other["length_of_stay"].weight
        )
        assert set(other.heads.other) == {"length_of_stay"}
    for mine, theirs in zip(whole.encoders.parameters(), some.encoders.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_network_does_not_depend_on_networks_trained_before_it():
    training = CoalitionTraining(small_cohort(), SMALL)
    job = NetworkJob(fold=1, seed=2, tasks=(0, 2, 3))
    first = training.run(job)
    training.run(NetworkJob(fold=1, seed=0, tasks=(0, 1)))
    again = CoalitionTraining(small_cohort(), SMALL).run(job)
    assert set(first) == {"raw/binary", "raw/length_of_stay", "attention"}
    assert first["attention"].shape == (3, 3)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])


def test_batched_training_gives_the_same_networks(trained, tmp_path):
    folder, cohort = trained
    jobs = [job for job in all_jobs(len(CHOSEN), 120) if job.fold == 3 and job.seed < 2]
    done = jobs[0]
    (tmp_path / done.file).write_bytes((folder / done.file).read_bytes())
    ran = dict(CoalitionTraining(cohort, SMALL).run_batched(jobs, tmp_path))
    assert ran == {job: job != done for job in jobs}
    for job in jobs:
        with np.load(folder / job.file) as one, np.load(tmp_path / job.file) as other:
            assert set(one.files) == set(other.files)
            for name in one.files:
                # Adam turns rounding in gradients that are nearly 0 into steps.
                np.testing.assert_allclose(other[name], one[name], atol=3e-3)


def test_a_network_with_a_file_is_not_trained_again(trained):
    folder, _ = trained

    def nothing():
        raise AssertionError("no process should be started")

    jobs = all_jobs(len(CHOSEN), 120)
    assert [ran for _, ran in run_jobs(jobs, folder, nothing)] == [False] * len(jobs)


def test_a_cohort_that_the_model_was_not_trained_on_is_refused():
    cohort = small_cohort()
    facts = PreparedTraining([cohort], SMALL).facts
    check_cohort(facts, cohort)
    with pytest.raises(RunError, match="was not trained on made"):
        check_cohort(facts, replace(cohort, digest="another"))
