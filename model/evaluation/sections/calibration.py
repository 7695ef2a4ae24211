"""Calibration, coverage of sets and intervals, and the ROC."""

from pathlib import Path

import numpy as np

from model.evaluation import plots
from model.evaluation.bootstrap import replicate_weights
from model.evaluation.calibration_metrics import (
    MIN_POSITIVES_FOR_CALIBRATION,
    calibration,
    calibration_curve,
    coverage,
    observed_to_expected,
)
from model.evaluation.metrics import MIN_POSITIVES
from model.evaluation.predictions import ROC_POINTS, Predictions, roc_curve
from model.evaluation.sections import Figures, Section
from model.evaluation.sections.markdown import (
    decimal,
    details,
    paragraph,
    table,
    with_interval,
)
from model.evaluation.study.results import StudyResults
from model.evaluation.task_calibration import calibration_summary, task_calibration

_ROC_TASKS = ("in_hospital_mortality", "sepsis", "acute_kidney_injury", "heart_failure", "diabetes")
# Label, key of the figures, key of the number, sign, digits.
_TASK_ROWS = (
    ("calibration slope: median over tasks", "median", "slope", "", 2),
    ("share of tasks with a slope from 0.8 to 1.25", "share_within", "slope", "", 2),
    ("calibration intercept: median over tasks", "median", "intercept", "+", 2),
    ("observed / expected: median over tasks", "median", "observed_to_expected", "", 2),
    (
        "share of tasks with observed / expected from 0.8 to 1.25",
        *("share_within", "observed_to_expected", "", 2),
    ),
    (
        "calibration error (10 bins of equal mass): median over tasks",
        *("median", "calibration_error", "", 3),
    ),
    ("its noise floor: median over tasks", "median", "noise_floor", "", 3),
)
_POOLED_ROWS = (
    ("Brier skill, pooled", "calibration", "brier_skill", "", 3),
    ("patients with the disease whose set holds it", "coverage", "positives", "", 3),
    ("patients without the disease whose set holds its absence", "coverage", "negatives", "", 3),
    ("sets that hold both answers", "coverage", "undecided", "", 3),
    ("lengths of stay within their 90 % interval", "coverage", "length_of_stay", "", 3),
)


def _calibration(study: StudyResults) -> Figures:
    figures: Figures = {}
    for inputs in ("all", "measured"):
        predictions = study.predictions("m3h", inputs)
        of_inputs = {
            "tasks": len(predictions.binary_tasks(MIN_POSITIVES_FOR_CALIBRATION)),
            **_by_task(predictions),
            "calibration": calibration(predictions),
            "coverage": coverage(predictions),
            "curve": calibration_curve(predictions),
        }
        if inputs == "all":
            of_inputs["by_subset"] = _by_subset(study, predictions)
        # The figures of all inputs are at the top level of the section.
        figures |= of_inputs if inputs == "all" else {inputs: of_inputs}
    return figures


def _by_task(predictions: Predictions) -> Figures:
    by_task = task_calibration(predictions, predictions.binary_tasks(MIN_POSITIVES_FOR_CALIBRATION))
    display = {t.name: t.display for t in predictions.tasks}
    return {
        "by_task": by_task,
        "display": {name: display[name] for name in by_task},
        "summary": calibration_summary(by_task),
    }


def _by_subset(study: StudyResults, predictions: Predictions) -> Figures:
    """Observed / expected of the model with all inputs, given only some modalities."""
    tasks = predictions.binary_tasks(MIN_POSITIVES_FOR_CALIBRATION)
    weight = replicate_weights(predictions.site, predictions.fold)
    figures: Figures = {}
    for subset in study.subsets("m3h", "all"):
        fewer = study.predictions("m3h", "all", subset=subset)
        summary = calibration_summary(task_calibration(fewer, tasks))
        figures[subset] = {
            "observed_to_expected": observed_to_expected(fewer, tasks, weight),
            **summary,
        }
    return figures


def _render_calibration(figures: Figures) -> list[str]:
    both = figures["measured"], figures
    rows = [
        [label, *(decimal(f["summary"].get(kind, {}).get(key), sign, n) for f in both)]
        for label, kind, key, sign, n in _TASK_ROWS
    ]
    rows += [
        [label, *(decimal(f[kind][key], sign, n) for f in both)]
        for label, kind, key, sign, n in _POOLED_ROWS
    ]
    return [
        paragraph(
            f"""Unseen hospitals; the {figures["tasks"]} tasks with at least
            {MIN_POSITIVES_FOR_CALIBRATION} positives, each by itself unless stated otherwise:
            pooled over tasks, even the prevalence alone has a small error. A slope below 1 means
            too sure. Observed / expected: the number of charted diseases over the sum of the
            probabilities; above 1, the probabilities are too low. The noise floor is the error
            that perfectly calibrated probabilities would show by chance. A set (label-conditional
            conformal prediction) holds the answers that cannot be ruled out. It is made to miss a
            tenth of the patients with the disease, and a tenth of those without."""
        ),
        table(["", "measured", "all inputs"], rows),
        "The plot pools the tasks.",
        "![Calibration](calibration.png)",
        *_render_subsets(figures["by_subset"]),
        details("By task, all inputs", _by_task_table(figures)),
    ]


def _render_subsets(by_subset: Figures) -> list[str]:
    rows = [
        [
            subset.replace("+", " and "),
            with_interval(figures["observed_to_expected"], digits=2),
            *(
                decimal(figures.get(kind, {}).get("observed_to_expected"), digits=2)
                for kind in ("median", "share_within")
            ),
            decimal(figures.get("median", {}).get("slope"), digits=2),
        ]
        for subset, figures in by_subset.items()
    ]
    if not rows:
        return []
    head = [
        *("given only", "observed / expected, all tasks together", "median over tasks"),
        *("share of tasks from 0.8 to 1.25", "median slope"),
    ]
    return [
        paragraph(
            """The model with all inputs, given only some modalities of the same patients, as when
            a request lacks the others:"""
        ),
        table(head, rows),
    ]


def _by_task_table(figures: Figures) -> str:
    rows = [
        [
            figures["display"][task],
            f["positives"],
            decimal(f["slope"], digits=2),
            decimal(f["intercept"], "+", 2),
            decimal(f["observed_to_expected"], digits=2),
            decimal(f["calibration_error"]),
            decimal(f["noise_floor"]),
        ]
        for task, f in figures["by_task"].items()
    ]
    head = ["task", "positives", "slope", "intercept", "observed / expected", "calibration error"]
    return table([*head, "noise floor"], rows)


def _plot_calibration(figures: Figures, folder: Path) -> None:
    curves = {"all inputs": figures["curve"], "measured": figures["measured"]["curve"]}
    plots.calibration(curves, folder / "calibration.png")


def _roc(study: StudyResults) -> Figures:
    predictions = study.predictions("m3h", "all")
    tasks = predictions.binary_tasks(MIN_POSITIVES)
    curves = {task: roc_curve(predictions, task) for task in tasks}
    display = {t.name: t.display for t in predictions.tasks}
    examples = {display[task]: curves[task] for task in _ROC_TASKS if task in curves}
    mean = np.mean(list(curves.values()), axis=0)
    return {"rates": ROC_POINTS, "curves": {f"mean of {len(tasks)} tasks": mean} | examples}


def _render_roc(figures: Figures) -> list[str]:
    mean = next(iter(figures["curves"].values()))
    sensitivity = 100 * mean[figures["rates"].index(0.1)]
    return [
        paragraph(
            f"""M3H, all inputs. At a false positive rate of 10 %, the mean sensitivity over the
            tasks is {sensitivity:.0f} %."""
        ),
        "![ROC](roc.png)",
    ]


def _plot_roc(figures: Figures, folder: Path) -> None:
    plots.roc(figures["rates"], figures["curves"], folder / "roc.png")


CALIBRATION = Section(
    "acting",
    "Calibration, sets and intervals",
    _calibration,
    _render_calibration,
    _plot_calibration,
)
ROC = Section("roc", "ROC", _roc, _render_roc, _plot_roc)
