"""OperationOutcome: errors of a request and the receipt of an answer (FHIR R4, section 2.43)."""

from collections.abc import Sequence
from typing import Any, Literal

RULES = "urn:m3h:rule"
MAX_EXPRESSIONS = 20  # of one issue

Severity = Literal["fatal", "error", "warning", "information"]

# Codes of http://hl7.org/fhir/issue-type by rule. Other rules have the code "invalid".
_ISSUE_TYPES = {
    "json": "structure",
    "resource_type": "structure",
    "array": "structure",
    "object": "structure",
    "repeated_name": "structure",
    "required": "required",
    "not_empty": "required",
    "missing": "required",
    "max_items": "too-long",
    "too_many_values": "too-long",
    "item_count": "too-long",
    "one_patient": "business-rule",
    "duplicate_resource": "duplicate",
    "reference_loop": "business-rule",
    "dangling_reference": "not-found",
    "resource_not_read": "not-supported",
    "media_type_not_read": "not-supported",
    "external_url": "not-supported",
    "unknown_code": "code-invalid",
    "unknown_variable": "code-invalid",
    "unknown_treatment": "code-invalid",
    "unknown_category": "code-invalid",
    "ambiguous_code": "code-invalid",
    "modifier_extension": "extension",
    "decimal": "value",
    "integer": "value",
    "string": "value",
    "finite_number": "value",
    "date": "value",
    "date_time": "value",
    "time_zone": "value",
    "base64": "value",
    "charset": "value",
    "allowed_values": "code-invalid",
    "bundle_type": "code-invalid",
}
_INVALID, _INFORMATIONAL, _PROCESSING = "invalid", "informational", "processing"


def issue(
    severity: Severity,
    rule: str,
    detail: str,
    expressions: Sequence[str] = (),
    count: int | None = None,
    locations: Sequence[str] = (),
) -> dict[str, Any]:
    """An issue. `rule`: the rule or reason as a code. `count`: of all places, if some are left out.

    `locations`: parameters or headers, such as `http.as_of`.
    """
    if severity == "information":
        kind = _INFORMATIONAL
    else:
        kind = _ISSUE_TYPES.get(rule, _INVALID if severity == "error" else _PROCESSING)
    fields: dict[str, Any] = {
        "severity": severity,
        "code": kind,
        "details": {"coding": [{"system": RULES, "code": rule}], "text": detail},
    }
    if count is not None and count > min(len(expressions), MAX_EXPRESSIONS):
        fields["diagnostics"] = f"{count} places; expression lists the first of them"
    named = [expression for expression in expressions[:MAX_EXPRESSIONS] if expression]
    if named:
        fields["expression"] = named
    if locations:
        fields["location"] = [*locations]
    return fields


def operation_outcome(issues: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """An OperationOutcome with these issues, of which there must be one or more."""
    return {"resourceType": "OperationOutcome", "issue": [*issues]}
