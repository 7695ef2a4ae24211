"""Results by landmark, sex, age, ethnicity and year of discharge."""

import numpy as np
import numpy.typing as npt

from model.cohorts import GROUPS, LANDMARKS_HOURS
from model.cohorts.store import Cohort
from model.evaluation.bootstrap import Comparison, interval, replicate_weights, task_aurocs
from model.evaluation.calibration_metrics import (
    MIN_POSITIVES_FOR_CALIBRATION,
    observed_to_expected,
)
from model.evaluation.metrics import MIN_POSITIVES, Floats, Rows
from model.evaluation.predictions import Predictions
from model.evaluation.sections import (
    COMPARED_MODELS,
    MIN_POSITIVES_SMALL,
    MODEL_NAMES,
    Figures,
    Section,
)
from model.evaluation.sections.markdown import paragraph, table, with_interval
from model.evaluation.study.results import StudyResults

# Stays. A group below SMALL_GROUP is marked as small; below TINY_GROUP it has no figures.
SMALL_GROUP, TINY_GROUP = 100, 20
MIN_TASKS = 5  # tasks with enough positives in a group, for a mean over the tasks
_AGES = {"under 45": (0, 45), "45 to 64": (45, 65), "65 to 79": (65, 80), "80 and older": (80, 200)}


def _landmarks(study: StudyResults) -> Figures:
    figures: Figures = {}
    for hours in LANDMARKS_HOURS:
        predictions = {m: study.predictions(m, "all", hours=hours) for m in COMPARED_MODELS}
        m3h = predictions["m3h"]
        tasks = m3h.binary_tasks(MIN_POSITIVES)
        if not tasks:
            continue
        comparison = Comparison(predictions, MIN_POSITIVES)
        figures[str(hours)] = {
            "stays": len(m3h.rows),
            "tasks": len(comparison.tasks),
            "models": {m: interval(comparison.mean[m]) for m in COMPARED_MODELS},
            "observed_to_expected": observed_to_expected(m3h, tasks, comparison.weight),
        }
    return figures


def _render_landmarks(figures: Figures) -> list[str]:
    rows = [
        [
            f"{hours} h",
            landmark["stays"],
            landmark["tasks"],
            *(with_interval(landmark["models"][m]) for m in COMPARED_MODELS),
            with_interval(landmark["observed_to_expected"], digits=2),
        ]
        for hours, landmark in figures.items()
    ]
    head = ["after admission", "stays", "tasks", *(MODEL_NAMES[m] for m in COMPARED_MODELS)]
    return [
        paragraph(
            """All inputs. Only patients who are still in the unit are tested. Later rows have
            other, sicker patients, so the rows are not a curve of one group."""
        ),
        table([*head, "M3H: observed / expected"], rows),
    ]


def _groups(study: StudyResults) -> Figures:
    predictions = study.predictions("m3h", "all")
    weight = replicate_weights(predictions.site, predictions.fold)
    all_patients = task_aurocs(predictions, weight, 1)
    common_tasks = predictions.binary_tasks(MIN_POSITIVES_FOR_CALIBRATION)
    figures: Figures = {}
    for grouping, group in _groupings(study.cohort, predictions.rows).items():
        figures[grouping] = {}
        for name in sorted(set(group.tolist()), key=_sort_key):
            members = group == name
            figures[grouping][name] = _group_figures(
                predictions.select(members), weight[:, members], common_tasks, all_patients
            )
    return figures


def _group_figures(
    members: Predictions, weight: Floats, common_tasks: list[str], all_patients: dict[str, Floats]
) -> Figures:
    """The figures of a group. all_patients: the AUROC of each task on all patients."""
    stays, tasks = len(members.rows), members.binary_tasks(MIN_POSITIVES_SMALL)
    figures: Figures = {
        "stays": stays,
        "positives": int(sum(np.nansum(members.outcome[:, members.column(t)]) for t in tasks)),
        "tasks": len(tasks),
        "small": stays < SMALL_GROUP,
    }
    if stays >= TINY_GROUP:
        figures["observed_to_expected"] = observed_to_expected(members, common_tasks, weight)
    if len(tasks) >= MIN_TASKS:
        aurocs = task_aurocs(members, weight, MIN_POSITIVES_SMALL)
        figures["auroc"] = interval(np.mean([aurocs[t] for t in tasks], axis=0))
        differences = [aurocs[t] - all_patients[t] for t in tasks]
        figures["against_everyone"] = interval(np.mean(differences, axis=0))
    return figures


def _groupings(cohort: Cohort, rows: Rows) -> dict[str, npt.NDArray[np.str_]]:
    """[n] the group of each patient by sex, age, ethnicity and year; "unknown" if unknown."""
    names = cohort.spec.tabular_names
    values = np.where(cohort.samples.present[rows, :1], cohort.samples.tabular[rows], np.nan)
    age = values[:, names.index("age")]
    sexes = ("female", "male")
    groups = dict(zip(GROUPS, cohort.samples.groups[rows].T, strict=True))
    ethnicity, years = (np.where(groups[g] == "", "unknown", groups[g]) for g in GROUPS)
    return {
        "sex": np.select(
            [values[:, names.index(f"sex={sex}")] == 1 for sex in sexes], sexes, "unknown"
        ),
        "age": np.select(
            [(age >= low) & (age < high) for low, high in _AGES.values()], list(_AGES), "unknown"
        ),
        "ethnicity": ethnicity,
        "year of discharge": years,
    }


def _sort_key(name: str) -> tuple[bool, bool, str]:
    """The youngest group first, "unknown" last, the others in alphabetical order."""
    return "unknown" in name, not name.startswith("under"), name


def _render_groups(figures: Figures) -> list[str]:
    rows = [
        [
            grouping,
            f"{name} (small)" if group["small"] else name,
            group["stays"],
            group["positives"],
            group["tasks"],
            with_interval(group["auroc"]) if "auroc" in group else "too few",
            with_interval(group["against_everyone"], "+") if "auroc" in group else "",
            with_interval(group["observed_to_expected"], digits=2)
            if "observed_to_expected" in group
            else "too few",
        ]
        for grouping, groups in figures.items()
        for name, group in groups.items()
    ]
    head = ["by", "group", "stays", "positives", "tasks", "AUROC", "difference from all patients"]
    return [
        paragraph(
            f"""M3H, all inputs, at 24 h. Descriptive: the model was not corrected for any group,
            and a group of under {SMALL_GROUP} stays gives little evidence. AUROC: mean over the
            tasks with at least {MIN_POSITIVES_SMALL} positives in the group, so groups differ in
            their tasks; the difference from all patients is on the same tasks. Observed /
            expected: over the tasks with at least {MIN_POSITIVES_FOR_CALIBRATION} positives among
            all patients; above 1, the probabilities are too low."""
        ),
        table([*head, "observed / expected"], rows),
    ]


LANDMARKS = Section("landmarks", "Landmarks", _landmarks, _render_landmarks)
BY_GROUP = Section("groups", "Subgroups by sex, age, ethnicity and year", _groups, _render_groups)
