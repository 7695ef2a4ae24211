"""Another database: why the ranking drops there, and what a local correction repairs."""

import numpy as np

from model.cohorts.samples import Samples
from model.evaluation.measure import Floats, Found, interval, rank_correlation, recalibrated
from model.evaluation.sections import FEWEST_FEW, Section
from model.evaluation.sections.markdown import figure, folded, percent, prose, table, with_interval
from model.evaluation.study_results import Kept, NotYet
from model.training.data import Rows
from schemas.response import MODALITIES

UNUSUAL = 0.95  # more unusual than so many of the patients learned from
LOCAL_PATIENTS, SPLITS = 50, 100


def _causes(kept: Kept) -> Found:
    other = kept.other
    if other is None:
        raise NotYet("the study has no other database")
    inside = kept.compared(["m3h"], "measured", FEWEST_FEW)
    outside = kept.compared(["m3h"], "measured", FEWEST_FEW, external=True)
    home, away = inside.tested["m3h"], outside.tested["m3h"]
    tasks = [t for t in away.binary_with(FEWEST_FEW) if t in inside.by_task["m3h"]]
    change = {t: outside.by_task["m3h"][t] - inside.by_task["m3h"][t] for t in tasks}
    share = {
        t: [float(np.nanmean(where.outcome[:, where.column(t)])) for where in (home, away)]
        for t in tasks
    }
    shift = {t: _log_odds(b) - _log_odds(a) for t, (a, b) in share.items()}
    display = {t.name: t.display for t in home.tasks}
    missing = [_missing(c.samples, t.rows) for c, t in ((kept.cohort, home), (other, away))]
    variables = [v.display for v in kept.cohort.spec.variables]
    found: Found = {
        "tasks": {
            t: {
                "display": display[t],
                "eicu": share[t][0],
                "mimic_iv": share[t][1],
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
    if home.unusual is not None and away.unusual is not None:
        found["unusual"] = {
            modality: [_beyond(t.unusual[:, i]) for t in (home, away) if t.unusual is not None]
            for i, modality in enumerate(MODALITIES)
            if modality in ("tabular", "series")
        }
    return found


def _log_odds(share: float) -> float:
    near = min(max(share, 1e-3), 1 - 1e-3)
    return float(np.log(near / (1 - near)))


def _missing(samples: Samples, rows: Rows) -> Floats:
    """[V] the share of the patients in whom a variable was not measured by then."""
    never = np.isnan(samples.statistics[rows, :, 0])
    never |= ~samples.present[rows, MODALITIES.index("series"), None]
    share: Floats = never.mean(axis=0)
    return share


def _beyond(unusual: Floats) -> float:
    return float((unusual[~np.isnan(unusual)] > UNUSUAL).mean())


def _tell_causes(found: Found) -> list[str]:
    missing = found["missing"]
    apart = "; ".join(
        f"{name} {percent(a)}, {percent(b)}" for name, (a, b) in found["missing_most_apart"].items()
    )
    points = [
        f"""- **Labels.** The median task is shifted by {found["median_shift"]:+.2f} in log-odds of
        its prevalence. A shift alone spoils probabilities and not the ranking, but where so much
        more is coded, a label means another thing. Rank correlation of a task's change in AUROC
        with the size of its shift: {with_interval(found["change_with_shift"], "+", 2)}.""",
        f"""- **Missing variables.** {percent(missing["eicu"])} of the variables were never measured
        by then in a stay of eICU, {percent(missing["mimic_iv"])} in one of MIMIC-IV. The
        furthest apart (eICU, MIMIC-IV): {apart}.""",
    ]
    if "unusual" in found:
        told = "; ".join(
            f"{modality}, {percent(a, 1)} of the stays of eICU's unseen hospitals and "
            f"{percent(b, 1)} of MIMIC-IV's"
            for modality, (a, b) in found["unusual"].items()
        )
        points.append(
            f"""- **Unusual inputs.** More unusual than {percent(UNUSUAL)} of those learned
            from: {told}."""
        )
    rows = [
        [
            task["display"],
            percent(task["eicu"], 1),
            percent(task["mimic_iv"], 1),
            figure(task["shift"], "+", 2),
            with_interval(task["change"], "+"),
        ]
        for task in found["tasks"].values()
    ]
    head = ["task", "eICU", "MIMIC-IV", "shift in log-odds", "change in AUROC"]
    return [
        prose(
            """M3H from what is measured. These differences between the databases are likely causes;
            which of them costs how much cannot be told apart here. MIMIC-IV's demo has no notes at
            all, which the table of all inputs above shows."""
        ),
        "\n".join(map(prose, points)),
        folded("By task", table(head, rows)),
    ]


def _recalibration(kept: Kept) -> Found:
    if kept.other is None:
        raise NotYet("the study has no other database")
    tested = kept.tested("m3h", "all", external=True)
    # A third at least are left to measure by.
    patients = min(LOCAL_PATIENTS, 2 * len(np.unique(tested.site)) // 3)
    tasks = tested.binary_with(FEWEST_FEW)
    return {"tasks": len(tasks)} | recalibrated(tested, tasks, patients, SPLITS)


def _tell_recalibration(found: Found) -> list[str]:
    names = {
        "slope": ("calibration slope", "", 2),
        "intercept": ("calibration intercept", "+", 2),
        "brier_skill": ("Brier skill", "", 3),
        "calibration_error": ("calibration error", "", 3),
        "noise_floor": ("its noise floor", "", 3),
    }
    rows = [
        [name, *(with_interval(found[w][key], sign, digits) for w in ("before", "after"))]
        for key, (name, sign, digits) in names.items()
    ]
    return [
        prose(
            f"""M3H with all inputs, trained on eICU. {found["patients"]} patients of MIMIC-IV,
            drawn at random {found["splits"]} times, correct the probabilities for the local
            prevalence (prior shift with shrinkage, as `m3h-export --recalibrate` does); measured
            on the other {found["others"]}, {found["tasks"]} tasks with at least {FEWEST_FEW}
            positives pooled. In brackets: the 95 % range over the draws. The ranking of patients
            stays as it is."""
        ),
        table(["", "before", "after"], rows),
        f"Brier skill rises in {percent(found['brier_skill_rises'])} of the draws.",
    ]


CAUSES = Section("external_causes", "Why it changes on MIMIC-IV", _causes, _tell_causes)
RECALIBRATION = Section(
    "recalibration",
    "Recalibration on few local patients",
    _recalibration,
    _tell_recalibration,
)
