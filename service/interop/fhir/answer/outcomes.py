"""The predictions as FHIR resources, one for each task.

A probability is a RiskAssessment. A discharge disposition is one, too, with a prediction for each
outcome. The length of stay and the phenotype are Observations: a RiskAssessment holds probabilities
only, but neither a number of days nor a class. A task that abstains has the same resource with
status `cancelled`, without a number and with the reason, so that it cannot be read as "no risk".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.tasks import MORTALITY, Task
from service.interop.fhir.answer.labels import (
    ABSENT_CODES,
    AI_META,
    DATA_ABSENT,
    DATA_ABSENT_EXTENSION,
    DISCHARGE_CODES,
    PATIENT_SET,
    PHENOTYPES,
    TASKS,
    concept,
    confidence,
    quantity,
)

Fields = dict[str, Any]
# Types that Observation.derivedFrom may reference (FHIR R4, section 10.1.4).
_DERIVED_FROM = ("DocumentReference/", "ImagingStudy/", "Media/", "Observation/")


@dataclass(frozen=True)
class Context:
    """What all resources of an answer share. References are those of FHIR.

    `as_of`, `stay_start`: time of the prediction, and start of the Encounter if it is known,
    otherwise the same time. `basis`: by modalities, the references to the inputs.
    """

    subject: Fields
    encounter: Fields | None
    device: Fields
    method: str
    as_of: str
    stay_start: str
    basis: Mapping[tuple[str, ...], Sequence[Fields]]


def outcome_resource(prediction: Fields, task: Task, context: Context) -> Fields:
    """The resource of one prediction of an answer (`schemas.response.Prediction`)."""
    if task.kind in ("binary", "multiclass"):
        return _risk_assessment(prediction, task, context)
    return _observation(prediction, task, context)


def _head(kind: str, prediction: Fields, task: Task, context: Context) -> Fields:
    own = {"system": TASKS, "code": task.name, "display": task.display}
    resource: Fields = {
        "resourceType": kind,
        "meta": AI_META,
        "status": "cancelled" if "abstained" in prediction else "final",
        "code": concept(task.display, own),
        "subject": context.subject,
    }
    if context.encounter is not None:
        resource["encounter"] = context.encounter
    return resource


# ---- RiskAssessment ------------------------------------------------------------------------------


def _risk_assessment(prediction: Fields, task: Task, context: Context) -> Fields:
    """A RiskAssessment (FHIR R4, section 9.7)."""
    resource = _head("RiskAssessment", prediction, task, context)
    resource |= {
        "method": {"text": context.method},
        "occurrenceDateTime": context.as_of,
        "performer": context.device,
    }
    basis = context.basis.get(tuple(prediction["based_on"]))
    if basis:
        resource["basis"] = basis
    resource["prediction"] = _predictions(prediction, task, context)
    notes = [f"No set of outcomes: {prediction['no_set']}."] if "no_set" in prediction else []
    if "prevalence" in prediction:
        notes.append(f"Prevalence among the training patients: {prediction['prevalence']:.4g}.")
    if notes:
        resource["note"] = [{"text": note} for note in notes]
    return resource


def _predictions(prediction: Fields, task: Task, context: Context) -> list[Fields]:
    is_later = task.name == MORTALITY or not task.is_disease
    period = {"start": context.as_of if is_later else context.stay_start}
    if task.kind == "binary":
        coding = [part.model_dump() for part in task.coding]
        outcomes = {"": concept(task.display, *coding)}
        probabilities = {"": prediction.get("probability")}
    else:
        outcomes = {name: _disposition(name) for name in task.classes}
        probabilities = prediction.get("probabilities", {})
    listed = []
    for name, outcome in outcomes.items():
        fields: Fields = {"outcome": outcome}
        if "abstained" in prediction:
            fields["extension"] = [_absent(prediction)]
            fields["rationale"] = f"No prediction: {prediction['abstained']['reason']}."
        else:
            fields |= _extensions(prediction, name)
            fields["probabilityDecimal"] = probabilities[name]
            fields["whenPeriod"] = period
            fields["rationale"] = prediction["means"]
        listed.append(fields)
    if task.kind == "binary" and prediction.get("prevalence") and "probability" in prediction:
        ratio = prediction["probability"] / prediction["prevalence"]
        listed[0]["relativeRisk"] = round(ratio, 6)
    return listed


def _extensions(prediction: Fields, name: str) -> Fields:
    """The interval and the conformal set. `name`: of a class; empty for a binary task."""
    extensions = []
    if "interval" in prediction:
        extensions.append(confidence(prediction["interval"], "1"))
    if "set" in prediction:
        members = prediction["set"] if not name else [m for m in prediction["set"] if m == name]
        extensions += [{"url": PATIENT_SET, "valueString": member} for member in members]
    return {"extension": extensions} if extensions else {}


def _disposition(name: str) -> Fields:
    coding = [DISCHARGE_CODES[name]] if name in DISCHARGE_CODES else []
    return concept(name.replace("_", " "), *coding)


def _absent(prediction: Fields) -> Fields:
    code = ABSENT_CODES.get(prediction["abstained"].get("code", ""), "unknown")
    return {"url": DATA_ABSENT_EXTENSION, "valueCode": code}


# ---- Observation ---------------------------------------------------------------------------------


def _observation(prediction: Fields, task: Task, context: Context) -> Fields:
    """An Observation (FHIR R4, section 10.1)."""
    resource = _head("Observation", prediction, task, context)
    resource |= {
        "effectiveDateTime": context.as_of,
        "device": context.device,
        "method": {"text": context.method},
    }
    resource["note"] = [{"text": prediction["means"]}]
    basis = context.basis.get(tuple(prediction["based_on"]), ())
    derived = [part for part in basis if _may_derive_from(part.get("reference", ""))]
    if derived:
        resource["derivedFrom"] = derived
    if "abstained" in prediction:
        reason = prediction["abstained"]
        coding = {
            "system": DATA_ABSENT,
            "code": ABSENT_CODES.get(reason.get("code", ""), "unknown"),
        }
        resource["dataAbsentReason"] = concept(reason["reason"], coding)
    elif task.kind == "regression":
        unit = prediction.get("unit", "1")
        resource["valueQuantity"] = quantity(prediction["value"], unit)
        resource["extension"] = [confidence(prediction["interval"], unit)]
    else:
        resource |= _cluster(prediction)
    return resource


def _may_derive_from(reference: str) -> bool:
    return any(kind in reference for kind in _DERIVED_FROM)


def _cluster(prediction: Fields) -> Fields:
    """The most likely cluster as the value, the probability of each as a component."""

    def coding(number: object) -> dict[str, str]:
        return {"system": PHENOTYPES, "code": str(number)}

    number = prediction["cluster"]
    text = prediction.get("description", f"cluster {number}")
    return {
        "valueCodeableConcept": concept(text, coding(number)),
        "component": [
            {"code": concept(f"cluster {name}", coding(name)), "valueQuantity": quantity(p, "1")}
            for name, p in prediction["probabilities"].items()
        ],
    }
