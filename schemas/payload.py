"""The request: whatever a hospital knows of one patient at one moment.

Every part is optional and at least one must be there. What is wrong is said by pointer and rule
(`InvalidPayload`), never by echoing a value: a value may be a patient's.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

import pybase64
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema


class FieldError(BaseModel):
    """One thing that is wrong with a request: where (RFC 6901 pointer), which rule, what to do."""

    model_config = ConfigDict(frozen=True)

    pointer: str
    rule: str
    detail: str


class InvalidPayload(ValueError):
    """A request that cannot be understood. Holds every fault found, and no value of the request."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(f"{len(errors)} fault(s) in the payload")
        self.errors = tuple(errors)

    @property
    def is_json(self) -> bool:
        return all(error.rule != "json" for error in self.errors)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Number = Annotated[float, Field(strict=True)]


def _from_base64(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return pybase64.b64decode(value, validate=True)
    except ValueError:
        raise PydanticCustomError("base64", "must be base64 (RFC 4648, section 4)") from None


# Bytes in memory (a cohort reader), base64 in JSON (a hospital).
Base64 = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    PlainSerializer(lambda b: pybase64.b64encode(b).decode(), return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]


def _not_empty(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("empty", "must not be empty")
    return value


Text = Annotated[str, AfterValidator(_not_empty)]


_TIME = r"^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?([Zz]|[+-]\d{2}:?\d{2})?$"


def _time(text: str) -> datetime:
    """In Python's own time zones: with pydantic's, to compare two times takes ten times as long."""
    try:
        time = datetime.fromisoformat(text.upper())
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise PydanticCustomError("time_zone", "no time with a zone")
    return time


class _Rfc3339:
    """A time with a zone, as RFC 3339 text; a number is not taken for one, its unit is unknown."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        aware = core_schema.datetime_schema(strict=True, tz_constraint="aware")
        text = core_schema.chain_schema(
            [
                core_schema.str_schema(pattern=_TIME, strict=True),
                core_schema.no_info_plain_validator_function(_time),
            ]
        )
        in_memory = core_schema.union_schema(
            [aware, text], custom_error_type="time_zone", custom_error_message="no time"
        )
        return core_schema.json_or_python_schema(json_schema=text, python_schema=in_memory)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "format": "date-time"}


Time = Annotated[datetime, _Rfc3339]


class Tabular(_Part):
    """What is known of the patient and the admission. `admitted_at`: admission to the unit."""

    age: Number | None = None
    sex: str | None = None
    height_cm: Number | None = None
    weight_kg: Number | None = None
    admission_source: str | None = None
    unit_type: str | None = None
    admitted_at: Time | None = None


class Series(_Part):
    """Measurements of one variable, by name (`heart_rate`) or by LOINC (`loinc:8867-4`).

    `unit` may be left out for variables without one (scores, pH, INR).
    """

    variable: Text
    unit: Text | None = None
    times: list[Time]
    values: list[Number]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.times) != len(self.values):
            raise PydanticCustomError("same_length", "times and values must have the same length")
        if not self.times:
            raise PydanticCustomError("empty", "times and values must not be empty")
        return self


class TreatmentGiven(_Part):
    """A treatment from `start` to `end`; `end` null: it still runs at `as_of`."""

    name: Text
    start: Time
    end: Time | None = None
    rate: Number | None = None
    unit: Text | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end is not None and self.end < self.start:
            raise PydanticCustomError("ordered", "end must not be before start")
        return self


class Note(_Part):
    """A clinical note. `kind`: admission, progress, nursing, radiology and so on."""

    kind: Text = "note"
    time: Time
    text: Text


class Image(_Part):
    """A chest X-ray, PNG or JPEG. `data`: base64 in JSON, bytes in memory."""

    kind: Text = "chest_xray"
    view: str | None = None
    time: Time
    media_type: Literal["image/png", "image/jpeg"]
    data: Base64


class Payload(_Part):
    """One patient at `as_of`, the moment that the prediction is for.

    `as_of` is never compared with the clock of whoever serves. `patient_id` is opaque and is
    neither used, logged nor echoed.
    """

    patient_id: str | None = None
    as_of: Time
    tabular: Tabular | None = None
    series: list[Series] = []
    treatments: list[TreatmentGiven] = []
    notes: list[Note] = []
    images: list[Image] = []


def parse_payload(body: bytes | str) -> Payload:
    """The payload in a JSON document.

    Raises InvalidPayload with every fault found, and with rule `json` alone if it is no JSON.
    """
    try:
        payload = Payload.model_validate_json(body)
    except ValidationError as error:
        raise InvalidPayload([_fault(e) for e in error.errors(include_url=False)]) from None
    reject_repeated_names(body)
    check(payload)
    return payload


def as_payload(value: Mapping[str, Any]) -> Payload:
    """The payload in a mapping of Python values. Raises InvalidPayload as `parse_payload` does."""
    try:
        payload = Payload.model_validate(value)
    except ValidationError as error:
        raise InvalidPayload([_fault(e) for e in error.errors(include_url=False)]) from None
    check(payload)
    return payload


class _Repeated(dict[str, Any]):
    """An object that holds a name twice."""


def reject_repeated_names(body: bytes | str) -> None:
    """Refuses a valid JSON document in which an object holds a name twice.

    Readers differ in which one counts (RFC 8259, section 4): half of a record would be lost in
    silence. Raises InvalidPayload.
    """
    found = False

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        fields = dict(pairs)
        if len(fields) == len(pairs):
            return fields
        found = True
        return _Repeated(fields)

    # Numbers stay text: they are not looked at here.
    document = json.loads(body, object_pairs_hook=keep, parse_int=str, parse_float=str)
    if found:
        detail = "this object holds a name twice"
        errors = [
            FieldError(pointer=pointer, rule="repeated_name", detail=detail)
            for pointer in _repeated("", document)
        ]
        raise InvalidPayload(errors)


def _repeated(pointer: str, value: Any) -> Iterable[str]:
    """Pointers to objects that hold a name twice. Names that a patient's might be are withheld."""
    if isinstance(value, _Repeated):
        yield pointer
    if isinstance(value, dict):
        for name, part in value.items():
            shown = name if _FIELD_NAME.fullmatch(name) else "(name withheld)"
            yield from _repeated(f"{pointer}/{shown}", part)
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from _repeated(f"{pointer}/{i}", part)


def check(payload: Payload) -> None:
    """The rules that join fields: something is there, and nothing lies after `as_of`.

    Raises InvalidPayload.
    """
    t = payload.tabular
    known = t is not None and any(value is not None for _, value in t)
    if not (known or payload.series or payload.treatments or payload.notes or payload.images):
        detail = "at least one of tabular, series, treatments, notes, images must hold something"
        raise InvalidPayload([FieldError(pointer="", rule="not_empty", detail=detail)])

    times = _latest_times(payload)
    late = [pointer for pointer, time in times if time is not None and time > payload.as_of]
    if late:
        detail = "must not be after as_of; a treatment that still runs has a null end"
        raise InvalidPayload(
            [FieldError(pointer=p, rule="not_after_as_of", detail=detail) for p in late]
        )


def _latest_times(payload: Payload) -> Iterable[tuple[str, Time | None]]:
    if payload.tabular is not None:
        yield "/tabular/admitted_at", payload.tabular.admitted_at
    for i, series in enumerate(payload.series):
        yield f"/series/{i}/times", max(series.times)
    for i, treatment in enumerate(payload.treatments):
        yield f"/treatments/{i}/start", treatment.start
        yield f"/treatments/{i}/end", treatment.end
    for i, note in enumerate(payload.notes):
        yield f"/notes/{i}/time", note.time
    for i, image in enumerate(payload.images):
        yield f"/images/{i}/time", image.time


# Pydantic's error types, as rules of this interface. Its messages are not used: some of them
# quote the input.
_RULES = {
    "missing": ("required", "is required"),
    "extra_forbidden": ("unknown_field", "is no field of this document; see GET /openapi.json"),
    "time_zone": ("time_zone", "must be an RFC 3339 time with a time zone or Z"),
    "finite_number": ("finite_number", "must be a finite number"),
    "float_type": ("number", "must be a number"),
    "string_type": ("string", "must be a string"),
    "list_type": ("array", "must be an array"),
    "model_type": ("object", "must be an object"),
    "literal_error": ("allowed_values", "must be one of the allowed values"),
    "base64": ("base64", "must be base64 (RFC 4648, section 4)"),
    "same_length": ("same_length", "times and values must have the same length"),
    "empty": ("not_empty", "must not be empty"),
    "ordered": ("ordered", "end must not be before start"),
    "json_invalid": ("json", "the body is not a JSON document in UTF-8"),
}

# A name that a program would give; anything else might be a patient's name in the wrong place.
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)


def _fault(error: ErrorDetails) -> FieldError:
    kind = error["type"]
    location = [str(part) for part in error["loc"]]
    if kind.startswith(("datetime", "timezone", "string_pattern")):
        kind = "time_zone"
    if kind == "extra_forbidden" and not _FIELD_NAME.fullmatch(location[-1]):
        location[-1] = "(name withheld)"
    rule, detail = _RULES.get(kind, ("invalid", "is not valid here"))
    if kind == "literal_error":
        detail = f"must be one of {error.get('ctx', {}).get('expected', '')}"
    return FieldError(pointer="".join(f"/{part}" for part in location), rule=rule, detail=detail)
