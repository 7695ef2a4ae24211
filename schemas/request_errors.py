"""Errors of a request, by JSON Pointer and rule. An error never holds a value of the request."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import ErrorDetails, PydanticCustomError

# Maximum number of errors that a problem lists. The search ends one error after this number.
MAX_LISTED = 100


class FieldError(BaseModel):
    """An error in one field: RFC 6901 pointer, violated rule, and what the field must hold."""

    model_config = ConfigDict(frozen=True)

    pointer: str
    rule: str
    detail: str


class InvalidPayload(ValueError):
    """The payload is invalid. `errors` holds no value of the payload.

    If there are more than MAX_LISTED errors, `errors` holds at least the first MAX_LISTED + 1.
    """

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(f"{len(errors)} error(s) in the payload")
        self.errors = tuple(errors)

    @property
    def is_json(self) -> bool:
        """Whether the body is JSON."""
        return all(error.rule != "json" for error in self.errors)


class ImageError(ValueError):
    """The image is refused. `rule`: the violated rule. `detail`: the reason."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule, self.detail = rule, detail


# Rule and detail by pydantic error type. Pydantic's own messages are not used, because some of
# them quote the input.
RULES = {
    "missing": ("required", "is required"),
    "extra_forbidden": ("unknown_field", "is not a field of this document; see GET /openapi.json"),
    "finite_number": ("finite_number", "must be a finite number"),
    "float_type": ("number", "must be a number"),
    "number": (
        "number",
        'must be a number, null, or a bound such as "<0.01"; other text is not accepted',
    ),
    "string_type": ("string", "must be a string"),
    "list_type": ("array", "must be an array"),
    "too_long": ("max_items", "holds too many elements; see maxItems in GET /openapi.json"),
    "model_type": ("object", "must be an object"),
    "literal_error": ("allowed_values", "must be one of the allowed values"),
    "base64": ("base64", "must be base64 (RFC 4648, section 4)"),
    "data_url": ("base64", "must be base64 only, without the prefix of a data: URL"),
    "same_length": ("same_length", "times and values must have the same length"),
    "empty": ("not_empty", "must not be empty"),
    "ordered": ("ordered", "end must not be before start"),
}
# Error types of this project's validators. Their details do not quote the input.
_CUSTOM_TYPES = frozenset({"time_zone", "date_time"})

_IMAGE = "image_field"

# A plausible field name. Any other name could be a patient's name in the wrong place.
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)


def safe_name(name: str) -> str:
    """Returns the field name if a pointer may repeat it, otherwise a placeholder."""
    return name if _FIELD_NAME.fullmatch(name) else "(name withheld)"


def image_error(field: str, rule: str, detail: str) -> PydanticCustomError:
    """An error in a field of an image, for a validator of the whole image."""
    return PydanticCustomError(_IMAGE, "{detail}", {"field": field, "rule": rule, "detail": detail})


def rule_error(pointer: str, kind: str) -> FieldError:
    """Returns the error of a pydantic error type at `pointer`."""
    rule, detail = RULES[kind]
    return FieldError(pointer=pointer, rule=rule, detail=detail)


def to_field_error(error: ErrorDetails, pointer: str = "") -> FieldError:
    """Converts a pydantic error in the value at `pointer`."""
    kind = error["type"]
    context: Mapping[str, Any] = error.get("ctx", {})
    rule, detail = RULES.get(kind, ("invalid", "is not valid here"))
    if kind in _CUSTOM_TYPES:
        rule, detail = kind, context["detail"]
    if kind == "literal_error":
        detail = f"must be one of {context.get('expected', '')}"
    location = "".join(f"/{part}" for part in error["loc"])
    if kind == _IMAGE:
        rule, detail = context["rule"], context["detail"]
        location = f"{location}/{context['field']}"
    return FieldError(pointer=f"{pointer}{location}", rule=rule, detail=detail)
