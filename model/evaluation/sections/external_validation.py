"""Another database: the likely causes of a change in AUROC, and the effect of recalibration."""

import numpy as np

from model.cohorts.samples import Samples
from model.evaluation.bootstrap import interval, rank_correlation
from model.evaluation.calibration_metrics import recalibration_effect
from model.evaluation.metrics import Floats, Rows
from model.evaluation.sections import MIN_POSITIVES_SMALL, Figures, Section
from model.evaluation.sections.markdown import (
    decimal,
    details,
    paragraph,
    percent,
    table,
    with_interval,
)
from model.evaluation.study.results import MissingPredictionsError, StudyResults
from schemas.response import MODALITIES

UNUSUAL = 0.95  # the quantile of the training patients above which an input is unusual
LOCAL_PATIENTS, SPLITS = 50, 100


def _causes(study: StudyResults) -> Figures:
    if study.external is None:
        raise MissingPredictionsError("the study has no other database")
    internal = study.comparison(["m3h"], "measured", MIN_POSITIVES_SMALL)
    external = study.comparison(["m3h"], "measured", MIN_POSITIVES_SMALL, external=True)
    eicu, mimic = internal.predictions["m3h"], external.predictions["m3h"]
    tasks = [t for t in mimic.binary_tasks(MIN_POSITIVES_SMALL) if t in internal.by_task["m3h"]]
    change = {t: external.by_task["m3h"][t] - internal.by_task["m3h"][t] for t in tasks}
    prevalence = {
        t: [float(np.nanmean(p.outcome[:, p.column(t)])) for p in (eicu, mimic)] for t in tasks
    }
    shift = {
        t: _prevalence_log_odds(b) - _prevalence_log_odds(a) for t, (a, b) in prevalence.items()
    }
    display = {t.name: t.display for t in eicu.tasks}
    missing = [
        _missing_shares(cohort.samples, predictions.rows)
        for cohort, predictions in ((study.cohort, eicu), (study.external, mimic))
    ]
    variables = [v.display for v in study.cohort.spec.variables]
    figures: Figures = {
        "tasks": {
            t: {
                "display": display[t],
                "eicu": prevalence[t][0],
                "mimic_iv": prevalence[t][1],
                "shift": shift[t],
                "change": interval(change[t]),
            }
            for t in sorted(tasks, key=lambda t: -abs(shift[t]))
        },
        "median_shift": float(np.median(list(shift.values()))),
        "change_with_shift": rank_correlation(
            list(change.values()), np.abs([shift[t] for t in tasks])
        ),
        "missing": {"eicu": missing[0].mean(), "mimic_iv": missing[1].mean()},
        "missing_most_apart": {
            variables[i]: [missing[0][i], missing[1][i]]
            for i in np.argsort(-np.abs(missing[1] - missing[0]))[:8]
        },
    }
    if eicu.unusual is not None and mimic.unusual is not None:
        unusual = eicu.unusual, mimic.unusual
        figures["unusual"] = {
            modality: [_unusual_share(values[:, MODALITIES.index(modality)]) for values in unusual]
            for modality in MODALITIES
            if modality in ("tabular", "series")
        }
    return figures


def _prevalence_log_odds(prevalence: float) -> float:
    """Log-odds of a prevalence, clipped to [0.001, 0.999]: a small sample can have no case."""
    clipped = min(max(prevalence, 1e-3), 1 - 1e-3)
    return float(np.log(clipped / (1 - clipped)))


def _missing_shares(samples: Samples, rows: Rows) -> Floats:
    """[V] the share of the stays in which a variable was not measured before the landmark."""
    missing = np.isnan(samples.statistics[rows, :, 0])
    missing |= ~samples.present[rows, MODALITIES.index("series"), None]
    share: Floats = missing.mean(axis=0)
    return share


def _unusual_share(unusual: Floats) -> float:
    return float((unusual[~np.isnan(unusual)] > UNUSUAL).mean())


def _render_causes(figures: Figures) -> list[str]:
    missing = figures["missing"]
    most_apart = "; ".join(
        f"{name} {percent(a)}, {percent(b)}"
        for name, (a, b) in figures["missing_most_apart"].items()
    )
    points = [
        f"""- **Labels.** The median shift of a task's prevalence is {figures["median_shift"]:+.2f}
        in log-odds. A shift alone spoils probabilities but not the ranking. Where coding is much
        more frequent, however, a label means something else. Rank correlation of a task's change in
        AUROC with the size of its shift: {with_interval(figures["change_with_shift"], "+", 2)}.""",
        f"""- **Missing variables.** By the landmark, {percent(missing["eicu"])} of the variables of
        an eICU stay were never measured, and {percent(missing["mimic_iv"])} of a MIMIC-IV stay. The
        largest differences (eICU, MIMIC-IV): {most_apart}.""",
    ]
    if "unusual" in figures:
        shares = "; ".join(
            f"{modality}, {percent(a, 1)} of the stays of eICU's unseen hospitals and "
            f"{percent(b, 1)} of MIMIC-IV's stays"
            for modality, (a, b) in figures["unusual"].items()
        )
        points.append(
            f"""- **Unusual inputs.** More unusual than {percent(UNUSUAL)} of the training patients:
            {shares}."""
        )
    rows = [
        [
            task["display"],
            percent(task["eicu"], 1),
            percent(task["mimic_iv"], 1),
            decimal(task["shift"], "+", 2),
            with_interval(task["change"], "+"),
        ]
        for task in figures["tasks"].values()
    ]
    head = ["task", "eICU", "MIMIC-IV", "shift in log-odds", "change in AUROC"]
    return [
        paragraph(
            """M3H with measured inputs. These differences between the databases are likely causes;
            the report cannot separate their effects. MIMIC-IV's demo has no notes, as the table of
            all inputs above shows."""
        ),
        "\n".join(map(paragraph, points)),
        details("By task", table(head, rows)),
    ]


def _recalibration(study: StudyResults) -> Figures:
    if study.external is None:
        raise MissingPredictionsError("the study has no other database")
    predictions = study.predictions("m3h", "all", external=True)
    # At least a third of the patients remain for the measurement.
    patients = min(LOCAL_PATIENTS, 2 * len(np.unique(predictions.site)) // 3)
    tasks = predictions.binary_tasks(MIN_POSITIVES_SMALL)
    return {"tasks": len(tasks)} | recalibration_effect(predictions, tasks, patients, SPLITS)


def _render_recalibration(figures: Figures) -> list[str]:
    names = {
        "slope": ("calibration slope", "", 2),
        "intercept": ("calibration intercept", "+", 2),
        "brier_skill": ("Brier skill", "", 3),
        "calibration_error": ("calibration error", "", 3),
        "noise_floor": ("noise floor of the calibration error", "", 3),
    }
    rows = [
        [name, *(with_interval(figures[when][key], sign, digits) for when in ("before", "after"))]
        for key, (name, sign, digits) in names.items()
    ]
    return [
        paragraph(
            f"""M3H with all inputs, trained on eICU. {figures["patients"]} patients of MIMIC-IV,
            drawn at random {figures["splits"]} times, correct the probabilities for the local
            prevalence (prior shift with shrinkage, as `m3h-export --recalibrate` does). Measured on
            the other {figures["others"]} patients, with the {figures["tasks"]} tasks of at least
            {MIN_POSITIVES_SMALL} positives pooled. In brackets: the 95 % range over the draws. The
            ranking of patients does not change."""
        ),
        table(["", "before", "after"], rows),
        f"Brier skill rises in {percent(figures['brier_skill_rises'])} of the draws.",
    ]


CAUSES = Section("external_causes", "Causes of the change on MIMIC-IV", _causes, _render_causes)
RECALIBRATION = Section(
    "recalibration",
    "Recalibration on few local patients",
    _recalibration,
    _render_recalibration,
)
