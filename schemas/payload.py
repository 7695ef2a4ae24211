"""The request payload: the data of one patient at one moment.

Every part is optional, but at least one is required. Errors (`InvalidPayload`) name a pointer and a
rule. They never quote a value, because a value may identify a patient.
"""

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import compress, islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

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

from schemas.dicom.signature import MEDIA_TYPE as DICOM
from schemas.dicom.signature import is_dicom
from schemas.parsing.json_body import read_json, refuse_repeated_names
from schemas.parsing.measured_values import ReadingList, Readings
from schemas.parsing.times import Time, Times
from schemas.parsing.validation import count_names, iter_errors
from schemas.request_errors import (
    MAX_LISTED,
    RULES,
    FieldError,
    ImageError,
    InvalidPayload,
    image_error,
)

if TYPE_CHECKING:
    from schemas.dicom.header import DicomHeader

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
    "check_consistency",
    "parse_payload",
]


class _PayloadModel(BaseModel):
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


# Cohort readers pass bytes in memory. Clients send base64 in JSON.
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


class Tabular(_PayloadModel):
    """Facts about the patient and the admission. `admitted_at`: time of admission to the unit."""

    age: Number | None = None
    sex: str | None = None
    height_cm: Number | None = None
    weight_kg: Number | None = None
    admission_source: str | None = None
    unit_type: str | None = None
    admitted_at: Time | None = None


class Series(_PayloadModel):
    """Measurements of one variable, named by its name (`heart_rate`) or LOINC (`loinc:8867-4`).

    `unit` is optional for variables without a unit (scores, pH, INR). A null value is removed
    together with its time. A bound such as "<0.01" is read as its number.
    """

    variable: Text
    unit: Text | None = None
    times: Times
    values: ReadingList

    @property
    def bounds(self) -> int:
        """Number of values that were sent as bounds."""
        return self.values.bounds if isinstance(self.values, Readings) else 0

    @property
    def nulls(self) -> int:
        """Number of values that were sent as null. `values` does not include them."""
        return self.values.nulls if isinstance(self.values, Readings) else 0

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        times, values = self.times, self.values
        if len(times) != len(values):
            raise PydanticCustomError("same_length", "times and values must have the same length")
        if not times:
            raise PydanticCustomError("empty", "times and values must not be empty")
        if isinstance(values, Readings):
            present = [not math.isnan(value) for value in values]
            self.__dict__["times"] = [*compress(times, present)]
            self.__dict__["values"] = Readings(compress(values, present), values.nulls)
        return self


class TreatmentGiven(_PayloadModel):
    """A course of a treatment from `start` to `end`. A null `end` means that it runs at `as_of`.

    The rates of all courses of a treatment that run at `as_of` are added. If a rate changes, end
    the course and start another. Identical courses count once. A course with a null `end` and a
    rate of 0 does not run.
    """

    name: Text
    start: Time
    end: Time | None = None
    rate: Number | None = None
    unit: Text | None = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.end is not None and self.end < self.start:
            raise PydanticCustomError("ordered", "end must not be before start")
        return self


class Note(_PayloadModel):
    """A clinical note. `kind`: admission, progress, nursing, radiology and so on."""

    kind: Text = "note"
    time: Time
    text: Text


def _normalize_media_type(value: object) -> object:
    """Returns the type in lower case without parameters (RFC 9110, section 8.3.1); maps `jpg`."""
    if not isinstance(value, str):
        return value
    name = value.partition(";")[0].strip().lower()
    return "image/jpeg" if name == "image/jpg" else name


_IN_FILE: Any = None  # default of a field that a DICOM file states


def _optional_for_dicom(schema: dict[str, Any]) -> None:
    """Removes the default, which only means that a DICOM file states the value itself."""
    del schema["default"]


class Image(_PayloadModel):
    """A chest X-ray as PNG, JPEG or DICOM. `data` is base64 in JSON.

    `view`: for example PA, AP supine or lateral; case does not matter. The model reads only the
    latest image of a view that it supports. An image without a view counts as supported.

    `media_type`, `view` and `time` are optional for DICOM, and then taken from the file. `time` is
    required if the file states no acquisition time with a time zone.
    """

    kind: Text = "chest_xray"
    view: str | None = None
    time: Time = Field(_IN_FILE, json_schema_extra=_optional_for_dicom)
    media_type: Annotated[
        Literal["image/png", "image/jpeg", "application/dicom"],
        BeforeValidator(_normalize_media_type),
    ] = Field(_IN_FILE, json_schema_extra=_optional_for_dicom)
    data: Base64

    @cached_property
    def dicom(self) -> "DicomHeader | None":
        """The header of a DICOM file. Raises ImageError: the file is damaged."""
        if self.media_type != DICOM or not is_dicom(self.data):
            return None
        # The import takes a third of a second.
        from schemas.dicom.header import read_header  # noqa: PLC0415

        return read_header(self.data)

    @model_validator(mode="after")
    def _complete_from_dicom(self) -> Self:
        fields = self.__dict__
        if fields["media_type"] is None:
            if not is_dicom(self.data):
                raise image_error("media_type", *RULES["missing"])
            fields["media_type"] = DICOM
        if self.time is not None and self.view is not None:
            return self
        try:
            header = self.dicom
        except ImageError as error:
            raise image_error("data", error.rule, error.detail) from None
        if fields["view"] is None and header is not None:
            fields["view"] = header.view or None
        if fields["time"] is None:
            if header is None:
                raise image_error("time", *RULES["missing"])
            if header.taken_at is None or header.taken_at.tzinfo is None:
                raise image_error("time", "required", _TIME_DETAIL)
            fields["time"] = header.taken_at
        return self


_TIME_DETAIL = "is required: the DICOM file states no acquisition time with a time zone"


# Each element takes a few microseconds and up to 1.5 KB. Clients should send all measurements of a
# variable in one series.
MAX_ITEMS = 100_000
_ITEM_LIMIT = Field(max_length=MAX_ITEMS)
MAX_IMAGES = 1000


class Payload(_PayloadModel):
    """The data of one patient at `as_of`, the moment of the prediction.

    `as_of` is never compared with the clock of the server. `patient_id` is opaque: it is not used,
    logged or returned.
    """

    patient_id: str | None = None
    as_of: Time
    tabular: Tabular | None = None
    series: Annotated[list[Series], FailFast(), _ITEM_LIMIT] = []
    treatments: Annotated[list[TreatmentGiven], FailFast(), _ITEM_LIMIT] = []
    notes: Annotated[list[Note], FailFast(), _ITEM_LIMIT] = []
    images: Annotated[list[Image], FailFast(), Field(max_length=MAX_IMAGES)] = []


def parse_payload(body: bytes | str) -> Payload:
    """Parses the payload in a JSON document.

    Raises InvalidPayload: with the errors of the document, or only the rule `json` if the body is
    not JSON.
    """
    document, names = read_json(body)
    payload = _validate(document, names, body)
    check_consistency(payload)
    return payload


def as_payload(value: Mapping[str, Any]) -> Payload:
    """Converts a mapping of Python values. Raises InvalidPayload as `parse_payload` does."""
    payload = _validate(value)
    check_consistency(payload)
    return payload


def _validate(value: Any, names: int | None = None, body: bytes | str = b"") -> Payload:
    """Validates a document. `names`: number of member names in `body`, its JSON text."""
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
    raise InvalidPayload([*islice(iter_errors(Payload, value), MAX_LISTED + 1)])


def check_consistency(payload: Payload, pointer: str = "") -> None:
    """Checks that the payload is not empty and that no time is after `as_of`.

    `pointer`: of the payload in its document. Raises InvalidPayload: a check fails.
    """
    t = payload.tabular
    known = t is not None and any(value is not None for _, value in t)
    if not (known or payload.series or payload.treatments or payload.notes or payload.images):
        detail = "at least one of tabular, series, treatments, notes, images must not be empty"
        raise InvalidPayload([FieldError(pointer=pointer, rule="not_empty", detail=detail)])

    late = (
        path for *path, time in _latest_times(payload) if time is not None and time > payload.as_of
    )
    pointers = [
        pointer + "".join(f"/{part}" for part in path) for path in islice(late, MAX_LISTED + 1)
    ]
    if pointers:
        detail = "must not be after as_of; send a null end for a treatment that still runs"
        raise InvalidPayload(
            [FieldError(pointer=p, rule="not_after_as_of", detail=detail) for p in pointers]
        )


def _latest_times(payload: Payload) -> Iterator[tuple[Any, ...]]:
    """Yields the path of each time, followed by the time. A series yields only its latest time."""
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
