"""Networks of some tasks are compared fairly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.tim.coalition_training import FOLDS, SEEDS, Games, Job, alone, check, every_job, together
from model.training.jobs import run_all
from model.training.prepare import Prepared, RunError
from model.training.train import Trainer
from tests.support.cohorts import CHOSEN, SMALL, small_cohort


def test_a_longer_run_trains_what_a_shorter_one_has_and_more():
    short, long = every_job(5, 20), every_job(5, 40)
    assert len(short) == len(set(short))
    assert set(short) < set(long)
    ends = {job for f in range(FOLDS) for job in together(5, f)}
    ends |= {job for f in range(FOLDS) for task in range(5) for job in alone(task, f)}
    assert len(ends) == 6 * FOLDS * SEEDS
    assert ends < set(short)


def test_a_network_of_some_tasks_begins_with_the_weights_that_it_has_among_all():
    prepared = Prepared([small_cohort()], SMALL)
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


def test_a_network_is_the_same_whichever_were_trained_before_it():
    games = Games(small_cohort(), SMALL)
    job = Job(fold=1, seed=2, tasks=(0, 2, 3))
    first = games.run(job)
    games.run(Job(fold=1, seed=0, tasks=(0, 1)))
    again = Games(small_cohort(), SMALL).run(job)
    assert set(first) == {"raw/binary", "raw/length_of_stay", "attention"}
    assert first["attention"].shape == (3, 3)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])


def test_networks_that_are_trained_at_once_are_the_same(trained, tmp_path):
    folder, cohort = trained
    jobs = [job for job in every_job(len(CHOSEN), 120) if job.fold == 3 and job.seed < 2]
    done = jobs[0]
    (tmp_path / done.file).write_bytes((folder / done.file).read_bytes())
    ran = dict(Games(cohort, SMALL).run_at_once(jobs, tmp_path))
    assert ran == {job: job != done for job in jobs}
    for job in jobs:
        with np.load(folder / job.file) as one, np.load(tmp_path / job.file) as other:
            assert set(one.files) == set(other.files)
            for name in one.files:
                # Adam turns rounding in gradients that are nearly 0 into steps.
                np.testing.assert_allclose(other[name], one[name], atol=3e-3)


def test_networks_that_are_there_are_not_trained_again(trained):
    folder, _ = trained

    def nothing():
        raise AssertionError("no process should be started")

    jobs = every_job(len(CHOSEN), 120)
    assert [ran for _, ran in run_all(jobs, folder, nothing)] == [False] * len(jobs)


def test_another_cohort_than_that_of_the_training_is_refused():
    cohort = small_cohort()
    facts = Prepared([cohort], SMALL).facts
    check(facts, cohort)
    with pytest.raises(RunError, match="did not learn from made"):
        check(facts, replace(cohort, digest="another"))
