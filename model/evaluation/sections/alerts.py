"""Decisions: what alerts at useful thresholds would find, miss and cost, task by task."""

import numpy as np

from model.evaluation.decisions import ALERTS_PER_100, SENSITIVITIES, decision_points
from model.evaluation.metrics import MIN_POSITIVES
from model.evaluation.predictions import Predictions, pooled
from model.evaluation.sections import INPUT_NAMES, Figures, Section
from model.evaluation.sections.markdown import decimal, details, paragraph, table
from model.evaluation.study.results import StudyResults

POINTS = {
    **{f"sensitivity_{100 * s:.0f}": f"sensitivity {s:g}" for s in SENSITIVITIES},
    **{f"alerts_{rate}": f"{rate} alerts per 100 patients" for rate in ALERTS_PER_100},
}
_COLUMNS = {
    "threshold": ("threshold", 3),
    "sensitivity": ("sensitivity", 2),
    "specificity": ("specificity", 2),
    "ppv": ("positive predictive value", 2),
    "alerts_per_100": ("alerts per 100 patients", 1),
    "net_benefit": ("net benefit", 4),
    "net_benefit_of_all": ("net benefit of alerting all", 4),
}


def _measure(study: StudyResults) -> Figures:
    return {inputs: _decisions(study.predictions("m3h", inputs)) for inputs in INPUT_NAMES}


def _decisions(predictions: Predictions) -> Figures:
    by_task: Figures = {}
    for task in predictions.binary_tasks(MIN_POSITIVES):
        probability, outcome, _ = pooled(predictions, [task])
        if points := decision_points(outcome, probability):
            by_task[task] = {
                "labelled": len(outcome),
                "positives": int(outcome.sum()),
                "points": points,
            }
    display = {t.name: t.display for t in predictions.tasks}
    return {
        "tasks": len(by_task),
        "display": {task: display[task] for task in by_task},
        "by_task": by_task,
        "mean": {point: _mean(by_task, point) for point in POINTS} if by_task else {},
    }


def _mean(by_task: Figures, point: str) -> dict[str, float]:
    """The mean over the tasks of each figure but the threshold; undefined figures are left out."""
    means = {}
    for name in _COLUMNS:
        values = [figures["points"][point][name] for figures in by_task.values()]
        known = [value for value in values if np.isfinite(value)]
        if name != "threshold" and known:
            means[name] = float(np.mean(known))
    return means


def _render(figures: Figures) -> list[str]:
    rows = [
        [input_name, label, *_cells(figures[inputs]["mean"][point], without=("threshold",))]
        for inputs, input_name in INPUT_NAMES.items()
        for point, label in POINTS.items()
        if figures[inputs]["mean"]
    ]
    head = [label for name, (label, _) in _COLUMNS.items() if name != "threshold"]
    all_inputs = figures["all"]
    return [
        paragraph(
            f"""M3H on unseen hospitals; means over the {all_inputs["tasks"]} tasks with at least
            {MIN_POSITIVES} positives. A patient is alerted if the probability is at least a
            threshold. Two thresholds find 80 and 90 % of the patients with the disease; two others
            alert at most 5 and 10 of 100 patients. They are read off these patients: at a new
            hospital, choose them on its own patients. Net benefit (Vickers and Elkin 2006): true
            alerts minus false alerts per patient, where a false alert costs the odds of the
            threshold. Without alerts it is 0. An alert of a diagnosis that is already charted
            counts, too."""
        ),
        table(["inputs", "threshold", *head], rows),
        *(
            details(f"By task, all inputs: {label}", _task_table(all_inputs, point))
            for point, label in POINTS.items()
        ),
    ]


def _task_table(figures: Figures, point: str) -> str:
    rows = [
        [figures["display"][task], of_task["positives"], *_cells(of_task["points"][point])]
        for task, of_task in figures["by_task"].items()
    ]
    return table(["task", "positives", *(label for label, _ in _COLUMNS.values())], rows)


def _cells(point: Figures, without: tuple[str, ...] = ()) -> list[str]:
    return [
        decimal(point.get(name), digits=digits)
        for name, (_, digits) in _COLUMNS.items()
        if name not in without
    ]


ALERTS = Section("decisions", "Alerts at a threshold", _measure, _render)
