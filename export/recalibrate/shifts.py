"""The shifts of probabilities, fitted to local patients."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from export.recalibrate.errors import RecalibrationError
from model.calibration.calibrate import class_shift, local_margin, prior_shift
from model.cohorts.samples import Samples
from model.cohorts.store import Cohort
from model.evaluation.metrics import SHORTEST_DAYS, log_odds
from schemas.manifest import Manifest, ServedTask
from schemas.response import MODALITIES
from schemas.tasks import DIED, DISPOSITION, MORTALITY

Floats = npt.NDArray[np.float64]

MIN_PROBABILITY = 1e-6  # below, a probability is noise of single precision


@dataclass(frozen=True)
class BinaryShifts:
    """The shifts of the binary tasks by their column [T]; all in log-odds.

    `prior`: of a patient without any input, at the new hospital; `shift`: of all other patients;
    `bound`: the largest absolute value; `parent`: the column of the task that each task is a subset
    of (or its own), whose probability it never exceeds.
    """

    names: tuple[str, ...]
    prior: Floats
    shift: Floats
    bound: Floats
    parent: tuple[int, ...]

    def apply(self, p: Floats) -> Floats:
        """[n, T] the shifted probabilities of patients with inputs.

        If a probability was limited by its parent's, the result is a lower limit: the graph shifts
        the task's own, larger probability, which is not served.
        """
        shifted = np.clip(log_odds(p) + self.shift, -self.bound, self.bound)
        values: Floats = expit(np.minimum(shifted, shifted[:, self.parent]))
        return values

    def shift_range(self, column: int) -> tuple[float, float]:
        """The minimum and maximum shift of a probability: the task's own, or its parent's."""
        shifts = float(self.shift[column]), float(self.shift[self.parent[column]])
        return min(shifts), max(shifts)


def fit_binary_shifts(
    manifest: Manifest,
    cohort: Cohort,
    p: Floats,
    weight: Floats,
    old_prior: Floats,
    bound: Floats,
) -> BinaryShifts:
    """Fits the shifts to local patients.

    p [n, T]: the model's probabilities; weight [n]; old_prior, bound [T]: of the fusion graph.
    Raises RecalibrationError if no patient has a label of a disease.
    """
    tasks = binary_facts(manifest)
    outcomes = np.stack([labels(cohort, f) for f in tasks], axis=1)
    # A task that abstains has no probability to shift.
    outcomes[:, [f.abstains is not None for f in tasks]] = np.nan
    labelled = ~np.isnan(outcomes).all(axis=0)
    if not labelled.any():
        raise RecalibrationError(f"no patient of the cohort {cohort.name} has a label of a disease")
    prevalence = log_odds(np.array([f.prevalence for f in tasks]))
    no_evidence = np.broadcast_to(prevalence, outcomes.shape)
    prior = old_prior.copy()
    prior[labelled] = (prevalence + prior_shift(no_evidence, outcomes, weight))[labelled]
    names = tuple(f.task.name for f in tasks)
    parents = [f.task.subset_of if f.task.subset_of in names else f.task.name for f in tasks]
    parent = tuple(map(names.index, parents))
    return BinaryShifts(
        names=names,
        prior=np.minimum(prior, prior[list(parent)]),
        shift=prior_shift(log_odds(p), outcomes, weight),
        bound=bound,
        parent=parent,
    )


def fit_class_shifts(
    facts: ServedTask, p: Floats, outcome: Floats, weight: Floats, binary: BinaryShifts
) -> dict[str, float]:
    """The shift of each class, in log-odds against the others.

    The shift of "died" is 0 if the shift of mortality applies to it.
    """
    died = mortality_class(facts, binary)
    shifted = [k for k, name in enumerate(facts.task.classes) if name != died]
    rows = np.isin(outcome, shifted)
    shift = np.zeros(len(facts.task.classes))
    log_p = np.log(np.maximum(p[rows][:, shifted], MIN_PROBABILITY))
    chosen = np.searchsorted(shifted, outcome[rows]).astype(np.float64)
    shift[shifted] = class_shift(log_p, chosen, weight[rows])
    return dict(zip(facts.task.classes, shift.tolist(), strict=True))


def shift_classes(
    facts: ServedTask,
    p: Floats,
    shifts: dict[str, float],
    binary: BinaryShifts,
    binary_p: Floats,
) -> Floats:
    """[n, K] the shifted probabilities of a choice of classes.

    p [n, K]; binary_p [n, T]: the shifted probabilities of the binary tasks.
    """
    shifted: Floats = p * np.exp(list(shifts.values()))
    died = mortality_class(facts, binary)
    if died is None:
        return shifted / shifted.sum(axis=1, keepdims=True)
    mortality, column = binary_p[:, binary.names.index(MORTALITY)], facts.task.classes.index(died)
    shifted[:, column] = 0
    shifted *= ((1 - mortality) / np.maximum(shifted.sum(axis=1), MIN_PROBABILITY))[:, None]
    shifted[:, column] = mortality
    return shifted


def fit_interval_margins(
    days: Floats, outcome: Floats, weight: Floats
) -> tuple[float, float] | None:
    """The outward shifts of both ends of the interval, in log-days; None with too few patients.

    days [n, 3]: value, lower end, upper end.
    """
    _, low, high = np.log(days).T
    truth = np.log(np.maximum(outcome, SHORTEST_DAYS))
    below, above = local_margin(low - truth, weight), local_margin(truth - high, weight)
    return None if below is None or above is None else (below, above)


def patient_weights(samples: Samples) -> Floats:
    """[n] a weight of one for each patient, shared by the patient's samples."""
    _, code, count = np.unique(samples.patient, return_inverse=True, return_counts=True)
    weight: Floats = 1 / count[code]
    return weight


def labels(cohort: Cohort, facts: ServedTask) -> Floats:
    """[n] the outcomes of a task; NaN without a label, or without any input of the task."""
    column = next(i for i, task in enumerate(cohort.tasks) if task.name == facts.task.name)
    has_input = cohort.samples.present[:, [m in facts.visible_modalities for m in MODALITIES]].any(
        axis=1
    )
    outcome: Floats = np.where(has_input, cohort.samples.outcomes[:, column], np.nan)
    return outcome


def binary_facts(manifest: Manifest) -> list[ServedTask]:
    """The binary tasks in the order of their columns."""
    return sorted(
        (f for f in manifest.tasks if f.task.kind == "binary"), key=lambda f: f.column or 0
    )


def mortality_class(facts: ServedTask, binary: BinaryShifts) -> str | None:
    """The class whose probability is that of mortality, if there is one."""
    coherent = facts.task.name == DISPOSITION and MORTALITY in binary.names
    return DIED if coherent and DIED in facts.task.classes else None
