"""The jobs of the study: splits, members, parts, tuning."""

import numpy as np
import pytest

from model.errors import RunError
from model.evaluation.baselines import InputColumns, gradient_boosting
from model.evaluation.study import (
    CANDIDATES,
    EXTERNAL,
    FOLDS,
    Job,
    Study,
    choose,
    every_job,
    tuned,
)
from model.evaluation.study.jobs import (
    LIGHTGBM_BAG,
    SINGLE_TASK,
    jobs_of,
)
from model.evaluation.study.results import StudyResults
from model.evaluation.study.runner import NETWORKS, sample_patients, task_names, without_treatments
from model.training.data import SampleTensors
from model.training.preparation import member_splits
from tests.support.inputs.cohorts import CONFIG, TASKS, make_cohort

BINARY = [t.name for t in TASKS if t.kind == "binary"]


def test_no_test_hospital_is_in_the_training_data():
    cohort = make_cohort()
    made = Study(cohort, None, CONFIG, {})
    for fold in FOLDS:
        split = made._split(Job("m3h", "all", fold))
        learned, tested = (set(cohort.samples.site[r]) for r in (split.learn, split.test))
        assert not learned & tested


def test_without_treatments_removes_all_treatments():
    cohort = make_cohort()
    assert not without_treatments(cohort).samples.treatments.any()
    assert cohort.samples.treatments.any()


def test_a_larger_share_of_patients_contains_the_smaller_share():
    samples = make_cohort().samples
    rows = np.arange(len(samples))
    few, more = (sample_patients(samples, rows, share) for share in (0.25, 0.5))
    assert len(np.unique(samples.patient[few])) == 30
    assert set(few) < set(more)


def test_only_compared_models_are_ensembles():
    made = Study(make_cohort(), None, CONFIG, {})
    ensembles = {
        (job.model, job.inputs, job.share, job.fold == EXTERNAL)
        for job in every_job(external=True, masked=True)
        if job.model in NETWORKS and made.members(job) > 1
    }
    compared = ("m3h", "shared_trunk", SINGLE_TASK)
    expected = {(m, i, 1.0, x) for m in compared for i in ("measured", "all") for x in (0, 1)}
    # Single-task ensembles on another database are left out: they take long.
    assert ensembles == expected - {(SINGLE_TASK, i, 1.0, True) for i in ("measured", "all")}


def test_single_task_networks_predict_every_task():
    made = Study(make_cohort(200), None, CONFIG.model_copy(update={"epochs": 1}), {})
    outputs = made.run(Job(SINGLE_TASK, "measured", "0"))
    assert outputs["output/binary"].shape == (len(outputs["rows"]), len(BINARY))
    assert outputs["output/length_of_stay"].shape[1] == 3


def test_candidates_are_scored_on_hospitals_that_never_test_them(tmp_path):
    cohort = make_cohort(400)
    made = Study(cohort, None, CONFIG.model_copy(update={"epochs": 1}), {})
    tested_by = made._split(Job("m3h", "measured", "0")).test
    for number, _ in enumerate(CANDIDATES["logistic_regression"]):
        job = Job("logistic_regression", "measured", "0", candidate=number)
        outputs = made.run(job)
        scoring_sites = cohort.samples.site[outputs["rows"]]
        assert not set(scoring_sites) & set(cohort.samples.site[tested_by])
        np.savez(tmp_path / job.file, **outputs)
    chosen = choose(tmp_path, cohort)
    assert set(chosen) == {"logistic_regression"}
    number = chosen["logistic_regression"]["measured"]["0"]
    after = Study(cohort, None, CONFIG, chosen)
    job = Job("logistic_regression", "measured", "0")
    assert after.settings(job) == CANDIDATES["logistic_regression"][number]


def test_the_tuned_config_is_that_of_the_external_model():
    number = next(k for k, settings in enumerate(CANDIDATES["m3h"]) if settings.keys() == {"batch"})
    chosen = {"m3h": {"all": {"0": 0, EXTERNAL: number}}}
    config = tuned(CONFIG, chosen)
    assert config == CONFIG.model_copy(update=CANDIDATES["m3h"][number])
    study = Study(make_cohort(), None, CONFIG, chosen)
    assert study.network_config(Job("m3h", "all", EXTERNAL)) == config
    with pytest.raises(RunError, match="--external"):
        tuned(CONFIG, {"m3h": {"all": {"0": 0}}})


def test_every_model_has_the_same_number_of_candidates():
    assert len({len(candidates) for candidates in CANDIDATES.values()}) == 1


def test_shared_trunk_differs_from_m3h_only_in_attention():
    made = Study(make_cohort(), None, CONFIG, {})
    m3h, trunk = (made.network_config(Job(m, "all", "0")) for m in ("m3h", "shared_trunk"))
    assert trunk.net.attention == "none"
    same = trunk.net.model_copy(update={"attention": "balanced"})
    assert trunk.model_copy(update={"net": same}) == m3h


def test_the_parts_of_an_ensemble_for_each_task_alone_have_every_task_once():
    made = Study(make_cohort(), None, CONFIG, {})
    jobs = jobs_of(SINGLE_TASK, "all", "0")
    parts = [task_names(job, TASKS) for job in jobs]
    assert len(jobs) == len({job.file for job in jobs}) == 4
    assert sorted(name for part in parts for name in part) == sorted(
        t.name for t in TASKS if t.kind != "clustering"
    )
    assert all(made.members(job) == CONFIG.members for job in jobs)
    (one,) = jobs_of(SINGLE_TASK, "all", "0", share=0.5)
    assert made.members(one) == 1


def test_the_parts_of_a_job_are_read_as_one(tmp_path):
    cohort = make_cohort()
    rows = np.arange(240)
    for fold in FOLDS:
        for number, job in enumerate(jobs_of(SINGLE_TASK, "measured", fold)):
            binary = np.full((240, len(BINARY)), np.nan)
            binary[:, number::4] = (number + 1) / 10
            outputs = {"output/binary": binary, "one/binary": binary / 2}
            if number == 3:
                outputs["output/length_of_stay"] = np.ones((240, 3))
            np.savez(tmp_path / job.file, rows=rows, **outputs)
    study = StudyResults(tmp_path, cohort, None)
    together = study.predictions(SINGLE_TASK, "measured")
    assert [together.scores[name][0] for name in BINARY[:5]] == [0.1, 0.2, 0.3, 0.4, 0.1]
    assert together.scores["length_of_stay"].shape == (1200, 3)
    one = study.predictions(f"{SINGLE_TASK}_one", "measured")
    assert one.scores[BINARY[1]][0] == 0.1


def test_the_members_of_a_bag_learn_from_the_hospitals_of_the_networks_members():
    cohort = make_cohort(400)
    made = Study(cohort, None, CONFIG, {})
    job = Job(LIGHTGBM_BAG, "measured", "0")
    split = made._split(job)
    part = cohort.samples.take(split.learn)
    data = SampleTensors([without_treatments(cohort)], ("tabular", "series"))
    members = []
    for rows, held_out in member_splits(part, CONFIG.members, CONFIG.seed):
        learn = split.learn[rows]
        assert not set(part.site[held_out]) & set(cohort.samples.site[learn])
        inputs = InputColumns(data, split.learn, cohort.spec.vocabulary)
        fitted = gradient_boosting(inputs, data, TASKS, learn, made.settings(job))
        members.append(fitted(data, split.test)["binary"])
    assert len(members) == CONFIG.members
    bag = Study(cohort, None, CONFIG, {}).run(job)["output/binary"]
    np.testing.assert_allclose(bag, np.mean(members, axis=0))
    assert np.abs(bag - members[0]).max() > 0.01
