"""The model card of a bundle, in Markdown.

The card has the headings of model cards (Mitchell et al. 2019). Its values come from the manifest
only; the manifest holds the figures of the report (`results.json` of `m3h-model evaluate`). Figures
that the report lacks are "not measured". The text is in `templates/model_card.md.j2`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from export.card.text import (
    NOT_MEASURED,
    Results,
    Rows,
    interval,
    interval_of,
    join_words,
    number,
    table,
)
from schemas.manifest import Manifest, MetricChange, Quantization, Recalibration, ServedTask
from schemas.tim import Agreement, Tim
from service.prediction.phenotypes import describe_phenotypes

SHIFTS, CHANGES, GAINS, CELLS = 10, 5, 3, 10  # how many the card lists
# The sections of the report that a manifest holds; the card shows all but "decisions". A file
# without any of them is not a report.
SECTIONS = (
    "measured",
    "all",
    "measured_external",
    "all_external",
    "acting",
    "decisions",
    "groups",
    "landmarks",
    "charted_later",
    "masked",
    "recalibration",
)
_INPUTS = {
    "measured": "vital signs, laboratory values, demographics",
    "all": "also treatments and notes",
}
# Each with the model that takes its place in reports from before.
_OTHER_MODELS = {
    "shared_trunk": "shared_trunk",
    "single_task": "single_task",
    "lightgbm_bag": "lightgbm",
    "logistic_regression": "logistic_regression",
}


def model_card(manifest: Manifest, tim: Tim | None = None) -> str:
    """The model card. `tim`: the task interaction matrix of the bundle, if it has one."""
    results = manifest.evaluation
    display = {facts.task.name: facts.task.display for facts in manifest.tasks}
    recalibration, reduction = manifest.recalibration, manifest.reduction
    environment = Environment(
        loader=PackageLoader("export.card"),
        autoescape=False,  # noqa: S701 (Markdown)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    first, last = manifest.trained_hours
    return environment.get_template("model_card.md.j2").render(
        NOT_MEASURED=NOT_MEASURED,
        table=table,
        manifest=manifest,
        counts=_task_counts(manifest),
        hours={"first": f"{first:g}", "last": f"{last:g}"},
        personal_inputs=join_words(name.partition("=")[0] for name in manifest.spec.tabular_names),
        recalibration=recalibration,
        recalibration_rows=recalibration and _recalibration_rows(recalibration, display),
        reduction=reduction,
        reduction_rows=reduction and _reduction_rows(reduction, display),
        evaluated=any(name in results for name in SECTIONS),
        cohort=manifest.cohorts[0].name,
        stays=next((results[i].get("stays") for i in _INPUTS if i in results), None),
        training_rows=_training_rows(manifest),
        served_cohort=recalibration.cohort if recalibration else manifest.cohorts[0].name,
        ranking_rows=_ranking_rows(results),
        calibration_rows=_calibration_rows(results.get("acting")),
        min_positives=min(
            (results[i].get("fewest_positives", 0) for i in _INPUTS if i in results), default=0
        ),
        task_rows=[_task_row(facts, results) for facts in manifest.tasks],
        group_rows=_group_rows(results.get("groups", {})),
        landmark_rows=_landmark_rows(results.get("landmarks", {})),
        recognition_rows=_recognition_rows(results.get("charted_later", {})),
        masked=_masked(results),
        recalibration_effect=_recalibration_effect(results.get("recalibration")),
        behaviour=_behaviour(results.get("behaviour")),
        phenotypes=describe_phenotypes(manifest),
        tim=tim and _tim_values(tim, display),
        joint_patients=sum(c.with_notes_and_image for c in manifest.cohorts),
    )


# ---- the model -----------------------------------------------------------------------------------


def _task_counts(manifest: Manifest) -> dict[str, int]:
    tasks = [facts.task for facts in manifest.tasks]
    diseases = sum(task.is_disease for task in tasks)
    phenotypes = sum(task.kind == "clustering" for task in tasks)
    return {
        "tasks": len(tasks),
        "diseases": diseases,
        "operations": len(tasks) - diseases - phenotypes,
        "phenotypes": phenotypes,
    }


def _recalibration_rows(
    recalibration: Recalibration, display: Mapping[str, str]
) -> dict[str, Sequence[Any]]:
    """The largest shifts by task; the shifts of classes; the moved ends of intervals."""
    shifts = sorted(recalibration.shift.items(), key=lambda item: -abs(item[1]))
    return {
        "shifts": [[display[task], f"{shift:+.2f}"] for task, shift in shifts[:SHIFTS]],
        "classes": [
            (display[task], join_words(f"{name} {shift:+.2f}" for name, shift in classes.items()))
            for task, classes in recalibration.classes.items()
        ],
        "ends": [
            (display[task], f"{low:+.2f}", f"{high:+.2f}")
            for task, (low, high) in recalibration.ends.items()
        ],
    }


def _reduction_rows(reduction: Quantization, display: Mapping[str, str]) -> dict[str, Any]:
    """The precision of each graph, and the tasks that lose most."""
    most = sorted(reduction.tasks.items(), key=lambda item: -_loss_share(item[1], reduction))
    return {
        "patients": join_words(
            f"{held_out.patients} patients of {held_out.cohort} ({held_out.source})"
            for held_out in reduction.held_out
        ),
        "largest_difference": f"{reduction.largest_difference:.4f}",
        "graphs": [
            [
                name,
                graph.precision,
                ", ".join(f"{share:.2f} of {n}" for n, share in graph.time.items()) or NOT_MEASURED,
                graph.reason or "",
            ]
            for name, graph in reduction.graphs.items()
        ],
        "tasks": [
            [
                display[name],
                change.metric,
                f"{change.before:.4f}",
                f"{change.after:.4f}",
                f"{reduction.limits[change.metric]:g}",
            ]
            for name, change in most[:CHANGES]
        ],
    }


def _loss_share(change: MetricChange, reduction: Quantization) -> float:
    """A task's loss as a share of its limit; tasks with too few patients come last."""
    return change.loss / reduction.limits[change.metric] if change.judged else -math.inf


def _training_rows(manifest: Manifest) -> Rows:
    return [
        [
            cohort.name,
            cohort.patients,
            cohort.samples,
            ", ".join(f"{hours:g}" for hours in cohort.landmarks_hours) or "none",
            cohort.source,
        ]
        for cohort in manifest.cohorts
    ]


def _tim_values(tim: Tim, display: Mapping[str, str]) -> dict[str, Any]:
    """The certain cells, and the largest and smallest gains of learning all tasks together."""
    cells = [
        (value, tim.lower[i][j], tim.upper[i][j], display[source], display[task], tim.metric[i])
        for i, source in enumerate(tim.sources)
        for j, task in enumerate(tim.tasks)
        if (value := tim.matrix[i][j]) is not None and tim.certain[i][j]
    ]
    cells.sort(key=lambda cell: -abs(cell[0]))
    by_task = zip(tim.multitask_gain, tim.gain_lower, tim.gain_upper, tim.sources, strict=True)
    gains = sorted(gain for gain in by_task if gain[0] is not None)
    return {
        "coalitions": tim.coalitions,
        "patients": tim.patients,
        "pairs": sum(value is not None for row in tim.matrix for value in row),
        "certain": len(cells),
        "gains": join_words(
            f"{display[task]} {gain:+.3f} [{low:+.3f}, {high:+.3f}]"
            for gain, low, high, task in (*gains[: -GAINS - 1 : -1], *gains[:GAINS])
        ),
        "halves": tim.halves and _agreement(tim.halves),
        "attention": tim.attention_agreement and _agreement(tim.attention_agreement),
        "rows": [
            [source, task, f"{value:+.4f} [{low:+.4f}, {high:+.4f}]", metric]
            for value, low, high, source, task, metric in cells[:CELLS]
        ],
    }


def _agreement(agreement: Agreement) -> str:
    return f"{agreement.value:.2f} [{agreement.lower:.2f}, {agreement.upper:.2f}]"


# ---- the figures of the report -------------------------------------------------------------------


def _ranking_rows(results: Results) -> Rows:
    rows: Rows = []
    for inputs, name in _INPUTS.items():
        for key, tested_on in ((inputs, "unseen hospitals"), (f"{inputs}_external", "external")):
            models = results.get(key, {}).get("models", {})
            if "m3h" not in models:
                rows.append([name, tested_on, "", NOT_MEASURED, *([""] * len(_OTHER_MODELS))])
                continue
            ahead = [
                models.get(other, models.get(before, {})).get("m3h_ahead_by")
                for other, before in _OTHER_MODELS.items()
            ]
            auroc = interval(models["m3h"]["auroc"])
            differences = [NOT_MEASURED if a is None else interval(a, "+") for a in ahead]
            rows.append([name, tested_on, results[key]["tasks"], auroc, *differences])
    return rows


def _calibration_rows(results: Results | None) -> Rows:
    if not results or "calibration" not in results:
        return []
    c, s = results["calibration"], results["coverage"]
    summary = results.get("summary") or {}
    median, within = summary.get("median", {}), summary.get("share_within", {})
    return [
        ["calibration slope, median over tasks", number(median.get("slope"))],
        ["share of tasks whose slope is within a quarter of 1", number(within.get("slope"))],
        ["observed / expected, median over tasks", number(median.get("observed_to_expected"))],
        [
            "share of tasks whose observed / expected is within a quarter of 1",
            number(within.get("observed_to_expected")),
        ],
        ["calibration slope, pooled (ideal: 1)", number(c.get("slope"))],
        ["calibration intercept, pooled (ideal: 0)", number(c.get("intercept"), "+")],
        ["Brier skill, pooled (0: the prevalence alone)", number(c.get("brier_skill"))],
        ["calibration error, ten bins, pooled", number(c.get("calibration_error"), digits=4)],
        ["noise floor of the calibration error", number(c.get("noise_floor"), digits=4)],
        ["patients with the disease whose set has `yes` (made for 0.9)", number(s["positives"])],
        ["patients without whose set has `no` (made for 0.9)", number(s["negatives"])],
        ["sets with both answers", number(s.get("undecided"))],
        ["lengths of stay inside their interval (made for 0.9)", number(s["length_of_stay"])],
    ]


def _task_row(facts: ServedTask, results: Results) -> list[Any]:
    return [
        facts.task.display,
        max(facts.labels.values(), default=0),
        "" if facts.positives is None else facts.positives,
        "" if facts.prevalence is None else f"{facts.prevalence:.3f}",
        ", ".join(facts.visible_modalities),
        *(_task_metric(facts, results.get(inputs, {})) for inputs in _INPUTS),
        _set(facts),
    ]


def _task_metric(facts: ServedTask, results: Results) -> str:
    """A task's AUROC; the mean absolute error of a length of stay."""
    m3h = results.get("models", {}).get("m3h")
    if m3h is None or facts.task.kind == "clustering":
        return NOT_MEASURED
    if facts.task.kind == "regression":
        error = m3h.get("mae_days")
        return NOT_MEASURED if error is None else f"mean error {number(error)} d"
    auroc = m3h["by_task"].get(facts.task.name)
    if auroc is None:
        return "too few" if facts.task.kind == "binary" else NOT_MEASURED
    return interval(auroc) if isinstance(auroc, list) else number(auroc)


def _set(facts: ServedTask) -> str:
    if facts.abstains is not None:
        return f"no answer: {facts.abstains}"
    if facts.task.kind in ("regression", "clustering"):
        return "an interval" if facts.task.kind == "regression" else "none"
    if facts.sets is None:
        return "none"
    return "yes" if facts.sets.reason is None else f"none: {facts.sets.reason}"


def _group_rows(results: Results) -> Rows:
    return [
        [
            grouping,
            f"{name} (small)" if group.get("small") else name,
            group.get("stays", ""),
            group.get("tasks", ""),
            interval_of(group, "auroc"),
            interval_of(group, "against_everyone", "+"),
            interval_of(group, "observed_to_expected"),
        ]
        for grouping, groups in results.items()
        for name, group in groups.items()
    ]


def _landmark_rows(results: Results) -> Rows:
    return [
        [
            f"{hours} h",
            landmark.get("stays", ""),
            landmark.get("tasks", ""),
            interval(landmark["models"]["m3h"]),
            interval_of(landmark, "observed_to_expected"),
        ]
        for hours, landmark in results.items()
    ]


def _recognition_rows(results: Results) -> Rows:
    rows: Rows = []
    for inputs, name in _INPUTS.items():
        m3h = results.get(inputs, {}).get("models", {}).get("m3h")
        keys = ("charted_later", "same_tasks_as_usual")
        rows.append([name, *(interval(m3h[key]) if m3h else NOT_MEASURED for key in keys)])
    return rows


def _masked(results: Results) -> str:
    aurocs = results.get("masked", {}).get("models", {}).get("m3h_one")
    if not aurocs:
        return NOT_MEASURED
    return f"AUROC {interval(aurocs['masked'])}, with unmasked notes {interval(aurocs['all'])}"


def _recalibration_effect(results: Results | None) -> dict[str, Any] | None:
    if not results:
        return None
    names = {
        "slope": "calibration slope",
        "intercept": "calibration intercept",
        "brier_skill": "Brier skill",
        "calibration_error": "calibration error",
        "noise_floor": "noise floor of the calibration error",
    }
    return {
        "patients": results["patients"],
        "splits": results["splits"],
        "rows": [
            [name, *(interval(results[when][key]) for when in ("before", "after"))]
            for key, name in names.items()
            if key in results["before"]
        ],
    }


def _behaviour(results: Results | None) -> dict[str, Any] | None:
    """The figures of the behaviour, and the expectations that hold least often."""
    if not results:
        return None
    return {
        "expectations": results["expectations"],
        "patients": results["patients"],
        "reliable": number(results["reliable"]),
        "concordance": number(results["concordance"]),
        "rows": [
            [
                row["expectation"],
                row["task"],
                number(row["share"]),
                number(row["mean_change"], "+"),
            ]
            for row in results["rows"]
        ],
    }


# ---- numbers and words ---------------------------------------------------------------------------
