"""The operating point of each task: the threshold at which a patient gets a card.

The report of a bundle measures thresholds by their cost in alerts (`schemas.evaluation.Decisions`).
A bundle without these figures has the conformal sets as a second source: a set of "yes" alone means
that 90 % of the patients without the outcome score lower. Its threshold has no measured
sensitivity. A task with neither has no operating point, and never gets a card.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.evaluation import DecisionPoint, Evaluation
from schemas.manifest import Manifest, ServedTask

# Decisions of patients with all inputs, otherwise of those with measurements only.
_INPUTS = ("all", "measured")


@dataclass(frozen=True)
class OperatingPoint:
    """A probability, from which on a patient gets a card.

    `measured`: what alerts at this threshold found and cost in held-out patients; None for the
    threshold of a conformal set.
    """

    threshold: float
    measured: DecisionPoint | None = None


def operating_points(manifest: Manifest, name: str) -> dict[str, OperatingPoint]:
    """The operating points of the binary tasks. `name`: of a decision point, such as "alerts_5"."""
    measured = _measured_points(manifest, name)
    points: dict[str, OperatingPoint] = {}
    for served in manifest.tasks:
        if served.task.kind != "binary" or served.abstains is not None:
            continue
        if served.task.name in measured:
            point = measured[served.task.name]
            if point.threshold is not None:  # otherwise so few alerts are possible with none only
                points[served.task.name] = OperatingPoint(point.threshold, point)
            continue
        threshold = _conformal_threshold(served)
        if threshold is not None:
            points[served.task.name] = OperatingPoint(threshold)
    return points


def _measured_points(manifest: Manifest, name: str) -> Mapping[str, DecisionPoint]:
    decisions = Evaluation.model_validate(manifest.evaluation).decisions or {}
    for inputs in _INPUTS:
        if inputs in decisions:
            by_task = decisions[inputs].by_task.items()
            return {task: facts.points[name] for task, facts in by_task if name in facts.points}
    return {}


def _conformal_threshold(served: ServedTask) -> float | None:
    """The lowest probability whose conformal set is "yes" alone; None without such sets.

    "yes" belongs to the set if the probability is at least its threshold; "no" does not belong to
    it if one minus the probability is below its threshold.
    """
    thresholds = {} if served.sets is None else served.sets.thresholds
    if not {"yes", "no"} <= thresholds.keys():
        return None
    return max(thresholds["yes"], 1 - thresholds["no"])
