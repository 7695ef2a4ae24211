"""The request: whatever a hospital knows of one patient at one moment.

Every part is optional and at least one must be there. What is wrong is said by pointer and rule
(`InvalidPayload`), never by echoing a value: a value may be a patient's.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import compress, islice
from typing import Annotated, Any, Literal, Self

import pybase64
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from schemas.parsing.json_body import read_json, refuse_repeated_names
from schemas.parsing.measured_values import ReadingList, Readings
from schemas.parsing.times import Time, Times
from schemas.parsing.validation import count_names, faults
from schemas.request_errors import LISTED, FieldError, InvalidPayload

__all__ = [
    "FieldError",
    "Image",
    "InvalidPayload",
    "Note",
    "Payload",
    "Series",
    "Tabular",
    "TreatmentGiven",
    "as_payload",
    "check",
    "parse_payload",
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Number = Annotated[float, Field(strict=True)]


def _from_base64(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return pybase64.b64decode(value, validate=True)
    except ValueError:
        kind = "data_url" if value[:5].lower() == "data:" else "base64"
        raise PydanticCustomError(kind, "must be base64 (RFC 4648, section 4)") from None


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

    `unit` may be left out for variables without one (scores, pH, INR). A null among the values is
    left out with its time (`nulls` counts them); a bound such as "<0.01" is read as the
    number in it (`bounds`).
    """

    variable: Text
    unit: Text | None = None
    times: Times
    values: ReadingList

    @property
    def bounds(self) -> int:
        """How many of the values were sent as bounds."""
        return self.values.bounds if isinstance(self.values, Readings) else 0

    @property
    def nulls(self) -> int:
        """How many values were sent as null; they are not among the values."""
        return self.values.nulls if isinstance(self.values, Readings) else 0

    @model_validator(mode="after")
    def _usable(self) -> Self:
        times, values = self.times, self.values
        if len(times) != len(values):
            raise PydanticCustomError("same_length", "times and values must have the same length")
        if not times:
            raise PydanticCustomError("empty", "times and values must not be empty")
        if isinstance(values, Readings):
            there = [not math.isnan(value) for value in values]
            self.__dict__["times"] = [*compress(times, there)]
            self.__dict__["values"] = Readings(compress(values, there), values.nulls)
        return self


class TreatmentGiven(_Part):
    """A course of a treatment from `start` to `end`; `end` null: it still runs at `as_of`.

    The rates of all courses of one treatment that run at `as_of` add up: a course whose rate
    changes ends, and another starts. Courses that are alike in every field are one course that was
    sent twice. A course without an end does not run at a rate of 0.
    """

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


def _media_type(value: object) -> object:
    """In lower case, without parameters (RFC 9110, section 8.3.1); `jpg` is often sent."""
    if not isinstance(value, str):
        return value
    name = value.partition(";")[0].strip().lower()
    return "image/jpeg" if name == "image/jpg" else name


class Image(_Part):
    """A chest X-ray, PNG or JPEG. `data`: base64 in JSON, bytes in memory.

    `view`: PA, AP supine, lateral and so on, in any case. Only the latest film of a view that the
    model reads is used; one without a view counts as such.
    """

    kind: Text = "chest_xray"
    view: str | None = None
    time: Time
    media_type: Annotated[Literal["image/png", "image/jpeg"], BeforeValidator(_media_type)]
    data: Base64


# Each element takes a few microseconds and up to 1.5 KB: measurements of one variable belong
# together in one series.
MAX_ITEMS = 100_000
_AT_MOST = Field(max_length=MAX_ITEMS)
MAX_IMAGES = 1000


class Payload(_Part):
    """One patient at `as_of`, the moment that the prediction is for.

    `as_of` is never compared with the clock of whoever serves. `patient_id` is opaque and is
    neither used, logged nor echoed.
    """

    patient_id: str | None = None
    as_of: Time
    tabular: Tabular | None = None
    series: Annotated[list[Series], FailFast(), _AT_MOST] = []
    treatments: Annotated[list[TreatmentGiven], FailFast(), _AT_MOST] = []
    notes: Annotated[list[Note], FailFast(), _AT_MOST] = []
    images: Annotated[list[Image], FailFast(), Field(max_length=MAX_IMAGES)] = []


def parse_payload(body: bytes | str) -> Payload:
    """The payload in a JSON document.

    Raises InvalidPayload with its faults, and with rule `json` alone if it is no JSON.
    """
    document, names = read_json(body)
    payload = _validated(document, names, body)
    check(payload)
    return payload


def as_payload(value: Mapping[str, Any]) -> Payload:
    """The payload in a mapping of Python values. Raises InvalidPayload as `parse_payload` does."""
    payload = _validated(value)
    check(payload)
    return payload


def _validated(value: Any, names: int | None = None, body: bytes | str = b"") -> Payload:
    """`names`: how many the objects of `body` hold, from which the value was read."""
    known = count_names(Payload, value)
    if known is not None:
        try:
            payload = Payload.model_validate(value, extra="ignore")
        except ValidationError:
            pass
        else:
            if names is not None and names != known:
                refuse_repeated_names(body)
            return payload
    raise InvalidPayload([*islice(faults(Payload, value), LISTED + 1)])


def check(payload: Payload) -> None:
    """The rules that join fields: something is there, and nothing lies after `as_of`.

    Raises InvalidPayload.
    """
    t = payload.tabular
    known = t is not None and any(value is not None for _, value in t)
    if not (known or payload.series or payload.treatments or payload.notes or payload.images):
        detail = "at least one of tabular, series, treatments, notes, images must hold something"
        raise InvalidPayload([FieldError(pointer="", rule="not_empty", detail=detail)])

    # A pointer is made for a late time alone.
    after = (p for p in _latest_times(payload) if p[-1] is not None and p[-1] > payload.as_of)
    late = ["".join(f"/{part}" for part in where) for *where, _ in islice(after, LISTED + 1)]
    if late:
        detail = "must not be after as_of; a treatment that still runs has a null end"
        raise InvalidPayload(
            [FieldError(pointer=p, rule="not_after_as_of", detail=detail) for p in late]
        )


def _latest_times(payload: Payload) -> Iterator[tuple[Any, ...]]:
    """Where each time is, and the time; of a series the latest."""
    if payload.tabular is not None:
        yield "tabular", "admitted_at", payload.tabular.admitted_at
    for i, series in enumerate(payload.series):
        yield "series", i, "times", max(series.times, default=None)
    for i, treatment in enumerate(payload.treatments):
        yield "treatments", i, "start", treatment.start
        yield "treatments", i, "end", treatment.end
    for i, note in enumerate(payload.notes):
        yield "notes", i, "time", note.time
    for i, image in enumerate(payload.images):
        yield "images", i, "time", image.time
