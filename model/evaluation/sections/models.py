"""Comparison of models, on unseen hospitals and on another database."""

from collections.abc import Callable, Mapping

import numpy as np

from model.evaluation.bootstrap import Comparison, interval
from model.evaluation.metrics import MIN_POSITIVES
from model.evaluation.predictions import auprc_and_brier, length_of_stay_metrics
from model.evaluation.sections import (
    ENSEMBLE_NAMES,
    MIN_POSITIVES_SMALL,
    MODEL_NAMES,
    ONE_NETWORK,
    SINGLE_NAMES,
    SINGLE_TASK_ONE,
    Figures,
    Section,
)
from model.evaluation.sections.markdown import (
    decimal,
    details,
    join_words,
    paragraph,
    percent_interval,
    table,
    with_interval,
)
from model.evaluation.study.jobs import SINGLE_TASK
from model.evaluation.study.results import MissingPredictionsError, StudyResults


def _compare(inputs: str, *, external: bool = False) -> Callable[[StudyResults], Figures]:
    min_positives = MIN_POSITIVES_SMALL if external else MIN_POSITIVES

    def measure(study: StudyResults) -> Figures:
        if external and study.external is None:
            raise MissingPredictionsError("the study has no other database")
        models = [m for m in MODEL_NAMES if study.has(m, inputs, external=external)]
        if "m3h" not in models:
            study.predictions("m3h", inputs, external=external)  # raises the error
        comparison = study.comparison(models, inputs, min_positives, external=external)
        m3h = comparison.predictions["m3h"]
        figures: Figures = {
            "stays": len(m3h.rows),
            "tasks": len(comparison.tasks),
            "fewest_positives": min_positives,
            "display": {t.name: t.display for t in m3h.tasks if t.name in comparison.tasks},
            "positives": {
                t: int(np.nansum(m3h.outcome[:, m3h.column(t)]))
                for t in m3h.binary_tasks(min_positives)
            },
            "models": {m: _model_figures(comparison, m, min_positives) for m in models},
            "not_yet": [
                MODEL_NAMES[m]
                for m in MODEL_NAMES
                if m not in models and study.planned(m, inputs, external=external)
            ],
        }
        if SINGLE_TASK in models:
            figures["gain_of_ensemble"] = comparison.difference("m3h", SINGLE_TASK)
        if SINGLE_TASK_ONE in models:
            figures["gain_of_one_network"] = comparison.difference(ONE_NETWORK, SINGLE_TASK_ONE)
            figures["relative_gain"] = comparison.relative_gain(ONE_NETWORK, SINGLE_TASK_ONE)
        if external:
            _add_changes(study, inputs, comparison, figures)
        return figures

    return measure


def _model_figures(comparison: Comparison, model: str, min_positives: int) -> Figures:
    predictions = comparison.predictions[model]
    figures: Figures = {
        "auroc": interval(comparison.mean[model]),
        "by_task": {t: a[0] for t, a in comparison.by_task[model].items()},
    }
    # Like with like: ensembles with the ensemble, single models with one network.
    if model in ENSEMBLE_NAMES and model != "m3h":
        figures["m3h_ahead_by"] = comparison.difference("m3h", model)
    elif model in SINGLE_NAMES and model != ONE_NETWORK:
        figures["one_network_ahead_by"] = comparison.difference(ONE_NETWORK, model)
    figures |= auprc_and_brier(predictions, min_positives)
    return figures | length_of_stay_metrics(predictions)


def _add_changes(study: StudyResults, inputs: str, external: Comparison, figures: Figures) -> None:
    """Adds each model's AUROC in eICU on the same tasks, and the change from it."""
    for model, of_model in figures["models"].items():
        if study.has(model, inputs):
            internal = study.comparison([model], inputs, MIN_POSITIVES_SMALL)
            tasks = [t for t in external.tasks if t in internal.by_task[model]]
            in_eicu = internal.mean_over(model, tasks)
            of_model["same_tasks_in_eicu"] = interval(in_eicu)
            # Replicates of two sets of patients are not paired.
            of_model["change"] = interval(external.mean_over(model, tasks) - in_eicu)


def _render(figures: Figures) -> list[str]:
    models = figures["models"]
    blocks = [
        paragraph(
            f"""{figures["stays"]} stays; means over the {figures["tasks"]} tasks with at least
            {figures["fewest_positives"]} positives. Diseases count as positive if they were coded
            at any time in the stay, before or after the prediction: for diseases, this is the
            second endpoint."""
        ),
        _models_table(models, ENSEMBLE_NAMES, "m3h_ahead_by", "M3H is ahead by"),
        paragraph(
            """Single models. The networks learn from the hospitals of the first member of an
            ensemble; LightGBM learns from all, because it holds out none for early stopping:"""
        ),
        _models_table(models, SINGLE_NAMES, "one_network_ahead_by", "one M3H network is ahead by"),
        "Hospital operations:",
        _operations_table(models),
    ]
    medians = [m["mae_of_the_median"] for m in models.values() if "mae_of_the_median" in m]
    if medians:
        blocks.append(
            paragraph(
                f"""Predicting the median stay for every patient has a mean absolute error of
                {medians[0]:.2f} d. The row of logistic regression uses ridge regression of log-days
                for the remaining stay."""
            )
        )
    if "relative_gain" in figures:
        of_ensembles = (
            f"{with_interval(figures['gain_of_ensemble'], '+')} of ensembles,"
            if "gain_of_ensemble" in figures
            else ""
        )
        blocks.append(
            paragraph(
                f"""Multitask gain in mean AUROC: {of_ensembles}
                {with_interval(figures["gain_of_one_network"], "+")} of one network for all tasks
                over one network for each task alone ({percent_interval(figures["relative_gain"])},
                mean over tasks of the relative gain). Both sides have as many members, which learn
                from the same hospitals."""
            )
        )
    if figures["not_yet"]:
        blocks.append(f"Not yet run: {join_words(figures['not_yet'])}.")
    return [*blocks, details("By task", _tasks_table(figures))]


def _models_table(models: Figures, names: Mapping[str, str], ahead_by: str, label: str) -> str:
    """The models in `names`, and by how much M3H is ahead of each: figure `ahead_by`."""
    rows = []
    shown = {model: models[model] for model in names if model in models}
    for model, figures in shown.items():
        ahead = with_interval(figures[ahead_by], "+") if ahead_by in figures else ""
        row = [names[model], with_interval(figures["auroc"]), ahead]
        row += [decimal(figures["auprc"]), decimal(figures["brier"])]
        rows.append([*row, with_interval(figures["change"], "+")] if "change" in figures else row)
    head = ["model", "AUROC", label, "AUPRC", "Brier"]
    if any("change" in figures for figures in shown.values()):
        head.append("change from eICU, same tasks")
    return table(head, rows)


def _operations_table(models: Figures) -> str:
    rows = []
    for model, figures in models.items():
        aurocs = figures["by_task"]
        rows.append(
            [
                MODEL_NAMES[model],
                decimal(aurocs.get("in_hospital_mortality")),
                decimal(aurocs.get("discharge_disposition")),
                f"{figures['mae_days']:.2f} d" if "mae_days" in figures else "",
                decimal(figures.get("r2_log_days"), digits=2),
            ]
        )
    head = [
        *("model", "mortality: AUROC", "disposition: macro-AUROC"),
        *("remaining stay: mean absolute error", "R² of its logarithm"),
    ]
    return table(head, rows)


def _tasks_table(figures: Figures) -> str:
    models = figures["models"]
    rows = [
        [
            display,
            figures["positives"].get(task, ""),
            *(decimal(of_model["by_task"].get(task)) for of_model in models.values()),
        ]
        for task, display in figures["display"].items()
    ]
    return table(["task", "positives", *(MODEL_NAMES[m] for m in models)], rows)


_MEASURED = "Vital signs, laboratory values, demographics"
_ALL = "All inputs: also treatments and notes"
_EXTERNAL = "trained on eICU, tested on MIMIC-IV"

MEASURED = Section("measured", _MEASURED, _compare("measured"), _render)
ALL = Section("all", _ALL, _compare("all"), _render)
MEASURED_EXTERNAL = Section(
    "measured_external", f"{_MEASURED}: {_EXTERNAL}", _compare("measured", external=True), _render
)
ALL_EXTERNAL = Section(
    "all_external", f"{_ALL}: {_EXTERNAL}", _compare("all", external=True), _render
)
