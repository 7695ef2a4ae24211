"""Examples of requests and responses in the OpenAPI document. The patient is synthetic."""

from typing import Any

from schemas.request_errors import FieldError
from service.http import problems
from service.http.problems import Problem

PAYLOAD: dict[str, Any] = {
    "as_of": "2026-11-23T10:00:00Z",
    "tabular": {"age": 71, "sex": "female"},
    "series": [
        {
            "variable": "heart_rate",
            "unit": "/min",
            "times": ["2026-11-23T08:45:00Z", "2026-11-23T09:45:00Z"],
            "values": [103, 118],
        }
    ],
    "notes": [
        {
            "kind": "admission",
            "time": "2026-11-22T10:00:00Z",
            "text": "Fever and confusion since yesterday.",
        }
    ],
}

# One of the predictions, and the explanation of that task.
ANSWER: dict[str, Any] = {
    "schema_version": "1",
    "id": "3eeadff6-c93b-4170-9494-7753bee9061a",
    "model": {"name": "m3h-open", "version": "1.0.0", "digest": "0" * 64},
    "predictions": [
        {
            "task": "pneumonia",
            "display": "Pneumonia",
            "department": "Infectious disease",
            "kind": "binary",
            "means": "Probability that pneumonia is coded at any time in this hospital stay.",
            "based_on": ["tabular", "series", "notes"],
            "prevalence": 0.157,
            "probability": 0.31,
            "interval": {"low": 0.24, "high": 0.35},
            "set": ["yes", "no"],
        }
    ],
    "receipt": {
        "modalities": {
            "tabular": {"status": "used", "hidden_from": [], "unusual": 0.12},
            "series": {"status": "used", "hidden_from": [], "unusual": 0.4},
            "notes": {"status": "used", "hidden_from": [], "unusual": 0.31},
            "image": {"status": "absent", "hidden_from": []},
        },
        "used": [{"variable": "heart_rate", "unit": "/min", "observations": 2}],
        "treatments": [],
        "converted": [],
        "read_as": [],
        "merged": [],
        "ignored": [],
        "warnings": [],
    },
    "explanation": {
        "attention": [
            {
                "task": "pneumonia",
                "own": 0.67,
                "drawn_from": [{"task": "sepsis", "weight": 0.02}],
            }
        ],
        "modalities": {
            "pneumonia": {
                "baseline": 0.157,
                "tabular": 0.02,
                "series": 0.05,
                "notes": 0.08,
                "image": 0.0,
            }
        },
    },
    "timing_ms": {"queue": 0.1, "parse": 0.3, "features": 1.5, "model": 12.0, "respond": 2.8},
}

HL7_MESSAGE = (
    "MSH|^~\\&|LAB|HOSPITAL|M3H|HOSPITAL|20261123100000+0000||ORU^R01^ORU_R01|1|P|2.5.1\r"
    "PID|1||1||||19550302|F\r"
    "OBR|1|||8716-3^Vital signs^LN\r"
    "OBX|1|NM|8867-4^Heart rate^LN||118|/min^^UCUM|||||F|||20261123094500+0000\r"
)
HL7_ANSWER = (
    "MSH|^~\\&|M3H|HOSPITAL|LAB|HOSPITAL|20261123100001+0000||ACK^R01^ACK|2|P|2.5.1\r"
    "MSA|AA|1\r"
    "OBR|1|||predictions^Predictions by a statistical model^99M3H|||20261123100000+0000\r"
    "OBX|1|NM|pneumonia^Pneumonia^99M3H|probability|0.31|1^no units^UCUM|||||P\r"
)

USAGE: dict[str, Any] = {
    "predictions": 120,
    "requests": {"200": 118, "422": 2},
    "modalities": {"tabular": 120, "series": 110, "notes": 80, "image": 15},
    "variables": {"heart_rate": 108},
    "ignored": {"unknown_unit": 3},
}

METRICS = """\
# HELP m3h_predictions_total Number of predictions; each item of a batch counts
# TYPE m3h_predictions_total counter
m3h_predictions_total 120.0
"""

_ERROR = FieldError(pointer="/series/0/values/2", rule="number", detail="must be a number")
_NOT_JSON = FieldError(pointer="", rule="json", detail="is not JSON")
_NO_PREFETCH = FieldError(
    pointer="/prefetch/observations", rule="required", detail="is missing; send the resources"
)
PROBLEMS: dict[int, Problem] = {
    400: problems.invalid_payload([_NOT_JSON]),
    401: problems.unauthorized("exp", "the token has expired").problem,
    404: problems.not_in_bundle("TIM").problem,
    406: problems.not_acceptable(["application/fhir+json"]).problem,
    408: problems.too_slow("body", "M3H_BODY_SECONDS").problem,
    412: problems.precondition_failed([_NO_PREFETCH]).problem,
    413: problems.too_large(32 * 2**20, "M3H_MAX_BODY_BYTES").problem,
    415: problems.unsupported_media_type().problem,
    422: problems.invalid_payload([_ERROR]),
    500: problems.unexpected(),
    503: problems.busy(2).problem,
    504: problems.late().problem,
}

BATCH: dict[str, Any] = {"items": [PAYLOAD, {"as_of": "2026-11-23T10:00:00Z"}]}
_EMPTY = FieldError(pointer="", rule="not_empty", detail="needs at least one input")
BATCH_ANSWER: dict[str, Any] = {
    "items": [ANSWER, problems.invalid_payload([_EMPTY]).model_dump(exclude_none=True)]
}
