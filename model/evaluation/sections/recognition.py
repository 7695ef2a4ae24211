"""Recognition or prediction: diseases charted later, and notes that name no disease."""

import numpy as np

from model.evaluation.bootstrap import Comparison, interval
from model.evaluation.folds import HEADLINE_HOURS
from model.evaluation.metrics import MIN_POSITIVES
from model.evaluation.sections import (
    COMPARED_MODELS,
    INPUT_NAMES,
    MIN_POSITIVES_SMALL,
    MODEL_NAMES,
    ONE_NETWORK,
    Figures,
    Section,
)
from model.evaluation.sections.markdown import paragraph, percent, table, with_interval
from model.evaluation.study.jobs import MASKED
from model.evaluation.study.results import MissingPredictionsError, StudyResults


def _charted_later(study: StudyResults) -> Figures:
    figures: Figures = {}
    for inputs in INPUT_NAMES:
        predictions = {m: study.predictions(m, inputs) for m in COMPARED_MODELS}
        m3h = predictions["m3h"]
        charted = study.cohort.samples.charted[m3h.rows].astype(np.float64)
        later = {m: p.charted_later(charted) for m, p in predictions.items()}
        comparison = Comparison(later, MIN_POSITIVES_SMALL)
        all_labels = study.comparison(COMPARED_MODELS, inputs, MIN_POSITIVES_SMALL)
        diseases = [task.is_disease for task in m3h.tasks]
        figures[inputs] = {
            "tasks": len(comparison.tasks),
            "diagnoses": int(np.nansum(m3h.outcome[:, diseases])),
            "charted_later": int(np.nansum(later["m3h"].outcome)),
            "models": {
                m: {
                    "charted_later": interval(comparison.mean[m]),
                    "same_tasks_as_usual": interval(all_labels.mean_over(m, comparison.tasks)),
                    **({} if m == "m3h" else {"m3h_ahead_by": comparison.difference("m3h", m)}),
                }
                for m in COMPARED_MODELS
            },
        }
    return figures


def _render_charted_later(figures: Figures) -> list[str]:
    all_inputs = figures["all"]
    later, diagnoses = all_inputs["charted_later"], all_inputs["diagnoses"]
    rows = [
        [
            input_name,
            MODEL_NAMES[model],
            with_interval(aurocs["charted_later"]),
            with_interval(aurocs["same_tasks_as_usual"]),
            with_interval(aurocs["m3h_ahead_by"], "+") if "m3h_ahead_by" in aurocs else "",
        ]
        for inputs, input_name in INPUT_NAMES.items()
        for model, aurocs in figures[inputs]["models"].items()
    ]
    head = ["inputs", "model", "AUROC, first charted later", "AUROC with all labels, same tasks"]
    return [
        paragraph(
            f"""{later} of {diagnoses} diagnoses ({percent(later / max(diagnoses, 1))}) were first
            charted after `as_of`. The other diagnoses were already written down at the time of the
            prediction: finding them is recognition. In this section, only diagnoses charted later
            count as positives. A patient whose disease was charted before is left out of the
            disease's figure; a patient who never had it is a negative. The table has the
            {all_inputs["tasks"]} tasks with at least {MIN_POSITIVES_SMALL} such positives. They are
            few, so read the intervals."""
        ),
        table([*head, "M3H is ahead by (first charted later)"], rows),
    ]


def _masked(study: StudyResults) -> Figures:
    if study.masked is None:
        raise MissingPredictionsError("the study has no cohort with masked notes")
    rows = study.masked.samples.landmark == HEADLINE_HOURS
    phrases = study.masked.samples.masked[rows]
    after, before = (c.samples.lengths[rows].sum() for c in (study.masked, study.cohort))
    predictions = {}
    for model, masked_model, without_notes in (
        (ONE_NETWORK, "m3h", "without_notes"),
        ("logistic_regression", "logistic_regression", "measured"),
    ):
        predictions[model] = study.predictions(model, "all")
        predictions[f"{model} masked"] = study.predictions(masked_model, MASKED)
        predictions[f"{model} without"] = study.predictions(masked_model, without_notes)
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
            for model in (ONE_NETWORK, "logistic_regression")
        },
        "m3h_ahead_by": comparison.difference(
            f"{ONE_NETWORK} masked", "logistic_regression masked"
        ),
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
            logistic regression with measured inputs."""
        ),
        table(head, rows),
        paragraph(
            f"""With masked notes, one network is ahead of logistic regression by
            {with_interval(figures["m3h_ahead_by"], "+")}."""
        ),
    ]


CHARTED_LATER = Section(
    "charted_later",
    "Recognition or prediction: diseases first charted later",
    _charted_later,
    _render_charted_later,
)
MASKED_NOTES = Section("masked", "Recognition or prediction: masked notes", _masked, _render_masked)
