"""The study of images alone: split by patient, nothing but the image."""

from dataclasses import replace

import numpy as np
import pytest

from model.cohorts.store import CohortError
from model.evaluation.study import image_study
from model.training.processes.jobs import write_arrays
from tests.support.inputs.cohorts import CONFIG, NAMES, make_cohort

SMALL = CONFIG.model_copy(update={"epochs": 30, "learning_rate": 0.01, "averaging": 0.8})
FINDINGS = ("pleural_effusion", "pneumonia")


def films(count=240):
    """A cohort with two findings. An effusion makes the lower half of a film bright."""
    cohort = make_cohort(count)
    samples, has = cohort.samples, cohort.samples.present[:, 3]
    outcomes = np.full_like(samples.outcomes, np.nan)
    for finding in FINDINGS:
        column = NAMES.index(finding)
        outcomes[:, column] = samples.outcomes[:, column]
    effusion = outcomes[has, NAMES.index(FINDINGS[0])] == 1
    samples.pixels[:] //= 2
    samples.pixels[effusion, :, 8:] += 100
    site = np.full(count, "one")
    return replace(cohort, samples=replace(samples, outcomes=outcomes, site=site))


def run(cohort, work):
    work.mkdir(exist_ok=True)
    study = image_study.ImageStudy(cohort, SMALL)
    for job in image_study.JOBS:
        write_arrays(study.run(job), work / job.file)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    run(films(1200), folder)
    return folder


def test_a_finding_is_seen_in_the_image_of_a_new_patient(work):
    figures = image_study.summarise(work)
    effusion, low, high = figures["models"]["m3h"]["by_task"]["pleural_effusion"]
    assert low <= effusion <= high
    assert effusion > 0.9
    # The other finding is in no pixel.
    assert abs(figures["models"]["m3h"]["by_task"]["pneumonia"][0] - 0.5) < 0.2
    assert figures["display"].keys() == figures["positives"].keys() == set(FINDINGS)


def test_each_patient_is_tested_once_by_networks_of_other_patients(work):
    cohort = films(1200)
    tested = [np.load(work / f"images-{fold}.npz")["patient"] for fold in range(5)]
    together = np.concatenate(tested)
    assert sorted(together) == sorted(cohort.samples.patient[cohort.samples.present[:, 3]])
    for fold, patients in enumerate(tested):
        others = np.concatenate([p for k, p in enumerate(tested) if k != fold])
        assert not set(patients) & set(others)


def test_nothing_but_the_image_is_an_input(tmp_path):
    cohort = films(120)
    run(cohort, tmp_path / "all")
    only = cohort.samples.present & [False, False, False, True]
    run(replace(cohort, samples=replace(cohort.samples, present=only)), tmp_path / "only")
    for fold in range(5):
        all_inputs, image = (np.load(tmp_path / n / f"images-{fold}.npz") for n in ("all", "only"))
        np.testing.assert_allclose(all_inputs["output"], image["output"], atol=1e-5)


def test_a_cohort_without_images_is_refused(tmp_path):
    cohort = films(120)
    none = cohort.samples.take(np.flatnonzero(~cohort.samples.present[:, 3]))
    with pytest.raises(CohortError, match="no labelled images"):
        run(replace(cohort, samples=none), tmp_path)


def test_a_missing_fold_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"images-0\.npz"):
        image_study.summarise(tmp_path)
