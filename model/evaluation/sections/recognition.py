"""Recognition or prediction: diseases charted later, and notes that name no disease."""

import numpy as np

from model.evaluation.bootstrap import Comparison, interval
from model.evaluation.folds import HEADLINE_HOURS
from model.evaluation.metrics import MIN_POSITIVES
from model.evaluation.sections import (
    ENSEMBLE_NAMES,
    INPUT_NAMES,
    MIN_POSITIVES_SMALL,
    MODEL_NAMES,
    ONE_NETWORK,
    Figures,
    Section,
)
from model.evaluation.sections.markdown import (
    details,
    join_words,
    paragraph,
    percent,
    table,
    with_interval,
)
from model.evaluation.study.jobs import LIGHTGBM_BAG, MASKED, MASKED_BASELINES
from model.evaluation.study.results import MissingPredictionsError, StudyResults

_MASKED_MODELS = (ONE_NETWORK, *MASKED_BASELINES)
_AHEAD = ("m3h_ahead_by", "one_network_ahead_by")


def _charted_later(study: StudyResults) -> Figures:
    figures: Figures = {}
    for inputs in INPUT_NAMES:
        models = [m for m in MODEL_NAMES if m == "m3h" or study.has(m, inputs)]
        predictions = {m: study.predictions(m, inputs) for m in models}
        m3h = predictions["m3h"]
        charted = study.cohort.samples.charted[m3h.rows].astype(np.float64)
        later = {m: p.charted_later(charted) for m, p in predictions.items()}
        comparison = Comparison(later, MIN_POSITIVES_SMALL)
        all_labels = study.comparison(models, inputs, MIN_POSITIVES_SMALL)
        diseases = [task.is_disease for task in m3h.tasks]
        tested = later["m3h"]
        display = {t.name: t.display for t in m3h.tasks}
        figures[inputs] = {
            "tasks": len(comparison.tasks),
            "display": {task: display[task] for task in comparison.tasks},
            "positives": {
                task: int(np.nansum(tested.outcome[:, tested.column(task)]))
                for task in comparison.tasks
            },
            "by_task": {
                task: {
                    m: interval(comparison.by_task[m][task])
                    for m in ("m3h", LIGHTGBM_BAG)
                    if m in models
                }
                for task in comparison.tasks
            },
            "diagnoses": int(np.nansum(m3h.outcome[:, diseases])),
            "charted_later": int(np.nansum(later["m3h"].outcome)),
            "models": {
                m: {
                    "charted_later": interval(comparison.mean[m]),
                    "same_tasks_as_usual": interval(all_labels.mean_over(m, comparison.tasks)),
                    **_ahead(comparison, m),
                }
                for m in models
            },
        }
    return figures


def _ahead(comparison: Comparison, model: str) -> Figures:
    """By how much M3H is ahead: its ensemble of ensembles, one of its networks of single models."""
    if model in ("m3h", ONE_NETWORK):
        return {}
    key, m3h = (
        ("m3h_ahead_by", "m3h")
        if model in ENSEMBLE_NAMES
        else ("one_network_ahead_by", ONE_NETWORK)
    )
    return {key: comparison.difference(m3h, model)}


def _render_charted_later(figures: Figures) -> list[str]:
    all_inputs = figures["all"]
    later, diagnoses = all_inputs["charted_later"], all_inputs["diagnoses"]
    rows = [
        [
            input_name,
            MODEL_NAMES[model],
            with_interval(aurocs["charted_later"]),
            with_interval(aurocs["same_tasks_as_usual"]),
            next((with_interval(aurocs[k], "+") for k in _AHEAD if k in aurocs), ""),
        ]
        for inputs, input_name in INPUT_NAMES.items()
        for model, aurocs in figures[inputs]["models"].items()
    ]
    by_task = [
        [
            all_inputs["display"][task],
            all_inputs["positives"][task],
            *(with_interval(aurocs[m]) if m in aurocs else "" for m in ("m3h", LIGHTGBM_BAG)),
        ]
        for task, aurocs in all_inputs["by_task"].items()
    ]
    head = ["inputs", "model", "AUROC, first charted later", "AUROC with all labels, same tasks"]
    return [
        paragraph(
            f"""For diseases, the first endpoint is a diagnosis that is not yet known at the time of
            the prediction (`as_of`, 24 h). {later} of {diagnoses} diagnoses
            ({percent(later / max(diagnoses, 1))}) were first charted after `as_of`. The other
            diagnoses were already written down: finding them is recognition. In this section, only
            diagnoses charted later count as positives. A patient whose disease was charted before
            is left out of the disease's figure; a patient who never had it is a negative. The table
            has the {all_inputs["tasks"]} tasks with at least {MIN_POSITIVES_SMALL} such positives.
            They are few, so read the intervals. Ensembles are compared with M3H's ensemble, single
            models with one M3H network. MIMIC-IV codes diagnoses without a time, so this endpoint
            cannot be measured there."""
        ),
        table([*head, "M3H is ahead by (first charted later)"], rows),
        details(
            "By task, all inputs, first charted later",
            table(["task", "positives", *(MODEL_NAMES[m] for m in ("m3h", LIGHTGBM_BAG))], by_task),
        ),
    ]


def _masked(study: StudyResults) -> Figures:
    if study.masked is None:
        raise MissingPredictionsError("the study has no cohort with masked notes")
    rows = study.masked.samples.landmark == HEADLINE_HOURS
    phrases = study.masked.samples.masked[rows]
    after, before = (c.samples.lengths[rows].sum() for c in (study.masked, study.cohort))
    predictions = {}
    for model in _MASKED_MODELS:
        without_notes = "without_notes" if model == ONE_NETWORK else "measured"
        predictions[model] = study.predictions(model, "all")
        predictions[f"{model} masked"] = study.predictions(model, MASKED)
        predictions[f"{model} without"] = study.predictions(model, without_notes)
    comparison = Comparison(predictions, MIN_POSITIVES)
    return {
        "stays": int(rows.sum()),
        "stays_touched": int((phrases > 0).sum()),
        "phrases": int(phrases.sum()),
        "share_of_tokens": float(1 - after / max(before, 1)),
        "models": {
            model: {
                "all": interval(comparison.mean[model]),
                "masked": interval(comparison.mean[f"{model} masked"]),
                "without_notes": interval(comparison.mean[f"{model} without"]),
                "change": comparison.difference(f"{model} masked", model),
            }
            for model in _MASKED_MODELS
        },
        "one_network_ahead_by": {
            model: comparison.difference(f"{ONE_NETWORK} masked", f"{model} masked")
            for model in MASKED_BASELINES
        },
    }


def _render_masked(figures: Figures) -> list[str]:
    rows = [
        [
            MODEL_NAMES[model],
            *(with_interval(aurocs[name]) for name in ("all", "masked", "without_notes")),
            with_interval(aurocs["change"], "+"),
        ]
        for model, aurocs in figures["models"].items()
    ]
    head = ["model", "all inputs", "masked notes", "no notes", "change by masking"]
    return [
        paragraph(
            f"""Every phrase of the notes that names any of the 40 diseases (by display name,
            diagnosis string or a synonym of the wards) was removed before training and testing: at
            24 h {figures["phrases"]} phrases of {figures["stays_touched"]} of the
            {figures["stays"]} stays, {percent(figures["share_of_tokens"])} of the notes' tokens
            and phrases. A phrase that only suggests a disease (insulin, dialysis, a consultation)
            stays, and so do treatments. "No notes": M3H with tabular data, series and treatments;
            the other models with measured inputs. Single models throughout."""
        ),
        table(head, rows),
        paragraph(
            "With masked notes, one M3H network is ahead of "
            + join_words(
                [
                    f"{MODEL_NAMES[model]} by {with_interval(difference, '+')}"
                    for model, difference in figures["one_network_ahead_by"].items()
                ]
            )
            + "."
        ),
    ]


CHARTED_LATER = Section(
    "charted_later",
    "Diseases first charted later",
    _charted_later,
    _render_charted_later,
)
MASKED_NOTES = Section("masked", "Recognition or prediction: masked notes", _masked, _render_masked)
