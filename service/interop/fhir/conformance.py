"""CapabilityStatement and OperationDefinition (FHIR R4, sections 5.1 and 5.4)."""

from typing import Any

from schemas.fhir.document import BUNDLE_TYPES
from schemas.manifest import Manifest
from service.interop.fhir.answer.labels import GUIDE, GUIDE_VERSION

FHIR_VERSION = "4.0.1"
OPERATION_ID = "m3h-predict"
NDJSON = "application/fhir+ndjson"
_DATE = "2026-11-30"  # of the last change of these two resources
_GUIDE_RESOURCE = f"{GUIDE}/ImplementationGuide/hl7.fhir.uv.aitransparency|{GUIDE_VERSION}"


def capability_statement(manifest: Manifest) -> dict[str, Any]:
    """What the service supports: one system operation, in JSON."""
    documentation = (
        "Predicts the tasks of one patient from a Bundle. The service stores nothing, supports no "
        "other interaction and calls no other server."
    )
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": _DATE,
        "kind": "instance",
        "software": {"name": "M3H", "version": manifest.version},
        "implementation": {"description": f"M3H with the model {manifest.name}"},
        "fhirVersion": FHIR_VERSION,
        "format": ["application/fhir+json", "json", NDJSON],
        "implementationGuide": [_GUIDE_RESOURCE],
        "rest": [
            {
                "mode": "server",
                "documentation": documentation,
                "operation": [
                    {
                        "name": "predict",
                        "definition": f"OperationDefinition/{OPERATION_ID}",
                        "documentation": "POST [base]/$predict",
                    }
                ],
            }
        ],
    }


def operation_definition(manifest: Manifest) -> dict[str, Any]:
    """The operation `$predict` with its parameters."""
    outcome_types = "a RiskAssessment or Observation for each task, with Device and Provenance"
    return {
        "resourceType": "OperationDefinition",
        "id": OPERATION_ID,
        "version": manifest.version,
        "name": "M3HPredict",
        "title": "Predict the tasks of one patient",
        "status": "active",
        "kind": "operation",
        "date": _DATE,
        "affectsState": False,
        "code": "predict",
        "system": True,
        "type": False,
        "instance": False,
        "comment": (
            "The body is the Bundle itself, or Parameters with the Bundle. The time of the "
            "prediction is the query parameter as_of, otherwise asOf, otherwise Bundle.timestamp."
        ),
        "parameter": [
            {
                "name": "bundle",
                "use": "in",
                "min": 1,
                "max": "1",
                "type": "Bundle",
                "documentation": (
                    f"The data of one patient. Types: {', '.join(BUNDLE_TYPES)}. References are "
                    "resolved inside the Bundle."
                ),
            },
            {
                "name": "asOf",
                "use": "in",
                "min": 0,
                "max": "1",
                "type": "dateTime",
                "documentation": "The moment of the prediction, with a time zone. Later data are "
                "not read.",
            },
            {
                "name": "return",
                "use": "out",
                "min": 1,
                "max": "1",
                "type": "Bundle",
                "documentation": f"A collection: {outcome_types}, and the receipt as an "
                "OperationOutcome.",
            },
        ],
    }
