"""The multitask gain: by task, by prevalence, and by the number of patients to learn from."""

from pathlib import Path

import numpy as np

from model.evaluation import plots
from model.evaluation.bootstrap import by_thirds, interval, rank_correlation
from model.evaluation.metrics import MIN_POSITIVES
from model.evaluation.sections import MODEL_NAMES, ONE_NETWORK, SINGLE_TASK_ONE, Figures, Section
from model.evaluation.sections.markdown import paragraph, percent_interval, table, with_interval
from model.evaluation.study.jobs import SHARES
from model.evaluation.study.results import StudyResults


def gain_figures(study: StudyResults) -> Figures:
    comparison = study.comparison([ONE_NETWORK, SINGLE_TASK_ONE], "measured", MIN_POSITIVES)
    gains = comparison.gains(ONE_NETWORK, SINGLE_TASK_ONE)
    predictions = comparison.predictions[ONE_NETWORK]
    binary = predictions.binary_tasks(MIN_POSITIVES)
    prevalence = {
        t: float(np.nanmean(predictions.outcome[:, predictions.column(t)])) for t in binary
    }
    display = {t.name: t.display for t in predictions.tasks}
    ordered = sorted(gains, key=lambda task: gains[task][0])
    binary_gains = {task: gains[task] for task in binary}
    return {
        "by_task": {task: interval(gains[task]) for task in ordered},
        "display": {task: display[task] for task in ordered},
        "gaining": [task for task in ordered if interval(gains[task])[1] > 0],
        "losing": [task for task in ordered if interval(gains[task])[2] < 0],
        "by_chance": 0.025 * len(ordered),
        "with_prevalence": rank_correlation(
            list(binary_gains.values()), np.array([prevalence[t] for t in binary_gains])
        ),
        "by_prevalence": by_thirds(binary_gains, prevalence),
    }


def _render_gain(figures: Figures) -> list[str]:
    rows = [
        [
            f"{100 * third['from']:.1f} to {100 * third['to']:.1f} %",
            third["tasks"],
            with_interval(third["gain"], "+"),
        ]
        for third in figures["by_prevalence"]
    ]
    return [
        paragraph(
            f"""One network for all tasks, compared with the same network for each task alone; vital
            signs, laboratory values and demographics. {len(figures["gaining"])} of
            {len(figures["by_task"])} tasks gain and {len(figures["losing"])} lose with an interval
            that excludes zero; by chance alone about {figures["by_chance"]:.0f} would do each."""
        ),
        "![Gain by task](gain.png)",
        table(["prevalence of the task", "tasks", "gain in AUROC"], rows),
        paragraph(
            f"""Rank correlation of gain and prevalence:
            {with_interval(figures["with_prevalence"], "+", 2)}."""
        ),
    ]


def _plot_gain(figures: Figures, folder: Path) -> None:
    names = figures["display"]
    plots.gains({names[t]: f for t, f in figures["by_task"].items()}, folder / "gain.png")


def _learning_curve(study: StudyResults) -> Figures:
    points = []
    for share in (*SHARES, 1.0):
        comparison = study.comparison(
            [ONE_NETWORK, SINGLE_TASK_ONE], "measured", MIN_POSITIVES, share=share
        )
        points.append(
            {
                "share": share,
                ONE_NETWORK: interval(comparison.mean[ONE_NETWORK]),
                SINGLE_TASK_ONE: interval(comparison.mean[SINGLE_TASK_ONE]),
                "gain": comparison.difference(ONE_NETWORK, SINGLE_TASK_ONE),
                "relative_gain": comparison.relative_gain(ONE_NETWORK, SINGLE_TASK_ONE),
            }
        )
    return {"points": points}


def _render_learning_curve(figures: Figures) -> list[str]:
    rows = [
        [
            f"{100 * point['share']:g} %",
            with_interval(point[ONE_NETWORK]),
            with_interval(point[SINGLE_TASK_ONE]),
            with_interval(point["gain"], "+"),
            percent_interval(point["relative_gain"]),
        ]
        for point in figures["points"]
    ]
    names = MODEL_NAMES[ONE_NETWORK], MODEL_NAMES[SINGLE_TASK_ONE]
    return [
        paragraph(
            """Vital signs, laboratory values and demographics. One network for all tasks, and one
            network for each task alone; both learn from the same hospitals and patients."""
        ),
        table(["training patients", *names, "gain", "relative gain"], rows),
        "![Learning curve](learning_curve.png)",
    ]


def _plot_learning_curve(figures: Figures, folder: Path) -> None:
    points = figures["points"]
    curves = {MODEL_NAMES[m]: [p[m] for p in points] for m in (ONE_NETWORK, SINGLE_TASK_ONE)}
    plots.learning_curve([p["share"] for p in points], curves, folder / "learning_curve.png")


GAIN = Section("gain", "Multitask gain by task", gain_figures, _render_gain, _plot_gain)
LEARNING_CURVE = Section(
    "learning_curve",
    "Learning curve",
    _learning_curve,
    _render_learning_curve,
    _plot_learning_curve,
)
