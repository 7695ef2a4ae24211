"""Recognition or prediction: what is told that was not yet known, or not yet named."""

import numpy as np

from model.evaluation.evaluate import FEWEST_POSITIVES, HEADLINE_HOURS
from model.evaluation.measure import Compared, Found, Tested, interval
from model.evaluation.sections import BESIDE, FEWEST_FEW, INPUTS, NAMES, ONE, Section
from model.evaluation.sections.markdown import percent, prose, table, with_interval
from model.evaluation.study import MASKED
from model.evaluation.study_results import Kept, NotYet


def _charted_later(kept: Kept) -> Found:
    found: Found = {}
    for inputs in INPUTS:
        usual = {m: kept.tested(m, inputs) for m in BESIDE}
        first = usual["m3h"]
        charted = kept.cohort.samples.charted[first.rows].astype(np.float64)
        later = {m: tested.foreseen(charted) for m, tested in usual.items()}
        compared = Compared(later, FEWEST_FEW)
        as_usual = kept.compared(BESIDE, inputs, FEWEST_FEW)
        diseases = [task.is_disease for task in first.tasks]
        found[inputs] = {
            "tasks": len(compared.tasks),
            "diagnoses": int(np.nansum(first.outcome[:, diseases])),
            "charted_later": int(np.nansum(later["m3h"].outcome)),
            "models": {
                m: {
                    "charted_later": interval(compared.mean[m]),
                    "same_tasks_as_usual": interval(as_usual.mean_of(m, compared.tasks)),
                    **({} if m == "m3h" else {"m3h_ahead_by": compared.ahead("m3h", m)}),
                }
                for m in BESIDE
            },
        }
    return found


def _tell_charted_later(found: Found) -> list[str]:
    here = found["all"]
    rows = [
        [
            told,
            NAMES[model],
            with_interval(figures["charted_later"]),
            with_interval(figures["same_tasks_as_usual"]),
            with_interval(figures["m3h_ahead_by"], "+") if "m3h_ahead_by" in figures else "",
        ]
        for inputs, told in INPUTS.items()
        for model, figures in found[inputs]["models"].items()
    ]
    head = ["inputs", "model", "AUROC, first charted later", "AUROC as usual, same tasks"]
    return [
        prose(
            f"""Of {here["diagnoses"]} diagnoses {here["charted_later"]}
            ({percent(here["charted_later"] / max(here["diagnoses"], 1))}) were first charted after
            `as_of`. All others were already written down when the prediction was made: to tell them
            is recognition. Here only the former count as positives; who had a disease charted
            before is left out of its figure, and who never had it is a negative, as ever. The
            {here["tasks"]} tasks with at least {FEWEST_FEW} such positives. They are few: read the
            intervals."""
        ),
        table([*head, "M3H is ahead by (first charted later)"], rows),
    ]


def _masked(kept: Kept) -> Found:
    if kept.masked is None:
        raise NotYet("the study has no cohort whose notes name no disease")
    at = kept.masked.samples.landmark == HEADLINE_HOURS
    taken = kept.masked.samples.masked[at]
    left, before = (c.samples.lengths[at].sum() for c in (kept.masked, kept.cohort))
    tested: dict[str, Tested] = {}
    for model, alone, without_notes in (
        (ONE, "m3h", "without_notes"),
        ("logistic_regression", "logistic_regression", "measured"),
    ):
        tested[model] = kept.tested(model, "all")
        tested[f"{model} masked"] = kept.tested(alone, MASKED)
        tested[f"{model} without"] = kept.tested(alone, without_notes)
    compared = Compared(tested, FEWEST_POSITIVES)
    return {
        "stays": int(at.sum()),
        "stays_touched": int((taken > 0).sum()),
        "phrases": int(taken.sum()),
        "share_of_tokens": float(1 - left / max(before, 1)),
        "models": {
            model: {
                "all": interval(compared.mean[model]),
                "masked": interval(compared.mean[f"{model} masked"]),
                "without_notes": interval(compared.mean[f"{model} without"]),
                "change": compared.ahead(f"{model} masked", model),
            }
            for model in (ONE, "logistic_regression")
        },
        "m3h_ahead_by": compared.ahead(f"{ONE} masked", "logistic_regression masked"),
    }


def _tell_masked(found: Found) -> list[str]:
    rows = [
        [
            NAMES[model],
            *(with_interval(figures[name]) for name in ("all", "masked", "without_notes")),
            with_interval(figures["change"], "+"),
        ]
        for model, figures in found["models"].items()
    ]
    head = ["model", "all inputs", "no disease named", "no notes", "change by masking"]
    return [
        prose(
            f"""Each phrase of the notes that names any of the 40 diseases (by its display name, its
            diagnosis strings or what the wards call it) was taken out, before training and before
            testing: at 24 h {found["phrases"]} phrases of {found["stays_touched"]} of the
            {found["stays"]} stays, {percent(found["share_of_tokens"])} of the notes' tokens
            and phrases. What only suggests a disease (insulin, dialysis, a consultation) stays,
            and so do treatments. "No notes": M3H from tabular data, series and treatments;
            logistic regression from what is measured."""
        ),
        table(head, rows),
        prose(
            f"""With no disease named, one network is ahead of logistic regression by
            {with_interval(found["m3h_ahead_by"], "+")}."""
        ),
    ]


CHARTED_LATER = Section(
    "charted_later",
    "Recognition or prediction: diseases first charted later",
    _charted_later,
    _tell_charted_later,
)
MASKED_NOTES = Section(
    "masked", "Recognition or prediction: notes that name no disease", _masked, _tell_masked
)
