"""Codes and labels of the answer.

AI labels follow HL7's AI Transparency on FHIR, version 1.0.0-ballot: the security label AIAST, the
codes and extensions of Device, Provenance and model card, and the confidence extension. No
`meta.profile` is set, because the profiles of a ballot may change.
"""

from typing import Any

GUIDE = "http://hl7.org/fhir/uv/aitransparency"
GUIDE_VERSION = "1.0.0-ballot"
AI_CONFIDENCE = f"{GUIDE}/StructureDefinition/AIconfidence"
AI_DEVICE_TYPES = f"{GUIDE}/CodeSystem/AIdeviceTypeCS"
AI_KIND = f"{GUIDE}/StructureDefinition/aitransparency.AIKind"
MODEL_CARD = f"{GUIDE}/StructureDefinition/aitransparency.modelCardDescription"
AI_INPUTS = f"{GUIDE}/CodeSystem/AIinputsCS"
DATA_ABSENT_EXTENSION = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
DATA_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
UCUM = "http://unitsofmeasure.org"
TASKS, PHENOTYPES, PATIENT_SET = "urn:m3h:task", "urn:m3h:phenotype", "urn:m3h:outcome-set"
DIGEST = "urn:m3h:bundle-sha256"

AIAST = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
AI_META = {"security": [AIAST]}
ARTIFICIAL_INTELLIGENCE = {"system": AI_DEVICE_TYPES, "code": "Artificial-Intelligence"}
# Codes of http://terminology.hl7.org/CodeSystem/data-absent-reason by kind of abstention.
ABSENT_CODES = {
    "not_trained": "unsupported",
    "outside_trained_population": "not-applicable",
    "no_input": "unknown",
    "no_finite_number": "not-a-number",
}
_DISCHARGE = "http://terminology.hl7.org/CodeSystem/discharge-disposition"
# Codes of the classes of the discharge disposition that one code describes.
DISCHARGE_CODES = {
    "home": {"system": _DISCHARGE, "code": "home", "display": "Home"},
    "other_facility": {
        "system": _DISCHARGE,
        "code": "other-hcf",
        "display": "Other healthcare facility",
    },
    "died": {"system": _DISCHARGE, "code": "exp", "display": "Expired"},
}


def concept(text: str, *coding: dict[str, str]) -> dict[str, Any]:
    """A CodeableConcept."""
    return {"coding": [*coding], "text": text} if coding else {"text": text}


def quantity(value: float, unit: str) -> dict[str, Any]:
    """A Quantity. `unit`: UCUM code."""
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}


def confidence(interval: dict[str, float], unit: str) -> dict[str, Any]:
    """The confidence extension with an interval in a UCUM unit."""
    low, high = (quantity(interval[end], unit) for end in ("low", "high"))
    return {"url": AI_CONFIDENCE, "valueRange": {"low": low, "high": high}}
