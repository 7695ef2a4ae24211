"""When, and for whom: by landmark, sex, age, ethnicity and year of discharge."""

import numpy as np
import numpy.typing as npt

from model.cohorts import GROUPS, LANDMARKS_HOURS
from model.cohorts.store import Cohort
from model.evaluation.evaluate import FEWEST_POSITIVES
from model.evaluation.measure import (
    FEWEST_FOR_CALIBRATION,
    Compared,
    Found,
    interval,
    observed_to_expected,
    replicate_weights,
    task_aurocs,
)
from model.evaluation.sections import BESIDE, FEWEST_FEW, NAMES, Section
from model.evaluation.sections.markdown import prose, table, with_interval
from model.evaluation.study_results import Kept
from model.training.data import Rows

SMALL_GROUP, TINY_GROUP = 100, 20  # stays: what is said to be small, and of what nothing is said
FEWEST_TASKS = 5  # with enough positives in a group, for a mean over them
_AGES = {"under 45": (0, 45), "45 to 64": (45, 65), "65 to 79": (65, 80), "80 and older": (80, 200)}


def _landmarks(kept: Kept) -> Found:
    found: Found = {}
    for hours in LANDMARKS_HOURS:
        tested = {m: kept.tested(m, "all", hours=hours) for m in BESIDE}
        first = tested["m3h"]
        if not first.binary_with(FEWEST_POSITIVES):
            continue
        compared = Compared(tested, FEWEST_POSITIVES)
        found[str(hours)] = {
            "stays": len(first.rows),
            "tasks": len(compared.tasks),
            "models": {m: interval(compared.mean[m]) for m in BESIDE},
            "observed_to_expected": observed_to_expected(
                first, first.binary_with(FEWEST_POSITIVES), compared.weight
            ),
        }
    return found


def _tell_landmarks(found: Found) -> list[str]:
    rows = [
        [
            f"{hours} h",
            here["stays"],
            here["tasks"],
            *(with_interval(here["models"][m]) for m in BESIDE),
            with_interval(here["observed_to_expected"], digits=2),
        ]
        for hours, here in found.items()
    ]
    head = ["after admission", "stays", "tasks", *(NAMES[m] for m in BESIDE)]
    return [
        prose(
            """All inputs. Only who is still in the unit is tested: those of a later row are other,
            sicker patients, so that the rows are no curve of one group."""
        ),
        table([*head, "M3H: observed / expected"], rows),
    ]


def _groups(kept: Kept) -> Found:
    tested = kept.tested("m3h", "all")
    weight = replicate_weights(tested.site, tested.fold)
    everyone = task_aurocs(tested, weight, 1)
    common = tested.binary_with(FEWEST_FOR_CALIBRATION)
    found: Found = {}
    for by, group_of in _divisions(kept.cohort, tested.rows).items():
        found[by] = {}
        for name in sorted(set(group_of.tolist()), key=_in_order):
            chosen = group_of == name
            part, mine = tested.part(chosen), weight[:, chosen]
            tasks = part.binary_with(FEWEST_FEW)
            here: Found = {
                "stays": int(chosen.sum()),
                "positives": int(sum(np.nansum(part.outcome[:, part.column(t)]) for t in tasks)),
                "tasks": len(tasks),
                "small": bool(chosen.sum() < SMALL_GROUP),
            }
            if chosen.sum() >= TINY_GROUP:
                here["observed_to_expected"] = observed_to_expected(part, common, mine)
            if len(tasks) >= FEWEST_TASKS:
                areas = task_aurocs(part, mine, FEWEST_FEW)
                here["auroc"], here["against_everyone"] = (
                    interval(np.mean([areas[t] - minus[t] for t in tasks], axis=0))
                    for minus in (dict.fromkeys(tasks, 0.0), everyone)
                )
            found[by][name] = here
    return found


def _divisions(cohort: Cohort, rows: Rows) -> dict[str, npt.NDArray[np.str_]]:
    """By what patients are told apart: each one's group, "unknown" where nobody knows."""
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


def _in_order(name: str) -> tuple[bool, bool, str]:
    """The youngest first, who is not known last, and else as in the alphabet."""
    return "unknown" in name, not name.startswith("under"), name


def _tell_groups(found: Found) -> list[str]:
    rows = [
        [
            by,
            f"{name} (small)" if here["small"] else name,
            here["stays"],
            here["positives"],
            here["tasks"],
            with_interval(here["auroc"]) if "auroc" in here else "too few",
            with_interval(here["against_everyone"], "+") if "auroc" in here else "",
            with_interval(here["observed_to_expected"], digits=2)
            if "observed_to_expected" in here
            else "too few",
        ]
        for by, groups in found.items()
        for name, here in groups.items()
    ]
    head = ["by", "group", "stays", "positives", "tasks", "AUROC", "against everyone"]
    return [
        prose(
            f"""M3H, all inputs, at 24 h. Descriptive: the model was not made to be even between
            groups, and one of under {SMALL_GROUP} stays tells little. AUROC: mean over the tasks
            with at least {FEWEST_FEW} positives in the group, so that groups differ in their tasks;
            "against everyone" is the difference from everyone on the same tasks. Observed /
            expected: of the tasks with at least {FEWEST_FOR_CALIBRATION} positives among everyone;
            above 1, the probabilities are too low."""
        ),
        table([*head, "observed / expected"], rows),
    ]


LANDMARKS = Section("landmarks", "By landmark", _landmarks, _tell_landmarks)
BY_GROUP = Section("groups", "By sex, age, ethnicity and year", _groups, _tell_groups)
