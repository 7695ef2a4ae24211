"""The model card: every task, and only measured figures."""

import itertools
import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from export.card.model_card import NOT_MEASURED, SECTIONS, model_card
from export.cli import EvaluationError, app, read_evaluation
from model.evaluation import bootstrap
from model.evaluation.folds import hospital_folds
from model.evaluation.report import write_report
from model.evaluation.sections import external_validation
from model.evaluation.study import EXTERNAL
from model.evaluation.study.jobs import jobs_of
from schemas.manifest import ConformalSets, read_manifest
from schemas.response import NotLearned
from schemas.tim import Agreement
from tests.support.inputs.cohorts import make_cohort
from tests.support.inputs.tim_matrix import made_tim

HEADINGS = [
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Phenotypes",
    "Task interactions",
    "Ethical considerations",
    "Caveats and recommendations",
]


@pytest.fixture(scope="module")
def manifest(exported):
    return read_manifest(exported[0])[0]


def made_results():
    """The figures of a report, all different."""
    draw = np.random.default_rng(0)

    def figure(low=0.5, high=0.9):
        return round(float(draw.uniform(low, high)), 4)

    def figures():
        return sorted(figure() for _ in range(3))

    def inputs():
        by_task = {"sepsis": figure(), "in_hospital_mortality": figure()}
        m3h = {"auroc": figures(), "by_task": by_task, "mae_days": figure(2, 3)}
        other = {"auroc": figures(), "m3h_ahead_by": figures()}
        shared = {"stays": 1472, "tasks": 38, "fewest_positives": 20}
        trunk = {"auroc": figures(), "m3h_ahead_by": figures()}
        models = {"m3h": m3h, "shared_trunk": trunk, "lightgbm_bag": other}
        return {**shared, "models": models}

    names = ("slope", "intercept", "brier_skill", "calibration_error", "noise_floor")
    covered = ("positives", "negatives", "undecided", "length_of_stay")
    group = {"stays": 641, "tasks": 30, "small": True}
    names_of_group = ("auroc", "against_everyone", "observed_to_expected")
    return {
        "measured": inputs(),
        "all": inputs(),
        "all_external": inputs(),
        "acting": {
            "summary": {
                "median": {name: figure() for name in ("slope", "observed_to_expected")},
                "share_within": {name: figure() for name in ("slope", "observed_to_expected")},
            },
            "calibration": {name: figure() for name in names},
            "coverage": {name: figure() for name in covered},
        },
        "groups": {
            "sex": {"female": {name: figures() for name in names_of_group} | group},
            "ethnicity": {"Asian": group},
        },
        "landmarks": {
            "6": {
                "stays": 1702,
                "tasks": 37,
                "models": {"m3h": figures()},
                "observed_to_expected": figures(),
            }
        },
        "charted_later": {
            "all": {
                "models": {"m3h": {"charted_later": figures(), "same_tasks_as_usual": figures()}}
            }
        },
        "masked": {"models": {"m3h_one": {"masked": figures(), "all": figures()}}},
        "recalibration": {
            "patients": 50,
            "splits": 100,
            "before": {name: figures() for name in names},
            "after": {name: figures() for name in names},
        },
    }


def evaluated(manifest, results):
    return model_card(manifest.model_copy(update={"evaluation": results}))


def section(card, title):
    return re.split(r"^##+ ", card.split(f" {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def leaves(results):
    if isinstance(results, dict | list):
        for value in results.values() if isinstance(results, dict) else results:
            yield from leaves(value)
    else:
        yield results


def test_a_card_has_the_headings_of_model_cards_in_order(manifest):
    card = model_card(manifest)
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == HEADINGS
    assert card.startswith(f"# {manifest.name} {manifest.version}\n")
    assert len(card.encode()) < 30_000


def test_a_card_lists_every_task_with_its_training_labels(manifest):
    rows = section(model_card(manifest), "Task by task").splitlines()
    for facts in manifest.tasks:
        (row,) = (row for row in rows if row.startswith(f"| {facts.task.display} |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1] == str(max(facts.labels.values()))
        if facts.task.kind == "binary":
            assert cells[2:4] == [str(facts.positives), f"{facts.prevalence:.3f}"]


def test_without_an_evaluation_every_figure_is_not_measured(manifest):
    card = model_card(manifest)
    for title in ("How well", "Calibration, sets", "Subgroups", "Hours since", "Recalibration for"):
        body = card.split(f"### {title}", 1)[1].split("###")[0]
        assert NOT_MEASURED in body
    counted = [f.prevalence for f in manifest.tasks if f.prevalence is not None]
    assert figures_in(card) <= {f"{value:.3f}" for value in counted}


def figures_in(card):
    """The decimal numbers of the quantitative analyses."""
    analyses = card.split("## Quantitative analyses")[1].split("\n## ")[0]
    return set(re.findall(r"(?<![\w.])\d+\.\d+", analyses.replace("(made for 0.9)", "")))


def test_every_figure_comes_from_the_report(manifest):
    results = made_results()
    card = evaluated(manifest, results)
    counted = [f.prevalence for f in manifest.tasks if f.prevalence is not None]
    known = [v for v in (*leaves(results), *counted) if isinstance(v, float)]
    expected = {f"{abs(v):.{digits}f}" for v in known for digits in (3, 4)}
    assert figures_in(card) <= expected
    # The card shows every figure of the report, except the AUROC of the other models.
    for inputs, other in itertools.product(
        ("measured", "all", "all_external"), ("shared_trunk", "lightgbm_bag")
    ):
        del results[inputs]["models"][other]["auroc"]
    del results["all_external"]["models"]["m3h"]["by_task"]
    del results["all_external"]["models"]["m3h"]["mae_days"]
    mine = [v for v in leaves(results) if isinstance(v, float)]
    assert all({f"{v:.3f}", f"{v:.4f}"} & figures_in(card) for v in mine)


def test_figures_that_the_report_lacks_are_not_measured(manifest):
    results = made_results()
    del results["groups"], results["recalibration"], results["all_external"]
    card = evaluated(manifest, results)
    assert NOT_MEASURED in section(card, "Subgroups")
    assert NOT_MEASURED in section(card, "Recalibration for another database")
    rows = [
        r for r in section(card, "How well patients are ranked").splitlines() if "external" in r
    ]
    assert all(NOT_MEASURED in row for row in rows)
    assert NOT_MEASURED not in section(card, "Hours since admission")


def test_small_groups_and_too_few_positives_are_marked(manifest):
    groups = section(evaluated(manifest, made_results()), "Subgroups")
    assert "| ethnicity | Asian (small) | 641 | 30 | too few | too few | too few |" in groups


def test_a_card_gives_the_reason_for_a_task_without_sets(manifest):
    few = ConformalSets(reason="only 7 patients with the outcome 'yes' to make one from")
    some = ConformalSets(thresholds={"no": 0.7, "yes": 0.1})
    sets = {"sepsis": few, "diabetes": some}
    tasks = tuple(
        f.model_copy(update={"sets": sets[f.task.name], "abstains": None})
        if f.task.name in sets
        else f
        for f in manifest.tasks
    )
    rows = section(model_card(manifest.model_copy(update={"tasks": tasks})), "Task by task")
    assert re.search(rf"^\| Sepsis \|.*\| none: {few.reason} \|$", rows, re.MULTILINE)
    assert re.search(r"^\| Diabetes \|.*\| yes \|$", rows, re.MULTILINE)


def test_a_card_marks_a_task_that_abstains(manifest):
    why = "trained on 80 labelled patients, 0 of them with it"
    first, *others = manifest.tasks
    silent = manifest.model_copy(
        update={"tasks": (first.model_copy(update={"abstains": why}), *others)}
    )
    rows = section(model_card(silent), "Task by task")
    assert re.search(rf"^\| {first.task.display} \|.*\| no answer: {why} \|$", rows, re.MULTILINE)


def test_phenotypes_are_described(manifest):
    text = section(model_card(manifest), "Phenotypes")
    assert len(re.findall(r"^- \d: \d+ % of the patients; ", text, re.MULTILINE)) == len(
        [p for p in manifest.phenotypes if p.share]
    )


def test_a_card_lists_the_certain_cells_of_the_task_interaction_matrix(manifest):
    title = "Task interactions"
    assert section(model_card(manifest), title).strip() == "Not measured."
    names = [facts.task.name for facts in manifest.tasks]
    count = len(names)
    cells = np.full((count, count), 0.001)
    cells[names.index("sepsis"), names.index("septic_shock")] = 0.03
    agreement = Agreement(value=0.1234, lower=-0.05, upper=0.3)
    gain = np.array([0.01 * (name == "asthma") for name in names])
    ends = {"gain_lower": gain - 0.02, "gain_upper": gain + 0.02}
    tim = made_tim(names, cells, multitask_gain=gain, **ends, halves=agreement)
    text = section(model_card(manifest, tim), title)
    assert f"1 of {count * (count - 1)} pairs of tasks are certain" in " ".join(text.split())
    assert "| Sepsis | Septic shock | +0.0300 [+0.0200, +0.0400] | AUROC |" in text
    assert "Asthma +0.010 [-0.010, +0.030]" in text
    assert "correlation of 0.12 [-0.05, 0.30]" in text
    assert "attention" not in text
    text = section(
        model_card(manifest, made_tim(names, cells, attention_agreement=agreement)), title
    )
    assert "rank correlation of 0.12 [-0.05, 0.30]" in " ".join(text.split())


def test_a_card_warns_if_no_patient_had_both_notes_and_x_ray(manifest):
    apart = tuple(c.model_copy(update={"with_notes_and_image": 0}) for c in manifest.cohorts)
    card = model_card(manifest.model_copy(update={"cohorts": apart}))
    assert "no open data join\n  them" in card
    assert manifest.cohorts[0].with_notes_and_image > 0
    joined = f"the model learned from {manifest.cohorts[0].with_notes_and_image} who had both"
    assert joined in model_card(manifest)


def test_a_card_shows_the_figures_of_a_real_report(manifest, tmp_path, monkeypatch):
    """The sections of a report on random predictions."""
    monkeypatch.setattr(bootstrap, "REPLICATES", 20)
    monkeypatch.setattr(external_validation, "SPLITS", 2)
    cohort, other, draw = make_cohort(), make_cohort(100, "other", 1), np.random.default_rng(0)
    binary = [t.name for t in cohort.tasks if t.kind == "binary"]
    sets = {name: {"thresholds": {"no": 0.3, "yes": 0.3}} for name in binary}
    facts = np.array(json.dumps({"sets": sets}))
    test_rows = {str(fold.number): fold.test for fold in hospital_folds(cohort)}
    test_rows[EXTERNAL] = np.arange(len(other.samples))
    models = ("m3h", "lightgbm_bag", "logistic_regression", "single_task")
    for model, inputs, (fold, rows) in itertools.product(
        models, ("measured", "all"), test_rows.items()
    ):
        predictions = {
            "binary": draw.random((len(rows), len(binary))),
            "discharge_disposition": draw.dirichlet(np.ones(4), len(rows)),
            "length_of_stay": np.sort(draw.lognormal(size=(len(rows), 3)))[:, [1, 0, 2]],
        }
        outputs = {f"{kind}/{k}": v for kind in ("output", "one") for k, v in predictions.items()}
        for job in jobs_of(model, inputs, fold):
            np.savez(tmp_path / job.file, rows=rows, facts=facts, **outputs)
    write_report(tmp_path, cohort, other, tmp_path)
    results = read_evaluation(tmp_path / "results.json")
    # A manifest does not hold the curves and matrices of the report.
    assert set(results) == set(SECTIONS) - {"masked"}
    card = evaluated(manifest, results)
    m3h = results["measured"]["models"]["m3h"]
    assert f"{m3h['auroc'][0]:.3f} [" in section(card, "How well patients are ranked")
    rows = section(card, "Task by task")
    all_inputs = results["all"]["models"]["m3h"]
    sepsis = [models["by_task"]["sepsis"] for models in (m3h, all_inputs)]
    assert f"| {sepsis[0]:.3f} | {sepsis[1]:.3f} |" in rows
    assert (
        f"| mean error {m3h['mae_days']:.3f} d | mean error {all_inputs['mae_days']:.3f} d |"
        in rows
    )
    for title in ("Calibration, sets and intervals", "Subgroups", "Hours since admission"):
        assert NOT_MEASURED not in section(card, title)
    assert NOT_MEASURED not in section(card, "Recalibration for another database")
    later = section(card, "Recognition or prediction")
    assert later.count(NOT_MEASURED) == 1  # masked notes


def test_a_file_that_is_not_a_report_is_refused(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"M3H": []}))
    with pytest.raises(EvaluationError, match=r"not a report: it has none of measured, all"):
        read_evaluation(path)
    path.write_text("{")
    with pytest.raises(EvaluationError, match="not JSON"):
        read_evaluation(path)
    done = CliRunner().invoke(app, ["run", str(tmp_path / "new"), "--evaluation", str(path)])
    assert done.exit_code == 2
    assert "scores.json is not JSON" in done.output


def test_the_card_counts_the_inputs_without_influence(manifest):
    not_learned = NotLearned(variables=("lactate", "lipase"), treatments=("rifaximin",))
    card = model_card(manifest.model_copy(update={"not_learned": not_learned}))
    assert "- 2 of 95 variables and 1 of 62 treatments are read, but have no influence" in card
    assert "influence on any" not in model_card(manifest.model_copy(update={"not_learned": None}))
