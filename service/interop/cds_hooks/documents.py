"""Parses the JSON documents of a client. Errors name a JSON Pointer and a rule, and no value."""

from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from schemas.parsing.json_body import count_names, read_json, refuse_repeated_names
from schemas.request_errors import FieldError, InvalidPayload, to_field_error

M = TypeVar("M", bound=BaseModel)

_FORMATS = {
    "/hookInstance": ("uuid", "must be a UUID"),
    "/context/patientId": ("fhir_id", "must be the id of a FHIR resource"),
    "/context/encounterId": ("fhir_id", "must be the id of a FHIR resource"),
    "/context/userId": (
        "user_id",
        "must be Practitioner, PractitionerRole, Patient or RelatedPerson, a slash and an id",
    ),
}
_LIMITS = {
    "string_too_short": ("not_empty", "must not be empty"),
    "string_too_long": ("max_length", "must have at most 4096 characters"),
    "dict_type": ("object", "must be an object"),
    "tuple_type": ("array", "must be an array"),
    "too_short": ("not_empty", "must not be empty"),
}


def parse_document(body: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises InvalidPayload: the body is not JSON in UTF-8 (rule `json`), is not an object, or has an
    object with a repeated name.
    """
    if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        refuse("", "json", "the body looks like XML; send JSON")
    document, names = read_json(body)
    if not isinstance(document, dict):
        refuse("", "object", "must be an object")
    if names != count_names(document):
        refuse_repeated_names(body)
    return document


def validate(model: type[M], document: dict[str, Any]) -> M:
    """The document as a model. Raises InvalidPayload."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise InvalidPayload([*map(_field_error, details)]) from None


def _field_error(detail: ErrorDetails) -> FieldError:
    error = to_field_error(detail)
    if detail["type"] in _LIMITS:
        rule, text = _LIMITS[detail["type"]]
    elif error.pointer in _FORMATS and detail["type"] == "string_pattern_mismatch":
        rule, text = _FORMATS[error.pointer]
    else:
        return error
    return error.model_copy(update={"rule": rule, "detail": text})


def refuse(pointer: str, rule: str, detail: str) -> NoReturn:
    """Raises InvalidPayload with one error."""
    raise InvalidPayload([FieldError(pointer=pointer, rule=rule, detail=detail)])
