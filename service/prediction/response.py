"""Builds the predictions of an answer from the outputs of the fusion graph."""

import math
from collections.abc import Mapping, Sequence

from schemas.manifest import Manifest, ServedTask
from service.prediction.abstention import Basis
from service.prediction.answer_fields import (
    AbstainedFields,
    IntervalFields,
    OutcomeFields,
    PredictionFields,
    TaskFields,
)
from service.runtime.bundle import ATTENTION, YES_NO
from service.runtime.engine import Outputs


def build_predictions(
    outputs: Outputs,
    manifest: Manifest,
    task_fields: Sequence[TaskFields],
    phenotypes: Mapping[int, str],
    abstentions: Mapping[str, AbstainedFields],
) -> list[PredictionFields]:
    """The prediction of each task, in the manifest's order.

    `task_fields`: of `build_task_fields`. `phenotypes`: descriptions by cluster. `abstentions`: by
    task that abstains.
    """
    rows = {name: row.tolist() for name, row in outputs.fusion.items() if name != ATTENTION}
    predictions: list[PredictionFields] = []
    for served, fields in zip(manifest.tasks, task_fields, strict=True):
        abstained = abstentions.get(served.task.name)
        outcome = _outcome(served, rows[served.output], phenotypes, abstained)
        prediction: PredictionFields = {**fields, **outcome}
        if "abstained" in prediction:
            prediction["based_on"] = []
        predictions.append(prediction)
    return predictions


def build_abstentions(manifest: Manifest, basis: Basis) -> dict[str, AbstainedFields]:
    """The tasks that give no prediction for requests with this basis, and why."""
    by_task = {served.task.name: basis.abstention(served) for served in manifest.tasks}
    return {task: abstained for task, abstained in by_task.items() if abstained is not None}


def build_task_fields(manifest: Manifest, basis: Basis) -> list[TaskFields]:
    """The fields of each prediction that are the same for all requests with this basis."""
    all_fields: list[TaskFields] = []
    for served in manifest.tasks:
        fields: TaskFields = {
            "task": served.task.name,
            "display": served.task.display,
            "department": served.task.department,
            "kind": served.task.kind,
            "means": served.task.means,
            "based_on": [*basis.based_on(served)],
        }
        if served.prevalence is not None:
            fields["prevalence"] = served.prevalence
        all_fields.append(fields)
    return all_fields


def _outcome(
    served: ServedTask,
    row: list[float],
    phenotypes: Mapping[int, str],
    abstained: AbstainedFields | None,
) -> OutcomeFields:
    """The value of one task, from the row of its output, or the reason why it abstains."""
    values = row
    if served.task.kind == "binary" and served.column is not None:
        values = [row[served.column]]
    if abstained is None and not all(map(math.isfinite, values)):
        abstained = {"reason": "the model gave no finite number", "code": "no_finite_number"}
    if abstained is not None:
        return {"abstained": abstained}
    match served.task.kind:
        case "binary":
            return _probability(served, values[0])
        case "regression":
            return _value(served, values)
        case "multiclass":
            by_class = dict(zip(served.task.classes, values, strict=True))
            return {"probabilities": by_class, **_conformal_set(served, by_class)}
        case "clustering":
            return _cluster(values, phenotypes)


def _probability(served: ServedTask, probability: float) -> OutcomeFields:
    fields: OutcomeFields = {"probability": probability}
    if served.interval is not None:
        low, high = served.interval.interval_at(probability)
        fields["interval"] = {"low": low, "high": high}
    by_class = dict(zip(YES_NO, (1 - probability, probability), strict=True))
    return {**fields, **_conformal_set(served, by_class)}


def _value(served: ServedTask, values: list[float]) -> OutcomeFields:
    value, low, high = values
    # The ends that the graph computes may be inside the value by the last bit.
    interval: IntervalFields = {"low": min(low, value), "high": max(high, value)}
    fields: OutcomeFields = {"value": value, "interval": interval}
    if served.task.unit is not None:
        fields["unit"] = served.task.unit
    return fields


def _cluster(probabilities: list[float], phenotypes: Mapping[int, str]) -> OutcomeFields:
    cluster = probabilities.index(max(probabilities))
    by_cluster = {str(number): probability for number, probability in enumerate(probabilities)}
    fields: OutcomeFields = {"cluster": cluster, "probabilities": by_cluster}
    if cluster in phenotypes:
        fields["description"] = phenotypes[cluster]
    return fields


def _conformal_set(served: ServedTask, probabilities: dict[str, float]) -> OutcomeFields:
    """The classes that cannot be ruled out, or the reason why there is no set."""
    if served.sets is None:
        return {"no_set": "the bundle has none for this task"}
    if served.sets.reason is not None:
        return {"no_set": served.sets.reason}
    thresholds = served.sets.thresholds
    return {"set": [name for name, p in probabilities.items() if p >= thresholds[name]]}
