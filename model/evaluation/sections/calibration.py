"""Calibration, coverage of sets and intervals, and the ROC."""

from pathlib import Path

import numpy as np

from model.evaluation import plots
from model.evaluation.calibration_metrics import (
    MIN_POSITIVES_FOR_CALIBRATION,
    calibration,
    calibration_curve,
    coverage,
)
from model.evaluation.metrics import MIN_POSITIVES
from model.evaluation.predictions import ROC_POINTS, roc_curve
from model.evaluation.sections import Figures, Section
from model.evaluation.sections.markdown import decimal, paragraph, table
from model.evaluation.study.results import StudyResults

_ROC_TASKS = ("in_hospital_mortality", "sepsis", "acute_kidney_injury", "heart_failure", "diabetes")
# Label, key of the figures, key of the number, sign, digits.
_ROWS = (
    ("calibration slope", "calibration", "slope", "", 2),
    ("calibration intercept", "calibration", "intercept", "+", 2),
    ("Brier skill", "calibration", "brier_skill", "", 3),
    ("calibration error (10 bins of equal mass)", "calibration", "calibration_error", "", 4),
    ("noise floor of the calibration error", "calibration", "noise_floor", "", 4),
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
            "calibration": calibration(predictions),
            "coverage": coverage(predictions),
            "curve": calibration_curve(predictions),
        }
        # The figures of all inputs are at the top level of the section.
        figures |= of_inputs if inputs == "all" else {inputs: of_inputs}
    return figures


def _render_calibration(figures: Figures) -> list[str]:
    rows = [
        [label, *(decimal(f[kind][key], sign, digits) for f in (figures["measured"], figures))]
        for label, kind, key, sign, digits in _ROWS
    ]
    return [
        paragraph(
            f"""Unseen hospitals; the {figures["tasks"]} tasks with at least
            {MIN_POSITIVES_FOR_CALIBRATION} positives pooled. The noise floor is the error that
            perfectly calibrated probabilities would show by chance. A set (label-conditional
            conformal prediction) holds the answers that cannot be ruled out. It is made to miss a
            tenth of the patients with the disease, and a tenth of those without."""
        ),
        table(["", "measured", "all inputs"], rows),
        "![Calibration](calibration.png)",
    ]


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
