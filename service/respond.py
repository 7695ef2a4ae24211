"""From raw outputs to the answer: predictions in words and numbers, the reason, the receipt."""

import math
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter

from schemas.features import Features
from schemas.manifest import Manifest, TaskFacts
from schemas.response import (
    Explanation,
    Ignored,
    Modality,
    ModalityUse,
    Prediction,
    Receipt,
)
from service.bundle import ATTENTION
from service.engine import Outputs

Explain = Literal["none", "default", "full"]

_PREDICTIONS = TypeAdapter(tuple[Prediction, ...])

DRAWN_FROM = 5  # the other tasks that the default explanation names


def receipt(found: Features, manifest: Manifest) -> Receipt:
    """The receipt of the features, with what this model hides and what it was not trained for."""
    modalities = dict(found.receipt.modalities)
    ignored = list(found.receipt.ignored)
    names = {facts.task.name for facts in manifest.tasks}
    for modality in found.arrays:
        blind = tuple(f.task.name for f in manifest.tasks if modality not in f.seen)
        if not blind:
            continue
        hidden = len(blind) == len(names)
        modalities[modality] = ModalityUse(status="hidden" if hidden else "used", hidden_from=blind)
        tasks = "all" if hidden else f"{len(blind)} of {len(names)}"
        detail = f"hidden from {tasks} tasks: no patient with it had their labels in training"
        ignored.append(
            Ignored(pointer=_pointer(modality, found), reason="hidden_modality", detail=detail)
        )
    warnings = (
        *found.receipt.warnings,
        *_nothing_warning(found, manifest),
        *_time_warning(found, manifest),
    )
    return found.receipt.model_copy(
        update={"modalities": modalities, "ignored": tuple(ignored), "warnings": warnings}
    )


def _pointer(modality: Modality, found: Features) -> str:
    if modality == "series" and not found.receipt.used:
        return "/treatments"
    return {"tabular": "/tabular", "series": "/series", "notes": "/notes", "image": "/images"}[
        modality
    ]


def _nothing_warning(found: Features, manifest: Manifest) -> tuple[str, ...]:
    """A warning if no task saw anything: its number must not be read as the patient's."""
    if any(modality in facts.seen for facts in manifest.tasks for modality in found.arrays):
        return ()
    return ("nothing of the request could be used: each number is that of the average patient",)


def _time_warning(found: Features, manifest: Manifest) -> tuple[str, ...]:
    """A warning if the patient is not as long in the unit as those that the model learnt from."""
    low, high = manifest.trained_hours
    trained = f"the model was trained {low:g} to {high:g} hours after admission to the unit"
    hours = math.nan
    if "tabular" in found.arrays:
        column = manifest.spec.tabular_names.index("hours_since_admission")
        hours = float(found.arrays["tabular"]["values"][column])
    if math.isnan(hours):
        return (f"tabular.admitted_at is absent and {trained}: whether this holds is not known",)
    if low <= hours <= high:
        return ()
    return (f"as_of is {hours:.4g} hours after admitted_at and {trained}: read with caution",)


def predictions(outputs: Outputs, found: Features, manifest: Manifest) -> tuple[Prediction, ...]:
    """Each task's answer, in the manifest's order."""
    rows = {name: row.tolist() for name, row in outputs.items() if name != ATTENTION}
    # Validated in one go: 44 constructors one by one are the slowest part of an answer.
    return _PREDICTIONS.validate_python(
        [_prediction(facts, rows[facts.output], found) for facts in manifest.tasks]
    )


def _prediction(facts: TaskFacts, row: list[float], found: Features) -> dict[str, Any]:
    """The fields of one task's answer, from its output's row."""
    values = row if facts.column is None else [row[facts.column]]
    abstains = facts.abstains
    if abstains is None and not all(map(math.isfinite, values)):
        abstains = "the model gave no finite number"
    return {
        "task": facts.task.name,
        "display": facts.task.display,
        "department": facts.task.department,
        "kind": facts.task.kind,
        "means": facts.task.means,
        "based_on": [modality for modality in found.arrays if modality in facts.seen],
        "prevalence": facts.prevalence,
        **(_value(facts, values) if abstains is None else {"abstained": {"reason": abstains}}),
    }


def _value(facts: TaskFacts, values: list[float]) -> dict[str, Any]:
    """The value field of a prediction, by the kind of its task."""
    match facts.task.kind:
        case "binary":
            return {"probability": values[0]}
        case "regression":
            return {"value": values[0], "unit": facts.task.unit}
        case "multiclass":
            return {"probabilities": dict(zip(facts.task.classes, values, strict=True))}
        case "clustering":
            shares = {str(cluster): share for cluster, share in enumerate(values)}
            return {"cluster": values.index(max(values)), "probabilities": shares}


def explanation(outputs: Outputs, manifest: Manifest, explain: Explain) -> Explanation | None:
    """Which tasks each prediction was drawn from. None if not asked for, or if not finite."""
    weights = outputs[ATTENTION]
    if explain == "none" or not np.isfinite(weights).all():
        return None
    names = [facts.task.name for facts in manifest.tasks]
    rows = weights.tolist()
    if explain == "full":
        return Explanation.model_validate({"attention": {"tasks": names, "weights": rows}})
    others = weights.copy()
    np.fill_diagonal(others, -np.inf)
    largest = np.argsort(-others, axis=1, kind="stable")[:, : min(DRAWN_FROM, len(names) - 1)]
    attention = [
        {
            "task": name,
            "own": row[i],
            "drawn_from": [{"task": names[j], "weight": row[j]} for j in columns],
        }
        for i, (name, row, columns) in enumerate(zip(names, rows, largest.tolist(), strict=True))
    ]
    return Explanation.model_validate({"attention": attention})
