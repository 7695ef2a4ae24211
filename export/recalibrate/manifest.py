"""The manifest's facts of a task, with shifted probabilities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from export.recalibrate.shifts import MIN_PROBABILITY, BinaryShifts, mortality_class
from schemas.manifest import ConformalSets, ServedTask, VennAbersCurve
from schemas.tasks import MORTALITY

AT_THE_BOUND = 1e-3  # log-odds: the distance within which a threshold counts as at the bound


def shift_facts(
    facts: ServedTask,
    binary: BinaryShifts,
    classes: dict[str, float] | None = None,
    local: ConformalSets | None = None,
) -> ServedTask:
    """The facts of a task with shifted probabilities; `local`: the sets of the local patients.

    If only the prevalence differs, the inputs of patients with the disease, and of those without,
    have the same distribution as before. A set then keeps its coverage if each threshold is shifted
    by the largest shift that a patient's probability can have. Isotonic regression with patients
    weighted by the ratio of the prevalences equals the old regression shifted in log-odds, block by
    block; so do the ends of a Venn-Abers interval.
    """
    update: dict[str, Any] = {}
    if facts.task.kind == "binary":
        i = binary.names.index(facts.task.name)
        if not any(binary.shift_range(i)):
            return facts
        update["prevalence"] = float(expit(binary.prior[i]))
        if facts.interval is not None:
            shift = float(binary.shift[i])
            steps = {
                k: _shift(getattr(facts.interval, k), shift) for k in VennAbersCurve.model_fields
            }
            update["interval"] = VennAbersCurve(**steps)
    if local is not None and local.thresholds:
        update["sets"] = local
    elif facts.sets is not None and facts.sets.thresholds:
        if facts.task.kind == "binary":
            low, high = binary.shift_range(i)
            old, bound = facts.sets.thresholds, float(binary.bound[i])
            yes = _shift_threshold(old["yes"], low, bound)
            no = _shift_threshold(old["no"], -high, bound)
            update["sets"] = ConformalSets(thresholds={"no": no, "yes": yes})
        elif classes is not None:
            update["sets"] = _shift_sets(facts, facts.sets, binary, classes)
    return facts.model_copy(update=update)


def _shift_sets(
    facts: ServedTask, sets: ConformalSets, binary: BinaryShifts, shifts: dict[str, float]
) -> ConformalSets:
    died = mortality_class(facts, binary)
    i = 0 if died is None else binary.names.index(MORTALITY)
    mortality_shift = None if died is None else float(binary.shift[i])
    thresholds = {}
    for name, threshold in sets.thresholds.items():
        if name == died:
            thresholds[name] = _shift_threshold(threshold, binary.shift[i], binary.bound[i])
        else:
            others = [shift for other, shift in shifts.items() if other not in (name, died)]
            gap = max(others, default=-np.inf) - shifts[name]
            thresholds[name] = _min_shifted_probability(threshold, gap, mortality_shift)
    return ConformalSets(thresholds=thresholds)


def _min_shifted_probability(p: float, gap: float, mortality_shift: float | None) -> float:
    """The minimum that a class's probability `p` can have after the shifts.

    `gap`: the shift of another class minus that of this class, at most. The part of 1 - p that was
    the probability of death is unknown; all values from none to all are tried.
    """
    alive = np.linspace(p, 1.0, 1001) if mortality_shift is not None else np.ones(1)
    share = np.minimum(p / np.maximum(alive, MIN_PROBABILITY), 1.0)
    shifted_share = share / (share + (1 - share) * np.exp(gap))
    shifted_alive = alive / (alive + (1 - alive) * np.exp(mortality_shift or 0.0))
    return float((shifted_alive * shifted_share).min())


def _shift_threshold(p: float, shift: float, bound: float) -> float:
    """A shifted threshold. No probability exceeds the bound; a threshold at -bound becomes 0."""
    z = float(logit(p))
    if z <= -bound + AT_THE_BOUND:
        return 0.0
    return float(expit(min(z + shift, bound - AT_THE_BOUND)))


def _shift(probabilities: Sequence[float], shift: float) -> tuple[float, ...]:
    """Probabilities shifted in log-odds; 0 and 1 stay."""
    with np.errstate(divide="ignore"):
        values: npt.NDArray[np.float64] = expit(logit(np.asarray(probabilities)) + shift)
    return tuple(values.tolist())
