"""The endpoints of CDS Hooks in the OpenAPI document."""

from typing import Any

from service.http import openapi
from service.http.request_parsing import SchedulingHeaders
from service.interop.cds_hooks import models

_CALL_STATUSES = (400, 401, 404, 408, 412, 413, 415, 422, 500, 503, 504)
_FEEDBACK_STATUSES = (400, 401, 404, 408, 413, 415, 422, 503, 504)
_PATH_PARAMETER = {
    "name": "service_id",
    "in": "path",
    "required": True,
    "description": "the id of a service, as GET /cds-services lists it",
    "schema": {"type": "string"},
}

REQUEST: dict[str, Any] = {
    "hook": "patient-view",
    "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
    "context": {"userId": "Practitioner/example", "patientId": "1288992", "encounterId": "456"},
    "extension": {"urn:m3h:as-of": "2026-11-23T10:00:00Z"},
    "prefetch": {
        "patient": {
            "resourceType": "Patient",
            "id": "1288992",
            "birthDate": "1955-03-02",
            "gender": "female",
        },
        "encounter": None,
        "observations": {
            "resourceType": "Bundle",
            "type": "searchset",
            "entry": [
                {
                    "resource": {
                        "resourceType": "Observation",
                        "status": "final",
                        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
                        "subject": {"reference": "Patient/1288992"},
                        "effectiveDateTime": "2026-11-23T09:45:00Z",
                        "valueQuantity": {"value": 118, "code": "/min", "unit": "beats/min"},
                    }
                }
            ],
        },
        "medications": None,
        "procedures": None,
        "reports": None,
        "documents": None,
        "media": None,
    },
}
RESPONSE: dict[str, Any] = {
    "cards": [
        {
            "uuid": "03c003a1-e328-8575-ab82-028d55fe2719",
            "summary": "Sepsis 62 %, Septic shock 21 %: above the alert threshold",
            "indicator": "critical",
            "detail": "| condition | probability |\n|---|---|\n| Sepsis | **62 %** |",
            "source": {
                "label": "M3H, m3h-open 1.1.0",
                "topic": {"code": "sepsis", "system": "urn:m3h:task", "display": "Sepsis"},
            },
            "suggestions": [{"label": "Reviewed", "uuid": "03c00f6b-9576-8b1c-8385-bf3504b82ffb"}],
            "selectionBehavior": "at-most-one",
            "overrideReasons": [
                {"code": "known", "system": "urn:m3h:override-reason", "display": "Already known"}
            ],
        }
    ],
    "extension": {
        "urn:m3h:result": {
            "as_of": "2026-11-23T10:00:00+00:00",
            "model": "m3h-open 1.1.0",
            "digest": "0" * 64,
            "predicted": 38,
            "shown": ["sepsis", "septic_shock"],
        }
    },
}
FEEDBACK: dict[str, Any] = {
    "feedback": [
        {
            "card": "03c003a1-e328-8575-ab82-028d55fe2719",
            "outcome": "overridden",
            "overrideReason": {"reason": {"code": "known", "system": "urn:m3h:override-reason"}},
            "outcomeTimestamp": "2026-11-23T10:05:31Z",
        }
    ]
}
DISCOVERY: dict[str, Any] = {
    "services": [
        {
            "hook": "patient-view",
            "title": "M3H: conditions with a high probability",
            "description": "Predicts from the record of one patient, and shows cards.",
            "id": "m3h-patient-view",
            "prefetch": {"patient": "Patient/{{context.patientId}}"},
            "usageRequirements": "Send every prefetch key, with null if the record has no data.",
        }
    ]
}


def discovery() -> dict[str, Any]:
    """The arguments of the route of discovery."""
    return {
        "tags": ["cds-hooks"],
        "summary": "List the CDS Services",
        "response_model": models.Discovery,
        "responses": openapi.example(DISCOVERY) | openapi.problems(401, 503),
    }


def call() -> dict[str, Any]:
    """The arguments of the route of a call."""
    return {
        "tags": ["cds-hooks"],
        "summary": "Call a CDS Service",
        "response_model": models.HookResponse,
        "responses": openapi.example(RESPONSE) | openapi.problems(*_CALL_STATUSES),
        "openapi_extra": openapi.body("HookRequest", REQUEST) | _parameters(),
    }


def feedback() -> dict[str, Any]:
    """The arguments of the route of feedback."""
    return {
        "tags": ["cds-hooks"],
        "summary": "Report what users did with cards",
        "response_model": models.FeedbackReceipt,
        "responses": openapi.example({"recorded": 1}) | openapi.problems(*_FEEDBACK_STATUSES),
        "openapi_extra": openapi.body("Feedback", FEEDBACK) | _parameters(),
    }


def _parameters() -> dict[str, Any]:
    headers = openapi.parameters(header=SchedulingHeaders)["parameters"]
    return {"parameters": [_PATH_PARAMETER, *headers]}
