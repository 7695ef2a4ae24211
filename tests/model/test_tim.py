"""Networks of some tasks are compared fairly, and the matrix adds up."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from model import tim
from model.evaluate import hospital_folds
from model.jobs import run_all
from model.phenotypes import explained
from model.prepare import Prepared, RunError
from model.tim import FOLDS, SEEDS, Games, Job, Patients, Worth, alone, every_job, matrix, together
from model.train import Trainer
from tests.model.made import CONFIG, NAMES, TASKS, make_cohort

CHOSEN = ("sepsis", "septic_shock", "diabetes", "length_of_stay", "phenotype")
COLUMNS = [NAMES.index(name) for name in CHOSEN]
SMALL = CONFIG.model_copy(update={"epochs": 1})


def small_cohort(count=240):
    """The made cohort with few tasks."""
    cohort = make_cohort(count)
    outcomes = cohort.samples.outcomes[:, COLUMNS]
    samples = replace(cohort.samples, outcomes=outcomes, charted=cohort.samples.charted[:, COLUMNS])
    return replace(cohort, tasks=tuple(TASKS[i] for i in COLUMNS), samples=samples)


def patients_of(outcomes, statistics=None, site=None):
    """Patients of one fold, each a site of its own unless said otherwise; the data as they are."""
    count = len(outcomes)
    site = np.arange(count) if site is None else site
    times = np.ones((1, site.max() + 1))
    statistics = np.zeros((count, 1)) if statistics is None else statistics
    return Patients(outcomes, site, times, statistics)


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


def test_a_networks_worth_is_the_metric_of_the_evaluation():
    random = np.random.default_rng(0)
    count = 400
    outcomes = np.stack(
        [
            random.random(count) < 0.3,
            random.integers(0, 3, count),
            random.lognormal(size=count),
            np.full(count, np.nan),
        ],
        axis=1,
    ).astype(float)
    outcomes[:50, :2] = np.nan
    statistics = random.normal(size=(count, 4))
    tests = patients_of(outcomes, statistics)
    known = ~np.isnan(outcomes[:, 0])
    by_kind = {task.kind: task for task in TASKS}

    score = random.normal(size=count) + np.nan_to_num(outcomes[:, 0])
    (found,) = tests.worth(by_kind["binary"], 0, score)
    assert found == pytest.approx(roc_auc_score(outcomes[known, 0], score[known]))

    logits = random.normal(size=(count, 3))
    (found,) = tests.worth(by_kind["multiclass"], 1, logits)
    areas = [roc_auc_score(outcomes[known, 1] == k, logits[known, k]) for k in range(3)]
    assert found == pytest.approx(np.mean(areas))

    days = np.log(outcomes[:, 2])
    guess = days + random.normal(size=count) + 3
    (found,) = tests.worth(by_kind["regression"], 2, np.stack([guess] * 3, axis=1))
    assert found == pytest.approx(1 - np.var(days - guess) / np.var(days))

    clusters = random.normal(size=(count, 3)) + statistics[:, :3]
    (found,) = tests.worth(by_kind["clustering"], 3, clusters)
    assert found == pytest.approx(
        explained(torch.from_numpy(statistics), torch.from_numpy(clusters.argmax(1)))
    )


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression", "clustering"])
def test_a_site_that_is_drawn_twice_counts_twice(kind):
    random = np.random.default_rng(1)
    count = 120
    outcomes = random.integers(0, 2, (count, 1)).astype(float)
    statistics = random.normal(size=(count, 3))
    raw = random.normal(size=count) if kind == "binary" else random.normal(size=(count, 3))
    site, times = np.arange(count) % 6, np.array([[1, 0, 2, 3, 0, 1]], dtype=float)
    task = next(t for t in TASKS if t.kind == kind)
    weighted = Patients(outcomes, site, times, statistics).worth(task, 0, raw)
    rows = np.repeat(np.arange(count), times[0, site].astype(int))
    drawn = patients_of(outcomes[rows], statistics[rows]).worth(task, 0, raw[rows])
    np.testing.assert_allclose(weighted, drawn)


def test_what_a_fold_cannot_test_is_not_measured():
    outcomes = np.zeros((30, 1))
    score = np.random.default_rng(0).normal(size=30)
    binary = next(task for task in TASKS if task.kind == "binary")
    assert np.isnan(patients_of(outcomes).worth(binary, 0, score)).all()


def test_the_patients_part_is_as_large_as_other_patients_would_make_it():
    """The standard error by bootstrap beside that of 300 draws from a large population."""
    random = np.random.default_rng(0)
    binary = next(task for task in TASKS if task.kind == "binary")

    def draw(count):
        health = random.normal(size=count)
        outcome = (random.random(count) < 1 / (1 + np.exp(-health - 0.5))).astype(float)
        one, other = (health + random.normal(size=count) * noise for noise in (1.0, 1.2))
        return outcome[:, None], one, other

    def gain(outcomes, one, other, times):
        tests = Patients(outcomes, np.arange(len(outcomes)), times, np.zeros((len(outcomes), 1)))
        return tests.worth(binary, 0, one) - tests.worth(binary, 0, other)

    size = 150
    truth = np.std([gain(*draw(size), np.ones((1, size)))[0] for _ in range(300)])
    told = []
    for _ in range(20):
        times = random.multinomial(size, np.full(size, 1 / size), 200).astype(float)
        told.append(np.std(gain(*draw(size), times)))
    assert np.mean(told) == pytest.approx(truth, rel=0.15)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Networks of five tasks, hardly trained."""
    folder, cohort = tmp_path_factory.mktemp("networks"), small_cohort()
    games = Games(cohort, SMALL)
    for job in every_job(len(CHOSEN), 60):
        np.savez(folder / job.file, **games.run(job))
    return folder, cohort


def test_a_row_adds_up_to_what_learning_together_brings(trained):
    folder, cohort = trained
    found = matrix(folder, cohort, tim.coalitions(len(CHOSEN), 60), "m3h-model tim …")
    assert found.tasks == found.sources == CHOSEN
    worth = Worth(folder, cohort)
    for source, row in enumerate(found.matrix):
        assert row[source] is None
        gain = [
            np.mean([worth.of(job)[source][0] for job in together(len(CHOSEN), fold)])
            - np.mean([worth.of(job)[source][0] for job in alone(source, fold)])
            for fold in range(FOLDS)
        ]
        assert found.multitask_gain[source] == pytest.approx(np.mean(gain), abs=1e-5)
        cells = [cell for cell in row if cell is not None]
        assert sum(cells) == pytest.approx(np.mean(gain), abs=1e-4)
    ordered = np.array([found.lower, found.matrix, found.upper], dtype=float)
    off = ~np.eye(len(CHOSEN), dtype=bool)
    assert (np.diff(ordered, axis=0)[:, off] > 0).all()
    np.testing.assert_allclose(np.array(found.mean_attention).sum(1), 1, atol=1e-4)
    assert found.patients == sum(
        len(np.unique(cohort.samples.patient[fold.test])) for fold in hospital_folds(cohort)
    )


def test_networks_that_are_trained_at_once_are_the_same(trained, tmp_path):
    folder, cohort = trained
    jobs = [job for job in every_job(len(CHOSEN), 60) if job.fold == 3 and job.seed < 2]
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

    jobs = every_job(len(CHOSEN), 60)
    assert [ran for _, ran in run_all(jobs, folder, nothing)] == [False] * len(jobs)


def test_too_few_coalitions_are_refused(trained):
    folder, cohort = trained
    with pytest.raises(ValueError, match="too few to tell 4 tasks apart"):
        matrix(folder, cohort, tim.coalitions(len(CHOSEN), 4))


def test_another_cohort_than_that_of_the_training_is_refused():
    cohort = small_cohort()
    facts = Prepared([cohort], SMALL).facts
    tim.check(facts, cohort)
    with pytest.raises(RunError, match="did not learn from made"):
        tim.check(facts, replace(cohort, digest="another"))
