"""From raw outputs to the answer: predictions in words and numbers, and the receipt.

Predictions are made as the fields of `schemas.response`, not as its objects: these
are a hundred and more of each answer, and to make and check them takes longer than all else here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.features import Features
from schemas.manifest import Manifest, Phenotype, TaskFacts
from schemas.response import Ignored, Modality, ModalityUse, Receipt
from service.runtime.bundle import ATTENTION, YES_NO
from service.runtime.engine import Outputs

Fields = dict[str, Any]

UNUSUAL = 0.99  # above it the receipt warns
PLAIN = 0.2  # a smaller difference sets nothing apart: in spreads, or from the usual rate

_IS_UNUSUAL: dict[Modality, str] = {
    "tabular": "the tabular data are",
    "series": "the series and treatments are",
    "notes": "the notes are",
    "image": "the image is",
}


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
        use = modalities[modality]
        modalities[modality] = ModalityUse(
            status="hidden" if hidden else "used",
            hidden_from=blind,
            unusual=None if hidden else use.unusual,
        )
        tasks = "all" if hidden else f"{len(blind)} of {len(names)}"
        detail = f"hidden from {tasks} tasks: no patient with it had their labels in training"
        ignored.append(
            Ignored(pointer=_pointer(modality, found), reason="hidden_modality", detail=detail)
        )
    warnings = (
        *found.receipt.warnings,
        *_nothing_warning(found, manifest),
        *_time_warning(found, manifest),
        *_age_warning(found, manifest),
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
    hours = _number("hours_since_admission", found, manifest)
    if math.isnan(hours):
        absent = "tabular.admitted_at is absent or not used"
        return (f"{absent} and {trained}: whether this holds is not known",)
    if low <= hours <= high:
        return ()
    return (f"as_of is {hours:.4g} hours after admitted_at and {trained}: read with caution",)


def _age_warning(found: Features, manifest: Manifest) -> tuple[str, ...]:
    """A warning if nobody of this age was among the patients that the model learned from."""
    low, high = manifest.trained_age
    age = _number("age", found, manifest)
    if math.isnan(age) or low <= age <= high:
        return ()
    learned = f"the model learned from patients of {low:g} years and older"
    return (f"{learned}; this one is younger, so that no number is known to hold",)


def _number(name: str, found: Features, manifest: Manifest) -> float:
    """A number of the tabular data; NaN if it is not known."""
    if "tabular" not in found.arrays:
        return math.nan
    return float(found.arrays["tabular"]["values"][manifest.spec.tabular_names.index(name)])


def with_unusual(receipt: Receipt, outputs: Outputs) -> Receipt:
    """The receipt with how unusual each used modality is, and a warning where it is very.

    A modality that the features found unlike those of the training stays so, with its own warning.
    """
    modalities, warnings = dict(receipt.modalities), list(receipt.warnings)
    for modality, score in outputs.unusual.items():
        use = modalities[modality]
        if use.status != "used" or use.unusual is not None or not math.isfinite(score):
            continue
        modalities[modality] = use.model_copy(update={"unusual": score})
        if score > UNUSUAL:
            most = f"unlike those of {UNUSUAL * 100:g} % of the training patients"
            warnings.append(f"{_IS_UNUSUAL[modality]} {most}: read with caution")
    return receipt.model_copy(update={"modalities": modalities, "warnings": tuple(warnings)})


def predictions(
    outputs: Outputs, manifest: Manifest, stated: Sequence[Fields], phenotypes: Mapping[int, str]
) -> list[Fields]:
    """Each task's Prediction, in the manifest's order.

    `stated`: what `stated` says of them; `phenotypes`: each cluster in words.
    """
    rows = {name: row.tolist() for name, row in outputs.fusion.items() if name != ATTENTION}
    return [
        _prediction(facts, fields, rows[facts.output], phenotypes)
        for facts, fields in zip(manifest.tasks, stated, strict=True)
    ]


def stated(manifest: Manifest, there: Sequence[Modality]) -> list[Fields]:
    """What each Prediction says of its task whatever the graphs say, if `there` is known."""
    found: list[Fields] = []
    for facts in manifest.tasks:
        fields: Fields = {
            "task": facts.task.name,
            "display": facts.task.display,
            "department": facts.task.department,
            "kind": facts.task.kind,
            "means": facts.task.means,
            "based_on": [modality for modality in there if modality in facts.seen],
        }
        if facts.prevalence is not None:
            fields["prevalence"] = facts.prevalence
        found.append(fields)
    return found


def _prediction(
    facts: TaskFacts, fields: Fields, row: list[float], phenotypes: Mapping[int, str]
) -> Fields:
    """One task's Prediction, from its output's row and the `fields` that are stated of it."""
    values = row
    if facts.task.kind == "binary" and facts.column is not None:
        values = [row[facts.column]]
    abstains = facts.abstains
    if abstains is None and not all(map(math.isfinite, values)):
        abstains = "the model gave no finite number"
    if abstains is not None:
        return fields | {"abstained": {"reason": abstains}}
    return fields | _value(facts, values, phenotypes)


def _value(facts: TaskFacts, values: list[float], phenotypes: Mapping[int, str]) -> Fields:
    """The value field of a prediction, and how sure it is, by the kind of its task."""
    match facts.task.kind:
        case "binary":
            p = values[0]
            by_class = dict(zip(YES_NO, (1 - p, p), strict=True))
            return {"probability": p, **_interval(facts, p), **_set(facts, by_class)}
        case "regression":
            value, low, high = values
            # The graph's ends are around its value, but for the last bit.
            interval = {"low": min(low, value), "high": max(high, value)}
            unit = {} if facts.task.unit is None else {"unit": facts.task.unit}
            return {"value": value, "interval": interval, **unit}
        case "multiclass":
            by_class = dict(zip(facts.task.classes, values, strict=True))
            return {"probabilities": by_class, **_set(facts, by_class)}
        case "clustering":
            cluster = values.index(max(values))
            shares = {str(cluster): share for cluster, share in enumerate(values)}
            words = {"description": phenotypes[cluster]} if cluster in phenotypes else {}
            return {"cluster": cluster, "probabilities": shares, **words}


def _interval(facts: TaskFacts, probability: float) -> Fields:
    """The interval around a probability, if the bundle knows one."""
    if facts.interval is None:
        return {}
    low, high = facts.interval.at(probability)
    return {"interval": {"low": low, "high": high}}


def _set(facts: TaskFacts, probabilities: dict[str, float]) -> Fields:
    """The classes that cannot be ruled out, or why that cannot be said."""
    if facts.sets is None:
        return {"no_set": "the bundle has none for this task"}
    if facts.sets.reason is not None:
        return {"no_set": facts.sets.reason}
    thresholds = facts.sets.thresholds
    return {"set": [name for name, p in probabilities.items() if p >= thresholds[name]]}


def phenotypes_in_words(manifest: Manifest) -> dict[int, str]:
    """Each cluster in words."""
    return {found.cluster: _in_words(found, manifest) for found in manifest.phenotypes}


def _in_words(phenotype: Phenotype, manifest: Manifest) -> str:
    if not phenotype.share:
        return "none of the patients that the phenotypes were described with"
    variables = {variable.name: variable.display for variable in manifest.spec.variables}
    tasks = {facts.task.name: facts.task.display for facts in manifest.tasks}
    apart = [
        f"{'high' if spreads > 0 else 'low'} {_inside(variables[name])}"
        for name, spreads in phenotype.distinguished_by.items()
        if abs(spreads) >= PLAIN
    ]
    apart += [
        f"{ratio:.2g} times as often {_inside(tasks[name])}"
        for name, ratio in phenotype.more_often.items()
        if abs(ratio - 1) >= PLAIN
    ]
    share = f"{phenotype.share * 100:.0f} % of the patients"
    # Some names have commas in them.
    return "; ".join([share, *(apart or ["like the average patient"])])


def _inside(name: str) -> str:
    """A name inside a sentence; one with other capitals in it (pH, Glasgow Coma Scale) stays."""
    return name[0].lower() + name[1:] if name[1:2].islower() and name[1:].islower() else name
