"""The report's figures are what they are called, and its intervals are of hospitals."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model.cohorts.store import CohortError
from model.errors import RunError
from model.evaluation import study
from model.evaluation.measure import (
    Compared,
    Tested,
    by_thirds,
    calibration,
    calibration_error,
    entropy,
    interval,
    observed_to_expected,
    rank_correlation,
    recalibrated,
    replicate_weights,
    weighted_auroc,
)
from model.evaluation.report import SECTIONS, write
from model.evaluation.sections.markdown import with_interval
from model.evaluation.study import (
    CANDIDATES,
    EXTERNAL,
    FOLDS,
    Job,
    Opened,
    Study,
    choose,
    every_job,
    some_patients,
    tuned,
    without_treatments,
)
from model.training.jobs import run_jobs
from tests.model.tim.test_synthetic_study import write_seeds
from tests.support.cohorts import CONFIG, TASKS, make_cohort

BINARY = [t.name for t in TASKS if t.kind == "binary"]


def predictions(noise, seed=0, count=600):
    """Probabilities that follow each outcome as far as the noise lets them."""
    draw = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-draw.normal(-1, 1.5, (count, len(TASKS)))))
    outcome = (draw.random(p.shape) < p).astype(float)
    log_odds = np.log(p / (1 - p)) + np.random.default_rng(seed).normal(0, noise, p.shape)
    scores = {t.name: 1 / (1 + np.exp(-log_odds[:, i])) for i, t in enumerate(TASKS)}
    return Tested(
        tasks=tuple(t for t in TASKS if t.kind == "binary"),
        scores={name: scores[name] for name in BINARY},
        outcome=outcome[:, [i for i, t in enumerate(TASKS) if t.kind == "binary"]],
        fold=np.arange(count) % 5,
        site=np.array([f"h{i % 50}" for i in range(count)]),
        rows=np.arange(count),
        facts=(),
    )


def test_a_weighted_auroc_is_that_of_patients_who_are_there_so_many_times():
    draw = np.random.default_rng(0)
    outcome = (draw.random(200) < 0.3).astype(float)
    score = np.round(outcome + draw.normal(size=200), 1)  # with ties
    times = draw.integers(0, 4, (5, 200))
    areas, positives = weighted_auroc(outcome, score, np.arange(200), times.astype(float))
    for area, count, weight in zip(areas, times, positives, strict=True):
        expected = roc_auc_score(np.repeat(outcome, count), np.repeat(score, count))
        assert area == pytest.approx(expected)
        assert weight == np.repeat(outcome, count).sum()


def test_patients_of_a_site_count_together():
    draw = np.random.default_rng(0)
    outcome, score = (draw.random(200) < 0.3).astype(float), draw.normal(size=200)
    site, times = draw.integers(0, 9, 200), draw.integers(0, 3, (5, 9)).astype(float)
    together = weighted_auroc(outcome, score, site, times)
    apart = weighted_auroc(outcome, score, np.arange(200), times[:, site])
    np.testing.assert_allclose(together, apart)


def test_a_hospital_is_drawn_whole_and_within_its_fold():
    site = np.array([f"h{i // 3}" for i in range(60)])
    fold = np.arange(60) // 30
    weight = replicate_weights(site, fold)
    assert (weight[0] == 1).all()
    assert (weight[:, ::3] == weight[:, 1::3]).all()
    assert (weight.reshape(len(weight), 2, 30).sum(axis=2) == 30).all()


def test_a_better_model_is_ahead_and_the_interval_says_so():
    compared = Compared({"m3h": predictions(0.2), "lightgbm": predictions(2.0, seed=1)}, fewest=20)
    value, low, high = compared.ahead("m3h", "lightgbm")
    assert 0 < low < value < high
    same = Compared({"m3h": predictions(0.5, 1), "lightgbm": predictions(0.5, 2)}, fewest=20)
    _, low, high = same.ahead("m3h", "lightgbm")
    assert low < 0 < high


def test_a_relative_gain_is_the_mean_of_each_tasks():
    compared = Compared({"m3h": predictions(0.2), "lightgbm": predictions(2.0, seed=1)}, fewest=20)
    one, other = ({t: a[0] for t, a in compared.by_task[m].items()} for m in ("m3h", "lightgbm"))
    expected = np.mean([(one[t] - other[t]) / other[t] for t in one])
    assert compared.relative_gain("m3h", "lightgbm")[0] == pytest.approx(expected)


def test_calibrated_probabilities_have_slope_one_and_err_no_more_than_chance():
    found = calibration(predictions(0.0))
    assert found["slope"] == pytest.approx(1, abs=0.03)
    assert found["intercept"] == pytest.approx(0, abs=0.05)
    assert found["brier_skill"] > 0
    assert found["calibration_error"] < 2 * found["noise_floor"]


def test_probabilities_that_are_too_sure_have_a_slope_below_one():
    sure = predictions(0.0)
    scores = {n: 1 / (1 + np.exp(-2 * np.log(p / (1 - p)))) for n, p in sure.scores.items()}
    doubled = Tested(**{**vars(sure), "scores": scores})
    assert calibration(doubled)["slope"] == pytest.approx(0.5, abs=0.03)


def test_the_calibration_error_of_one_rate_for_all_is_zero():
    y = np.tile([0.0, 1.0], 100)
    assert calibration_error(np.full(200, 0.5), y) == pytest.approx(0, abs=0.02)


def test_an_interval_is_around_the_figure_of_the_data_as_they_are():
    assert interval(np.r_[0.5, np.linspace(0, 1, 1001)]) == pytest.approx((0.5, 0.025, 0.975))


def test_no_hospital_is_tested_that_was_learned_from():
    cohort = make_cohort()
    made = Study(cohort, None, CONFIG, {})
    for fold in FOLDS:
        learn, test, _ = made._rows(Job("m3h", "all", fold))
        assert not set(cohort.samples.site[learn]) & set(cohort.samples.site[test])


def test_without_treatments_nothing_tells_them():
    cohort = make_cohort()
    assert not without_treatments(cohort).samples.treatments.any()
    assert cohort.samples.treatments.any()


def test_a_share_of_the_patients_is_a_share_of_patients_and_grows_by_adding():
    samples = make_cohort().samples
    rows = np.arange(len(samples))
    few, more = (some_patients(samples, rows, share) for share in (0.25, 0.5))
    assert len(np.unique(samples.patient[few])) == 30
    assert set(few) < set(more)


MADE_JOBS = every_job(external=True, masked=True)


def masked_cohort():
    """The made cohort, of whose notes two words of each third patient were taken out."""
    cohort = make_cohort()
    taken = np.where(np.arange(len(cohort.samples)) % 3 == 0, 2, 0).astype(np.int32)
    return replace(cohort, name="masked", samples=replace(cohort.samples, masked=taken))


@pytest.fixture(scope="module")
def made():
    return make_cohort(), make_cohort(100, name="other", seed=1), masked_cohort()


@pytest.fixture(scope="module")
def kept(made, tmp_path_factory):
    """A study of which M3H and logistic regression were run on what is measured."""
    folder = tmp_path_factory.mktemp("study")
    cohort, other, masked = made
    config = CONFIG.model_copy(update={"epochs": 1})
    study_of_them = Study(cohort, other, config, {}, masked)
    jobs = [Job("m3h", "measured", f) for f in FOLDS]
    jobs += [Job("logistic_regression", "measured", f) for f in FOLDS]
    jobs += [Job("m3h", "measured", "external"), Job("lightgbm", "measured", "external")]
    jobs += [Job(m, study.MASKED, "0") for m in ("m3h", "logistic_regression")]
    for job in jobs:
        np.savez(folder / job.file, **study_of_them.run(job))
    return folder, jobs


@pytest.fixture(scope="module")
def whole(made, kept, tmp_path_factory):
    """A study of which every job was run: what M3H said, with noise of each job's own."""
    folder = tmp_path_factory.mktemp("whole")
    cohort, other, _ = made
    for number, job in enumerate(MADE_JOBS):
        draw = np.random.default_rng(number)
        with np.load(kept[0] / Job("m3h", "measured", job.fold).file) as one:
            found = {name: one[name] for name in one.files}
        samples = (other if job.fold == "external" else cohort).samples
        columns = [i for i, t in enumerate(TASKS) if t.kind == "binary"]
        outcome = samples.outcomes[found["rows"]][:, columns]
        for name in ("output/binary", "one/binary"):
            log_odds = 2 * outcome - 2 + draw.normal(0, 1.5, outcome.shape)
            found[name] = 1 / (1 + np.exp(-log_odds))
        if job.model in study.BASELINES:
            found = {n: found[n] for n in ("rows", "output/binary", "output/discharge_disposition")}
        np.savez(folder / job.file, **found)
    write_seeds(folder, 0.8)
    return folder


def test_a_job_that_is_done_is_not_run_again(kept):
    folder, jobs = kept
    nowhere = folder / "no-cohort"
    opened = Opened(nowhere, None, CONFIG, {})
    assert [ran for _, ran in run_jobs(jobs, folder, opened)] == [False] * len(jobs)


def test_the_report_is_written_of_what_there_is_and_names_what_is_not(made, kept, tmp_path):
    cohort, other, masked = made
    write(kept[0], cohort, other, tmp_path, masked)
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["measured"]["models"]) == {"m3h", "m3h_one", "logistic_regression"}
    assert set(results["measured_external"]["models"]) == {"m3h", "m3h_one", "lightgbm"}
    assert "m3h_ahead_by" in results["measured"]["models"]["logistic_regression"]
    assert "learning_curve" not in results
    text = (tmp_path / "results.md").read_text()
    assert "Not yet run: same network, single-task" in text
    missing = text.split("## Not in this report")[1]
    assert "- The learning curve: m3h-measured-0.1-0" in missing
    assert "Vital signs" not in missing


@pytest.fixture(scope="module")
def report(made, whole, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    cohort, other, masked = made
    write(whole, cohort, other, folder, masked)
    results = json.loads((folder / "results.json").read_text())
    return folder, (folder / "results.md").read_text(), results


def test_a_study_that_is_whole_fills_every_section(report):
    folder, text, results = report
    assert "Not in this report" not in text
    assert not re.search(r"\bnan\b|None", text)
    assert list(results) == [section.name for section in SECTIONS]
    drawn = set(re.findall(r"\((\w+\.png)\)", text))
    assert drawn == {path.name for path in folder.glob("*.png")}
    assert all(5_000 < (folder / name).stat().st_size < 150_000 for name in drawn)


def test_the_answer_comes_first_and_is_told_from_the_figures(report):
    _, text, results = report
    answer = " ".join(text.split("**How to read it.**")[0].split())
    for name in ("measured", "all", "measured_external", "all_external"):
        assert with_interval(results[name]["models"]["m3h"]["auroc"]) in answer
    ahead = results["all"]["models"]["lightgbm"]["m3h_ahead_by"]
    assert f"LightGBM ({with_interval(ahead, '+')})" in answer


def test_it_is_said_how_much_was_taken_out_of_the_notes(report):
    _, text, results = report
    assert (results["masked"]["phrases"], results["masked"]["stays_touched"]) == (160, 80)
    assert "160 phrases of 80 of the 240 stays" in " ".join(text.split())


def test_small_groups_are_said_to_be_small(report):
    _, text, results = report
    sizes = {n: g["stays"] for by in results["groups"].values() for n, g in by.items()}
    small = {n for by in results["groups"].values() for n, g in by.items() if g["small"]}
    assert small == {name for name, stays in sizes.items() if stays < 100}
    assert all(f"| {name} (small) |" in text for name in small)


def test_several_networks_are_where_models_stand_side_by_side_and_else_one():
    networks = {
        (job.model, job.inputs, job.share): Study(make_cohort(), None, CONFIG, {})._config(job)
        for job in MADE_JOBS
        if job.model not in study.BASELINES and job.fold == "0"
    }
    several = {name for name, config in networks.items() if config.members > 1}
    assert several == {(m, i, 1.0) for m in ("m3h", "shared_trunk") for i in ("measured", "all")}


def test_what_names_no_disease_must_be_of_the_same_patients(made):
    cohort, other, masked = made
    with pytest.raises(CohortError, match="not of the same records"):
        Study(cohort, None, CONFIG, {}, other)
    shuffled = replace(masked, samples=masked.samples.take(np.arange(240)[::-1]))
    with pytest.raises(CohortError, match="not of the same records"):
        Study(cohort, None, CONFIG, {}, shuffled)


def test_what_was_charted_before_is_no_label_of_what_is_foreseen():
    tested = predictions(0.5)
    charted = np.where(
        tested.outcome == 1, np.where(np.arange(600) % 2, 5.0, -5.0)[:, None], np.nan
    )
    later = tested.foreseen(charted)
    disease = tested.column("sepsis")
    had, before = tested.outcome[:, disease] == 1, charted[:, disease] < 0
    assert np.isnan(later.outcome[had & before, disease]).all()
    assert (later.outcome[had & ~before, disease] == 1).all()
    assert (later.outcome[~had, disease] == 0).all()
    assert np.isnan(later.outcome[:, tested.column("in_hospital_mortality")]).all()


def test_few_local_patients_repair_a_shifted_prevalence():
    right = predictions(0.0)
    away = {n: 1 / (1 + np.exp(-np.log(p / (1 - p)) + 1.5)) for n, p in right.scores.items()}
    shifted = replace(right, scores=away)
    found = recalibrated(shifted, ["sepsis", "anemia", "diabetes"], patients=25, splits=4)
    assert found["before"]["intercept"][0] > 1.2
    assert abs(found["after"]["intercept"][0]) < 0.2
    assert found["after"]["calibration_error"][0] < found["before"]["calibration_error"][0] / 3
    assert found["brier_skill_rises"] == 1


def test_as_many_are_observed_as_are_expected_of_calibrated_probabilities():
    tested = predictions(0.0)
    weight = replicate_weights(tested.site, tested.fold)
    value, low, high = observed_to_expected(tested, ["sepsis", "anemia"], weight)
    assert low < 1 < high
    assert value == pytest.approx(1, abs=0.1)


def test_a_gain_that_follows_prevalence_is_correlated_with_it_and_told_by_thirds():
    share = {f"t{i}": 0.1 * i for i in range(9)}
    rising = {t: np.full(11, s) for t, s in share.items()}
    assert rank_correlation(list(rising.values()), np.array(list(share.values())))[0] == 1
    thirds = by_thirds(rising, share)
    assert [part["gain"][0] for part in thirds] == pytest.approx([0.1, 0.4, 0.7])


def test_even_attention_has_all_of_the_entropy_and_attention_to_one_task_none():
    assert entropy(np.full((4, 4), 0.25)) == pytest.approx(np.ones(4))
    assert entropy(np.eye(4)) == pytest.approx(np.zeros(4), abs=1e-9)


def test_every_single_task_is_learned_alone_and_answers_for_its_own():
    made = Study(make_cohort(200), None, CONFIG.model_copy(update={"epochs": 1}), {})
    found = made.run(Job(study.SINGLE_TASK, "measured", "0"))
    assert found["output/binary"].shape == (len(found["rows"]), len(BINARY))
    assert found["output/length_of_stay"].shape[1] == 3


def test_a_choice_is_judged_by_hospitals_that_never_test_it(tmp_path):
    cohort = make_cohort(400)
    made = Study(cohort, None, CONFIG.model_copy(update={"epochs": 1}), {})
    tested_by = made._rows(Job("m3h", "measured", "0"))[1]
    for number, _ in enumerate(CANDIDATES["logistic_regression"]):
        job = Job("logistic_regression", "measured", "0", candidate=number)
        found = made.run(job)
        judges = cohort.samples.site[found["rows"]]
        assert not set(judges) & set(cohort.samples.site[tested_by])
        np.savez(tmp_path / job.file, **found)
    chosen = choose(tmp_path, cohort)
    assert set(chosen) == {"logistic_regression"}
    number = chosen["logistic_regression"]["measured"]["0"]
    after = Study(cohort, None, CONFIG, chosen)
    job = Job("logistic_regression", "measured", "0")
    assert after.settings(job) == CANDIDATES["logistic_regression"][number]


def test_a_model_is_trained_as_was_chosen_for_another_database():
    number = next(k for k, settings in enumerate(CANDIDATES["m3h"]) if settings.keys() == {"batch"})
    chosen = {"m3h": {"all": {"0": 0, EXTERNAL: number}}}
    config = tuned(CONFIG, chosen)
    assert config == CONFIG.model_copy(update=CANDIDATES["m3h"][number])
    report = Study(make_cohort(), None, CONFIG, chosen)
    assert report._config(Job("m3h", "all", EXTERNAL)) == config
    with pytest.raises(RunError, match="--external"):
        tuned(CONFIG, {"m3h": {"all": {"0": 0}}})


def test_every_kind_of_model_has_as_many_candidates():
    assert len({len(candidates) for candidates in CANDIDATES.values()}) == 1


def test_what_is_compared_differs_in_what_it_is_named_for_alone():
    made = Study(make_cohort(), None, CONFIG, {})
    m3h, trunk = (made._config(Job(m, "all", "0")) for m in ("m3h", "shared_trunk"))
    assert trunk.net.attention == "none"
    same = trunk.net.model_copy(update={"attention": "balanced"})
    assert trunk.model_copy(update={"net": same}) == m3h
