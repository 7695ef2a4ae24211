"""Cross-validation by patient, for a cohort of one hospital."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from model.cli import cross_validation_command
from model.cli.main import app
from model.cohorts.store import CohortError
from model.evaluation.study import cross_validation
from model.evaluation.study.cross_validation import FOLDS, JOBS, MODELS, CrossValidation
from model.evaluation.task_calibration import calibration_intercept, calibration_slope
from model.training.processes.jobs import write_arrays
from tests.support.inputs.cohorts import CONFIG, make_cohort, save

QUICK = CONFIG.model_copy(
    update={"epochs": 2, "members": 2, "learning_rate": 0.01, "averaging": 0.8}
)
TASKS = ("diabetes", "sepsis", "length_of_stay", "phenotype")


@pytest.fixture(scope="module")
def cohort():
    """Two landmarks of each of 150 patients of one hospital, with labels of TASKS.

    Diabetes depends on the first variable, sepsis on nothing.
    """
    made = make_cohort(300)
    landmark = np.tile([12, 24], 150).astype(np.float32)
    present = made.samples.present & [True, True, False, False]
    pixels = made.samples.pixels[:0]
    samples = replace(made.samples, landmark=landmark, present=present, pixels=pixels)
    samples = replace(samples, site=np.full(300, "one"))
    unlabelled = [task.name not in TASKS for task in made.tasks]
    samples.outcomes[:, unlabelled] = np.nan
    return replace(made, samples=samples)


@pytest.fixture(scope="module")
def work(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    validation = CrossValidation(cohort, QUICK, 24.0)
    for job in JOBS:
        write_arrays(validation.run(job), folder / job.file)
    return folder


def test_each_patient_is_tested_once_at_the_landmark_by_models_of_other_patients(cohort, work):
    for model in MODELS:
        rows = [np.load(work / f"{model}-{fold}.npz")["rows"] for fold in range(FOLDS)]
        at_landmark = np.flatnonzero(cohort.samples.landmark == 24)
        np.testing.assert_array_equal(np.sort(np.concatenate(rows)), at_landmark)


def test_a_model_learns_nothing_from_the_tested_patients(cohort, work):
    job = JOBS[0]
    tested = np.load(work / job.file)["rows"]
    patients = np.isin(cohort.samples.patient, cohort.samples.patient[tested])
    outcomes = np.where(patients[:, None], 1 - cohort.samples.outcomes, cohort.samples.outcomes)
    changed = replace(cohort, samples=replace(cohort.samples, outcomes=outcomes))
    for job in JOBS[::FOLDS]:
        again = CrossValidation(changed, QUICK, 24.0).run(job)
        np.testing.assert_array_equal(again["binary"], np.load(work / job.file)["binary"])


def test_the_figures_tell_what_can_be_predicted_from_what_cannot(cohort, work):
    figures = cross_validation.summarise(work, cohort)
    assert figures.keys() == {"diabetes", "sepsis"}
    for model in MODELS:
        diabetes, sepsis = figures["diabetes"][model], figures["sepsis"][model]
        assert diabetes["auroc"][0] > 0.85
        assert sepsis["auroc"][1] < 0.6
        assert diabetes["patients"] == 150
        for name in ("auroc", "slope", "intercept"):
            figure, low, high = diabetes[name]
            assert low <= figure <= high
    assert "ahead_by" not in figures["diabetes"]["m3h"]


def test_a_cohort_without_the_landmark_or_with_few_patients_is_refused(cohort):
    with pytest.raises(CohortError, match="no sample at 48 h"):
        CrossValidation(cohort, QUICK, 48.0)
    few = replace(cohort, samples=cohort.samples.take(np.arange(40)))
    with pytest.raises(CohortError, match="20 patients, too few"):
        CrossValidation(few, QUICK, 24.0)


def test_the_command_prints_the_figures_and_does_not_run_finished_jobs_again(
    cohort, work, tmp_path, monkeypatch
):
    save(cohort, tmp_path / "cohort")

    def run_jobs(jobs, folder, _):
        for job in jobs:
            (folder / job.file).write_bytes((work / job.file).read_bytes())
            yield job, False

    monkeypatch.setattr(cross_validation_command, "run_jobs", run_jobs)
    command = f"cross-validate --cohort {tmp_path / 'cohort'} --work {tmp_path / 'work'}"
    done = CliRunner().invoke(app, [*command.split(), "--out", str(tmp_path / "figures.json")])
    assert done.exit_code == 0, done.output
    assert "diabetes: " in done.output
    assert all(model in done.output for model in MODELS)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["sepsis"]["lightgbm"]["patients"] == 150
    done = CliRunner().invoke(app, [*command.split(), "--hours", "12"])
    assert done.exit_code == 2
    assert "holds another run" in done.output.replace("\n", "")


def test_intervals_of_the_calibration_are_around_the_figures_of_the_report():
    draw = np.random.default_rng(0)
    z = draw.normal(-1.5, 1.2, 2000)
    y = (draw.random(2000) < 1 / (1 + np.exp(-(0.3 + 0.7 * z)))).astype(float)
    p = 1 / (1 + np.exp(-z))
    weight = draw.multinomial(2000, np.full(2000, 1 / 2000), 200).astype(float)
    weight[0] = 1
    slope, intercept = cross_validation._calibration_intervals(p, y, weight)
    assert slope[0] == pytest.approx(calibration_slope(z, y), abs=1e-3)
    assert intercept[0] == pytest.approx(calibration_intercept(z, y), abs=1e-3)
    assert slope[1] < 0.7 < slope[2] < slope[1] + 0.3
