"""The study and its report: metrics, intervals over hospitals, and the rendered text."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from model.cli.study_commands import evaluate
from model.cohorts.store import CohortError
from model.evaluation.bootstrap import (
    by_thirds,
    rank_correlation,
    replicate_weights,
)
from model.evaluation.calibration_metrics import (
    observed_to_expected,
    recalibration_effect,
)
from model.evaluation.metrics import attention_entropy
from model.evaluation.report import SECTIONS, write_report
from model.evaluation.sections import ENSEMBLE_NAMES, MODEL_NAMES, SINGLE_NAMES
from model.evaluation.sections.markdown import with_interval
from model.evaluation.study import (
    FOLDS,
    Job,
    OpenStudy,
    Study,
    image_study,
)
from model.evaluation.study.jobs import BASELINE_NAMES, MASKED, SINGLE_TASK, every_job
from model.training.processes.jobs import run_jobs, write_arrays
from schemas.evaluation import Evaluation
from tests.model.tim.test_synthetic_study import write_seeds
from tests.support.inputs.cohorts import CONFIG, TASKS, make_cohort, save
from tests.support.inputs.predictions import predictions

BINARY = [t.name for t in TASKS if t.kind == "binary"]


MADE_JOBS = every_job(external=True, masked=True)


def masked_cohort():
    """The made cohort; two phrases of every third patient count as masked."""
    cohort = make_cohort()
    taken = np.where(np.arange(len(cohort.samples)) % 3 == 0, 2, 0).astype(np.int32)
    return replace(cohort, name="masked", samples=replace(cohort.samples, masked=taken))


@pytest.fixture(scope="module")
def made():
    return make_cohort(), make_cohort(100, name="other", seed=1), masked_cohort()


@pytest.fixture(scope="module")
def partial_study(made, tmp_path_factory):
    """A study with a few jobs run: mostly M3H and logistic regression on measured inputs."""
    folder = tmp_path_factory.mktemp("study")
    cohort, other, masked = made
    config = CONFIG.model_copy(update={"epochs": 1})
    study = Study(cohort, other, config, {}, masked)
    jobs = [Job("m3h", "measured", f) for f in FOLDS]
    jobs += [Job("logistic_regression", "measured", f) for f in FOLDS]
    jobs += [Job("m3h", "measured", "external"), Job("lightgbm", "measured", "external")]
    jobs += [Job(m, MASKED, "0") for m in ("m3h", "logistic_regression")]
    for job in jobs:
        np.savez(folder / job.file, **study.run(job))
    return folder, jobs


@pytest.fixture(scope="module")
def complete_study(made, partial_study, tmp_path_factory):
    """A study with every job run: the predictions of M3H, with other noise for each job."""
    folder = tmp_path_factory.mktemp("whole")
    cohort, other, _ = made
    for number, job in enumerate(MADE_JOBS):
        draw = np.random.default_rng(number)
        with np.load(partial_study[0] / Job("m3h", "measured", job.fold).file) as predicted:
            outputs = {name: predicted[name] for name in predicted.files}
        samples = (other if job.fold == "external" else cohort).samples
        columns = [i for i, t in enumerate(TASKS) if t.kind == "binary"]
        outcome = samples.outcomes[outputs["rows"]][:, columns]
        for name in ("output/binary", "one/binary"):
            log_odds = 2 * outcome - 2 + draw.normal(0, 1.5, outcome.shape)
            outputs[name] = 1 / (1 + np.exp(-log_odds))
        if job.model in BASELINE_NAMES:
            outputs = {
                n: outputs[n] for n in ("rows", "output/binary", "output/discharge_disposition")
            }
        np.savez(folder / job.file, **outputs)
    write_seeds(folder, 0.8)
    config = CONFIG.model_copy(update={"epochs": 1})
    images = image_study.ImageStudy(cohort, config)
    for job in image_study.JOBS:
        write_arrays(images.run(job), folder / job.file)
    return folder


def test_a_finished_job_is_not_run_again(partial_study):
    folder, jobs = partial_study
    nowhere = folder / "no-cohort"
    opened = OpenStudy(nowhere, None, CONFIG, {})
    assert [ran for _, ran in run_jobs(jobs, folder, opened)] == [False] * len(jobs)


def test_the_report_lists_the_sections_without_predictions(made, partial_study, tmp_path):
    cohort, other, masked = made
    write_report(partial_study[0], cohort, other, tmp_path, masked)
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["measured"]["models"]) == {"m3h", "m3h_one", "logistic_regression"}
    assert set(results["measured_external"]["models"]) == {"m3h", "m3h_one", "lightgbm"}
    assert "m3h_ahead_by" in results["measured"]["models"]["logistic_regression"]
    assert "learning_curve" not in results
    text = (tmp_path / "results.md").read_text()
    assert "Not yet run: shared trunk, no attention" in text
    missing = text.split("## Not in this report")[1]
    assert "- Learning curve: m3h-measured-0.1-0" in missing
    assert "Vital signs" not in missing


def test_a_report_alone_trains_nothing(made, tmp_path):
    folders = [tmp_path / name for name in ("cohort", "work", "report")]
    save(made[0], folders[0])
    evaluate(*folders, None, None, None, None, None, report_only=True)
    assert "has not yet tested M3H" in (folders[2] / "results.md").read_text()
    assert not [*folders[1].glob("*.npz")]


@pytest.fixture(scope="module")
def report(made, complete_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    cohort, other, masked = made
    write_report(complete_study, cohort, other, folder, masked)
    results = json.loads((folder / "results.json").read_text())
    return folder, (folder / "results.md").read_text(), results


def test_a_complete_study_fills_every_section(report):
    folder, text, results = report
    assert "Not in this report" not in text
    assert not re.search(r"\bnan\b|None", text)
    assert list(results) == [section.name for section in SECTIONS]
    drawn = set(re.findall(r"\((\w+\.png)\)", text))
    assert drawn == {path.name for path in folder.glob("*.png")}
    assert all(5_000 < (folder / name).stat().st_size < 150_000 for name in drawn)


def test_the_summary_comes_first_and_holds_the_figures(report):
    _, text, results = report
    answer = " ".join(text.split("**How to read it.**")[0].split())
    for name in ("measured", "all", "measured_external", "all_external"):
        assert with_interval(results[name]["models"]["m3h"]["auroc"]) in answer
    ahead = results["all"]["models"]["lightgbm_bag"]["m3h_ahead_by"]
    assert f"bagged LightGBM ({with_interval(ahead, '+')})" in answer
    gain = results["measured"]["gain_of_one_network"]
    assert f"one network for each task alone: {with_interval(gain, '+')}." in answer


def test_the_shared_trunk_is_in_the_first_paragraph(report):
    _, text, results = report
    answer = " ".join(text.split("**How to read it.**")[0].split())
    for name in ("measured", "all"):
        ahead = results[name]["models"]["shared_trunk"]["m3h_ahead_by"]
        assert (
            f"without attention between tasks (a shared trunk) ({with_interval(ahead, '+')})"
            in (answer)
        )


def test_diseases_first_charted_later_are_the_first_endpoint(report):
    _, text, results = report
    assert next(iter(results)) == "charted_later"
    answer = " ".join(text.split("**How to read it.**")[0].split())
    later = results["charted_later"]
    figure = with_interval(later["all"]["models"]["m3h"]["charted_later"])
    assert answer.index(figure) < answer.index(
        with_interval(results["all"]["models"]["m3h"]["auroc"])
    )
    assert later["all"]["models"].keys() == MODEL_NAMES.keys()
    assert later["all"]["by_task"].keys() == later["all"]["positives"].keys()
    assert text.index("## Diseases first charted later") < text.index("## Vital signs")


def test_like_is_compared_with_like(report):
    _, _, results = report
    for name in ("measured", "all", "measured_external", "all_external"):
        models = results[name]["models"]
        # On another database, single-task networks are single.
        untrained = {SINGLE_TASK} if name.endswith("_external") else set()
        assert models.keys() == MODEL_NAMES.keys() - untrained
        ensembles = {m for m, figures in models.items() if "m3h_ahead_by" in figures}
        single = {m for m, figures in models.items() if "one_network_ahead_by" in figures}
        assert ensembles == ENSEMBLE_NAMES.keys() - {"m3h"} - untrained
        assert single == SINGLE_NAMES.keys() - {"m3h_one"}
        aurocs = {m: figures["auroc"][0] for m, figures in models.items()}
        ahead = aurocs["m3h_one"] - aurocs["single_task_one"]
        assert models["single_task_one"]["one_network_ahead_by"][0] == pytest.approx(
            ahead, abs=2e-4
        )
    assert results["masked"]["models"].keys() == {"m3h_one", "lightgbm", "logistic_regression"}
    assert set(results["learning_curve"]["points"][0]) >= {"m3h_one", "single_task_one"}


def test_the_report_tells_how_much_of_the_notes_was_masked(report):
    _, text, results = report
    assert (results["masked"]["phrases"], results["masked"]["stays_touched"]) == (160, 80)
    assert "160 phrases of 80 of the 240 stays" in " ".join(text.split())


def test_calibration_is_told_for_each_task_and_each_subset_of_modalities(report):
    _, text, results = report
    acting = results["acting"]
    assert acting["by_task"].keys() == acting["display"].keys()
    assert len(acting["by_task"]) == acting["tasks"]
    assert set(acting["by_subset"]) == {"tabular", "series"}
    flat = " ".join(text.split())
    for task, figures in acting["by_task"].items():
        row = f"| {acting['display'][task]} | {figures['positives']} | {figures['slope']:.2f} |"
        assert row in flat
    measured, both = (f["summary"]["share_within"]["slope"] for f in (acting["measured"], acting))
    assert f"a slope from 0.8 to 1.25 | {measured:.2f} | {both:.2f} |" in flat


def test_alerts_are_told_for_each_task_and_threshold(report):
    _, text, results = report
    decisions = results["decisions"]["all"]
    assert decisions["by_task"].keys() == decisions["display"].keys() == set(BINARY)
    for task, figures in decisions["by_task"].items():
        assert figures["points"]["sensitivity_80"]["sensitivity"] >= 0.8
        assert figures["points"]["alerts_10"]["alerts_per_100"] <= 10
        assert f"| {decisions['display'][task]} | {figures['positives']} | 0." in text
    mean = decisions["mean"]["sensitivity_80"]
    assert f"| all inputs | sensitivity 0.8 | {mean['sensitivity']:.2f} |" in text
    assert "decisions" in Evaluation.model_validate(results).model_fields_set


def test_small_groups_are_marked(report):
    _, text, results = report
    sizes = {n: g["stays"] for by in results["groups"].values() for n, g in by.items()}
    small = {n for by in results["groups"].values() for n, g in by.items() if g["small"]}
    assert small == {name for name, stays in sizes.items() if stays < 100}
    assert all(f"| {name} (small) |" in text for name in small)


def test_a_masked_cohort_of_other_records_is_refused(made):
    cohort, other, masked = made
    with pytest.raises(CohortError, match="do not hold the same records"):
        Study(cohort, None, CONFIG, {}, other)
    shuffled = replace(masked, samples=masked.samples.take(np.arange(240)[::-1]))
    with pytest.raises(CohortError, match="do not hold the same records"):
        Study(cohort, None, CONFIG, {}, shuffled)


def test_a_disease_charted_before_is_no_label_of_charted_later():
    tested = predictions(0.5)
    charted = np.where(
        tested.outcome == 1, np.where(np.arange(600) % 2, 5.0, -5.0)[:, None], np.nan
    )
    later = tested.charted_later(charted)
    disease = tested.column("sepsis")
    had, before = tested.outcome[:, disease] == 1, charted[:, disease] < 0
    assert np.isnan(later.outcome[had & before, disease]).all()
    assert (later.outcome[had & ~before, disease] == 1).all()
    assert (later.outcome[~had, disease] == 0).all()
    assert np.isnan(later.outcome[:, tested.column("in_hospital_mortality")]).all()


def test_few_local_patients_correct_a_shifted_prevalence():
    right = predictions(0.0)
    away = {n: 1 / (1 + np.exp(-np.log(p / (1 - p)) + 1.5)) for n, p in right.scores.items()}
    shifted = replace(right, scores=away)
    figures = recalibration_effect(shifted, ["sepsis", "anemia", "diabetes"], patients=25, splits=4)
    assert figures["before"]["intercept"][0] > 1.2
    assert abs(figures["after"]["intercept"][0]) < 0.2
    assert figures["after"]["calibration_error"][0] < figures["before"]["calibration_error"][0] / 3
    assert figures["brier_skill_rises"] == 1


def test_calibrated_probabilities_have_an_observed_to_expected_ratio_of_one():
    tested = predictions(0.0)
    weight = replicate_weights(tested.site, tested.fold)
    value, low, high = observed_to_expected(tested, ["sepsis", "anemia"], weight)
    assert low < 1 < high
    assert value == pytest.approx(1, abs=0.1)


def test_a_gain_that_follows_prevalence_has_rank_correlation_one_and_rises_by_thirds():
    share = {f"t{i}": 0.1 * i for i in range(9)}
    rising = {t: np.full(11, s) for t, s in share.items()}
    assert rank_correlation(list(rising.values()), np.array(list(share.values())))[0] == 1
    thirds = by_thirds(rising, share)
    assert [part["gain"][0] for part in thirds] == pytest.approx([0.1, 0.4, 0.7])


def test_uniform_attention_has_entropy_one_and_attention_to_one_task_zero():
    assert attention_entropy(np.full((4, 4), 0.25)) == pytest.approx(np.ones(4))
    assert attention_entropy(np.eye(4)) == pytest.approx(np.zeros(4), abs=1e-9)
