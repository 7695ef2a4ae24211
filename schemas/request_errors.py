"""Faults of a request: where, which rule, what to do. Never a value of the request."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import ErrorDetails

# A problem lists no more faults than this. No more than one beyond it are looked for.
LISTED = 100


class FieldError(BaseModel):
    """One thing that is wrong with a request: where (RFC 6901 pointer), which rule, what to do."""

    model_config = ConfigDict(frozen=True)

    pointer: str
    rule: str
    detail: str


class InvalidPayload(ValueError):
    """A request that cannot be understood. Holds its faults, and no value of the request.

    If there are more than LISTED faults, it holds the first of them and at least LISTED + 1.
    """

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(f"{len(errors)} fault(s) in the payload")
        self.errors = tuple(errors)

    @property
    def is_json(self) -> bool:
        return all(error.rule != "json" for error in self.errors)


# Pydantic's error types, as rules of this interface. Its messages are not used: some of them
# quote the input.
RULES = {
    "missing": ("required", "is required"),
    "extra_forbidden": ("unknown_field", "is no field of this document; see GET /openapi.json"),
    "finite_number": ("finite_number", "must be a finite number"),
    "float_type": ("number", "must be a number"),
    "number": (
        "number",
        'must be a number, null, or a bound such as "<0.01"; other text is not read',
    ),
    "string_type": ("string", "must be a string"),
    "list_type": ("array", "must be an array"),
    "too_long": ("max_items", "holds too many elements; see maxItems in GET /openapi.json"),
    "model_type": ("object", "must be an object"),
    "literal_error": ("allowed_values", "must be one of the allowed values"),
    "base64": ("base64", "must be base64 (RFC 4648, section 4)"),
    "data_url": ("base64", "must be the base64 alone, without the beginning of a data: URL"),
    "same_length": ("same_length", "times and values must have the same length"),
    "empty": ("not_empty", "must not be empty"),
    "ordered": ("ordered", "end must not be before start"),
}
# Errors that this project's own validators raise, with a detail that quotes nothing.
_OWN = frozenset({"time_zone", "date_time"})

# A name that a program would give; anything else might be a patient's name in the wrong place.
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)


def shown_name(name: str) -> str:
    """A field's name as a pointer may repeat it."""
    return name if _FIELD_NAME.fullmatch(name) else "(name withheld)"


def rule_fault(pointer: str, kind: str) -> FieldError:
    rule, detail = RULES[kind]
    return FieldError(pointer=pointer, rule=rule, detail=detail)


def fault_of(error: ErrorDetails, pointer: str = "") -> FieldError:
    """An error of pydantic's in a value at `pointer`."""
    kind = error["type"]
    context: Mapping[str, Any] = error.get("ctx", {})
    rule, detail = RULES.get(kind, ("invalid", "is not valid here"))
    if kind in _OWN:
        rule, detail = kind, context["detail"]
    if kind == "literal_error":
        detail = f"must be one of {context.get('expected', '')}"
    location = "".join(f"/{part}" for part in error["loc"])
    return FieldError(pointer=f"{pointer}{location}", rule=rule, detail=detail)
