"""Numbers that can be acted on: calibration, sets, intervals, and the ROC."""

from pathlib import Path

import numpy as np

from model.evaluation import plots
from model.evaluation.evaluate import FEWEST_POSITIVES
from model.evaluation.measure import (
    FEWEST_FOR_CALIBRATION,
    ROC_POINTS,
    Found,
    calibration,
    calibration_curve,
    coverage,
    roc_curve,
)
from model.evaluation.sections import Section
from model.evaluation.sections.markdown import figure, prose, table
from model.evaluation.study_results import Kept

_ROC_OF = ("in_hospital_mortality", "sepsis", "acute_kidney_injury", "heart_failure", "diabetes")


def _acting(kept: Kept) -> Found:
    found: Found = {}
    for inputs in ("all", "measured"):
        tested = kept.tested("m3h", inputs)
        here = {
            "tasks": len(tested.binary_with(FEWEST_FOR_CALIBRATION)),
            "calibration": calibration(tested),
            "coverage": coverage(tested),
            "curve": calibration_curve(tested),
        }
        # The figures of the whole model are the section's own.
        found |= here if inputs == "all" else {inputs: here}
    return found


def _tell_acting(found: Found) -> list[str]:
    told = (
        ("calibration slope", "calibration", "slope", "", 2),
        ("calibration intercept", "calibration", "intercept", "+", 2),
        ("Brier skill", "calibration", "brier_skill", "", 3),
        ("calibration error (10 bins of equal mass)", "calibration", "calibration_error", "", 4),
        ("its noise floor", "calibration", "noise_floor", "", 4),
        ("patients with the disease whose set holds it", "coverage", "positives", "", 3),
        ("patients without whose set says so", "coverage", "negatives", "", 3),
        ("sets that hold both answers", "coverage", "undecided", "", 3),
        ("90 % interval of the length of stay holds it", "coverage", "length_of_stay", "", 3),
    )
    rows = [
        [name, *(figure(p[kind][key], sign, digits) for p in (found["measured"], found))]
        for name, kind, key, sign, digits in told
    ]
    return [
        prose(
            f"""Hospitals never seen, the {found["tasks"]} tasks with at least
            {FEWEST_FOR_CALIBRATION} positives pooled. The noise floor is the error that perfectly
            calibrated probabilities would show by chance. A set holds the answers that cannot be
            ruled out; it is made to miss a tenth of those with the disease, and of those
            without."""
        ),
        table(["", "measured", "all inputs"], rows),
        "![Calibration](calibration.png)",
    ]


def _draw_acting(found: Found, folder: Path) -> None:
    curves = {"all inputs": found["curve"], "measured": found["measured"]["curve"]}
    plots.calibration(curves, folder / "calibration.png")


def _roc(kept: Kept) -> Found:
    tested = kept.tested("m3h", "all")
    tasks = tested.binary_with(FEWEST_POSITIVES)
    curves = {task: roc_curve(tested, task) for task in tasks}
    display = {t.name: t.display for t in tested.tasks}
    some = {display[task]: curves[task] for task in _ROC_OF if task in curves}
    mean = np.mean(list(curves.values()), axis=0)
    return {"rates": ROC_POINTS, "curves": {f"mean of {len(tasks)} tasks": mean} | some}


def _tell_roc(found: Found) -> list[str]:
    mean = next(iter(found["curves"].values()))
    found_at = 100 * mean[found["rates"].index(0.1)]
    return [
        prose(
            f"""M3H, all inputs. Where one in ten patients without a disease is called ill,
            {found_at:.0f} % of those with it are found, in the mean over the tasks."""
        ),
        "![ROC](roc.png)",
    ]


def _draw_roc(found: Found, folder: Path) -> None:
    plots.roc(found["rates"], found["curves"], folder / "roc.png")


ACTING = Section("acting", "Numbers that can be acted on", _acting, _tell_acting, _draw_acting)
ROC = Section("roc", "ROC", _roc, _tell_roc, _draw_roc)
