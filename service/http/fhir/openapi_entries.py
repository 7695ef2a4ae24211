"""The FHIR endpoints in the OpenAPI document. Resources are plain objects there."""

import json
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from service.http import openapi, openapi_examples
from service.http.fhir.error_response import FHIR_JSON, problem_outcome
from service.http.negotiation import JSON
from service.http.request_parsing import SchedulingHeaders
from service.interop.fhir.conformance import NDJSON

_RESOURCE = {"type": "object", "required": ["resourceType"]}
_STATUSES = (400, 406, 408, 413, 415, 422, 500, 503, 504)

BUNDLE: dict[str, Any] = {
    "resourceType": "Bundle",
    "type": "collection",
    "timestamp": "2026-11-23T10:00:00Z",
    "entry": [
        {
            "fullUrl": "urn:uuid:7f9f7b3e-5d0a-4a3c-9f7e-0c2a4b6d8e01",
            "resource": {"resourceType": "Patient", "birthDate": "1955-03-02", "gender": "female"},
        },
        {
            "fullUrl": "urn:uuid:7f9f7b3e-5d0a-4a3c-9f7e-0c2a4b6d8e02",
            "resource": {
                "resourceType": "Observation",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
                "subject": {"reference": "urn:uuid:7f9f7b3e-5d0a-4a3c-9f7e-0c2a4b6d8e01"},
                "effectiveDateTime": "2026-11-23T09:45:00Z",
                "valueQuantity": {"value": 118, "code": "/min", "unit": "beats/min"},
            },
        },
    ],
}
ANSWER: dict[str, Any] = {
    "resourceType": "Bundle",
    "type": "collection",
    "entry": [
        {
            "resource": {
                "resourceType": "RiskAssessment",
                "status": "final",
                "subject": {"reference": "urn:uuid:7f9f7b3e-5d0a-4a3c-9f7e-0c2a4b6d8e01"},
                "prediction": [{"outcome": {"text": "Pneumonia"}, "probabilityDecimal": 0.31}],
            }
        }
    ],
}


def predict_operation(query: type[BaseModel]) -> dict[str, Any]:
    """The arguments of the route of `$predict`."""
    parameters = openapi.parameters(query=query, header=SchedulingHeaders)
    media = {"schema": _RESOURCE, "example": BUNDLE}
    lines = {"schema": {"type": "string"}, "example": f"{json.dumps(BUNDLE)}\n"}
    body = {"required": True, "content": {FHIR_JSON: media, JSON: media, NDJSON: lines}}
    answer = {
        FHIR_JSON: {"schema": _RESOURCE, "example": ANSWER},
        NDJSON: {"schema": {"type": "string"}, "example": f"{json.dumps(ANSWER)}\n"},
    }
    return {
        "tags": ["fhir"],
        "response_class": Response,  # without a media type of its own
        "summary": "Predict all tasks for one patient from a FHIR R4 Bundle",
        "responses": _responses(_STATUSES) | {200: {"content": answer}},
        "openapi_extra": {"requestBody": body} | parameters,
    }


def read_operation(kind: str) -> dict[str, Any]:
    """The arguments of the route of a conformance resource."""
    example = {"resourceType": kind, "status": "active"}
    answer = {FHIR_JSON: {"schema": _RESOURCE, "example": example}}
    return {
        "tags": ["fhir"],
        "response_class": Response,  # without a media type of its own
        "summary": f"The {kind} of the service",
        "responses": _responses((406,)) | {200: {"content": answer}},
    }


def _responses(statuses: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
    """Responses that are OperationOutcomes."""
    return {
        status: {
            "description": openapi.DESCRIPTIONS[status],
            "content": {
                FHIR_JSON: {
                    "schema": _RESOURCE,
                    "example": problem_outcome(openapi_examples.PROBLEMS[status]),
                }
            },
        }
        for status in statuses
    }
