"""What it brings to learn all tasks together: by task, prevalence, and how much is learned from."""

from pathlib import Path

import numpy as np

from model.evaluation import plots
from model.evaluation.evaluate import FEWEST_POSITIVES
from model.evaluation.measure import Found, by_thirds, interval, rank_correlation
from model.evaluation.sections import NAMES, ONE, Section
from model.evaluation.sections.markdown import percents, prose, table, with_interval
from model.evaluation.study import SHARES, SINGLE_TASK
from model.evaluation.study_results import Kept


def _gain(kept: Kept) -> Found:
    compared = kept.compared([ONE, SINGLE_TASK], "measured", FEWEST_POSITIVES)
    gains = compared.gain(ONE, SINGLE_TASK)
    tested = compared.tested[ONE]
    binary = tested.binary_with(FEWEST_POSITIVES)
    share = {t: float(np.nanmean(tested.outcome[:, tested.column(t)])) for t in binary}
    display = {t.name: t.display for t in tested.tasks}
    ordered = sorted(gains, key=lambda task: gains[task][0])
    of_binary = {task: gains[task] for task in binary}
    return {
        "by_task": {task: interval(gains[task]) for task in ordered},
        "display": {task: display[task] for task in ordered},
        "gaining": [task for task in ordered if interval(gains[task])[1] > 0],
        "losing": [task for task in ordered if interval(gains[task])[2] < 0],
        "by_chance": 0.025 * len(ordered),
        "with_prevalence": rank_correlation(
            list(of_binary.values()), np.array([share[t] for t in of_binary])
        ),
        "by_prevalence": by_thirds(of_binary, share),
    }


def _tell_gain(found: Found) -> list[str]:
    rows = [
        [
            f"{100 * part['from']:.1f} to {100 * part['to']:.1f} %",
            part["tasks"],
            with_interval(part["gain"], "+"),
        ]
        for part in found["by_prevalence"]
    ]
    return [
        prose(
            f"""One network for all tasks against the same network for each task alone; vital signs,
            laboratory values and demographics. Of {len(found["by_task"])} tasks
            {len(found["gaining"])} gain and {len(found["losing"])} lose with an interval that
            excludes zero; chance alone would make about {found["by_chance"]:.0f} of each."""
        ),
        "![Gain by task](gain.png)",
        table(["prevalence of the task", "tasks", "gain in AUROC"], rows),
        prose(
            f"""Rank correlation of gain and prevalence:
            {with_interval(found["with_prevalence"], "+", 2)}."""
        ),
    ]


def _draw_gain(found: Found, folder: Path) -> None:
    names = found["display"]
    plots.gains({names[t]: f for t, f in found["by_task"].items()}, folder / "gain.png")


def _learning_curve(kept: Kept) -> Found:
    points = []
    for share in (*SHARES, 1.0):
        compared = kept.compared([ONE, SINGLE_TASK], "measured", FEWEST_POSITIVES, share=share)
        points.append(
            {
                "share": share,
                ONE: interval(compared.mean[ONE]),
                SINGLE_TASK: interval(compared.mean[SINGLE_TASK]),
                "gain": compared.ahead(ONE, SINGLE_TASK),
                "relative_gain": compared.relative_gain(ONE, SINGLE_TASK),
            }
        )
    return {"points": points}


def _tell_learning_curve(found: Found) -> list[str]:
    rows = [
        [
            f"{100 * point['share']:g} %",
            with_interval(point[ONE]),
            with_interval(point[SINGLE_TASK]),
            with_interval(point["gain"], "+"),
            percents(point["relative_gain"]),
        ]
        for point in found["points"]
    ]
    head = ["patients learned from", NAMES[ONE], NAMES[SINGLE_TASK], "gain", "relative gain"]
    return [
        "Vital signs, laboratory values and demographics; the same random patients for both.",
        table(head, rows),
        "![Learning curve](learning_curve.png)",
    ]


def _draw_learning_curve(found: Found, folder: Path) -> None:
    points = found["points"]
    curves = {NAMES[m]: [p[m] for p in points] for m in (ONE, SINGLE_TASK)}
    plots.learning_curve([p["share"] for p in points], curves, folder / "learning_curve.png")


GAIN = Section("gain", "What learning together brings, task by task", _gain, _tell_gain, _draw_gain)
LEARNING_CURVE = Section(
    "learning_curve",
    "The learning curve",
    _learning_curve,
    _tell_learning_curve,
    _draw_learning_curve,
)
