"""The report's figures are what they are called, and its intervals are of hospitals."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model import study
from model.measure import (
    Compared,
    Tested,
    calibration,
    calibration_error,
    interval,
    replicate_weights,
    weighted_auroc,
)
from model.report import write
from model.study import (
    CANDIDATES,
    FOLDS,
    Job,
    Study,
    choose,
    run_all,
    some_patients,
    without_treatments,
)
from tests.model.made import CONFIG, TASKS, make_cohort

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
    areas, positives = weighted_auroc(outcome, score, times.astype(float))
    for area, count, weight in zip(areas, times, positives, strict=True):
        expected = roc_auc_score(np.repeat(outcome, count), np.repeat(score, count))
        assert area == pytest.approx(expected)
        assert weight == np.repeat(outcome, count).sum()


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


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A small study of every kind of model, run twice."""
    folder = tmp_path_factory.mktemp("study")
    cohort, other = make_cohort(), make_cohort(100, name="other", seed=1)
    config = CONFIG.model_copy(update={"epochs": 1})
    made = Study(cohort, other, config, {})
    jobs = [Job("m3h", i, f) for i in ("measured", "all") for f in FOLDS]
    jobs += [Job("logistic_regression", "measured", f) for f in FOLDS]
    jobs += [Job("m3h", "measured", "external"), Job("lightgbm", "measured", "external")]
    for job in jobs:
        np.savez(folder / job.file, **made.run(job))
    return folder, cohort, other, jobs


def test_a_job_that_is_done_is_not_run_again(kept):
    folder, *_, jobs = kept
    nowhere = folder / "no-cohort"
    assert [ran for _, ran in run_all(jobs, nowhere, None, CONFIG, {}, folder)] == [False] * len(
        jobs
    )


def test_the_report_is_written_of_what_there_is(kept, tmp_path):
    folder, cohort, other, _ = kept
    write(folder, cohort, other, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["measured"]["models"]) == {"m3h", "m3h_one", "logistic_regression"}
    assert set(results["measured_external"]["models"]) == {"m3h", "m3h_one", "lightgbm"}
    assert "m3h_ahead_by" in results["measured"]["models"]["logistic_regression"]
    text = (tmp_path / "results.md").read_text()
    assert "LightGBM per task" in text
    for image in ("calibration.png",):
        assert image in text
        assert (tmp_path / image).stat().st_size > 5000


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


def test_every_kind_of_model_has_as_many_candidates():
    assert len({len(candidates) for candidates in CANDIDATES.values()}) == 1


def test_what_is_compared_differs_in_what_it_is_named_for_alone():
    made = Study(make_cohort(), None, CONFIG, {})
    m3h, trunk = (made._config(Job(m, "all", "0")) for m in ("m3h", "shared_trunk"))
    assert trunk.net.attention == "none"
    same = trunk.net.model_copy(update={"attention": "balanced"})
    assert trunk.model_copy(update={"net": same}) == m3h
