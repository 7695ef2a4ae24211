"""What a Bundle gives for a payload, and what became of the rest.

A *place* is the index of an entry and a path below its resource. FHIRPath expressions are written
from places only for the receipt, because a Bundle may have 100,000 entries.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from schemas.features import FeatureSpec
from schemas.fhir.document import Resource
from schemas.fhir.times import InvalidTime, end_of, parse_date_time, start_of
from schemas.request_errors import MAX_LISTED, FieldError, InvalidPayload

Place = tuple[int, str]

# Why a part of a Bundle is not in the payload. With strict=true, the service refuses a request
# that has one of STRICT_REASONS, because the sender could correct it.
Reason = Literal[
    "after_as_of",
    "ambiguous_code",
    "ambiguous_treatment",
    "coded_value",
    "contradictory_unit",
    "dangling_reference",
    "duplicate_resource",
    "external_url",
    "incomplete_bundle",
    "media_type_not_read",
    "modifier_extension",
    "no_code",
    "no_text",
    "no_time",
    "no_time_of_day",
    "no_value",
    "not_a_chest_xray",
    "not_given",
    "not_referenced",
    "not_the_stay",
    "resource_not_read",
    "stale",
    "status",
    "text_value",
    "unknown_category",
    "unknown_code",
    "unknown_treatment",
    "unknown_unit",
]
STRICT_REASONS: frozenset[Reason] = frozenset(
    {
        "ambiguous_code",
        "ambiguous_treatment",
        "contradictory_unit",
        "dangling_reference",
        "external_url",
        "incomplete_bundle",
        "media_type_not_read",
        "modifier_extension",
        "no_code",
        "no_time",
        "no_time_of_day",
        "text_value",
        "unknown_category",
        "unknown_code",
        "unknown_treatment",
        "unknown_unit",
    }
)


@dataclass
class Group:
    """The observations of one code in one unit, which become one series.

    `values`: numbers, or texts such as "<0.01" for a bound. `places`: the place of each.
    """

    times: list[datetime] = field(default_factory=list)
    values: list[float | str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)


@dataclass
class Record:
    """The parts of a payload that are read from a Bundle at `as_of`.

    `path`: FHIRPath of the Bundle. `groups`: by name of the variable and unit. `treatments`,
    `notes`, `images`: as in a payload; `*_places`: the place of each; `treatment_names`: the
    declared name of each treatment. `tabular_places`: by field.
    `chosen_image`: index of the image that the model reads.
    `stay`: index and start of the Encounter that contains `as_of`. `not_read`, `assumed`: by reason
    and detail, the places.
    """

    path: str
    as_of: datetime
    spec: FeatureSpec
    groups: dict[tuple[str, str | None], Group] = field(default_factory=dict)
    tabular: dict[str, Any] = field(default_factory=dict)
    tabular_places: dict[str, Place] = field(default_factory=dict)
    treatments: list[dict[str, Any]] = field(default_factory=list)
    treatment_places: list[Place] = field(default_factory=list)
    treatment_names: list[str] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    note_places: list[Place] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    image_places: list[Place] = field(default_factory=list)
    chosen_image: int | None = None
    stay: tuple[int, datetime] | None = None
    not_read: dict[tuple[Reason, str], list[Place]] = field(default_factory=dict)
    assumed: dict[str, list[Place]] = field(default_factory=dict)
    errors: list[FieldError] = field(default_factory=list)
    _times: dict[str, datetime] = field(default_factory=dict, repr=False)  # by their text

    def expression(self, place: Place) -> str:
        """The FHIRPath of a place. The entry -1 is the Bundle itself."""
        entry, below = place
        head = self.path if entry < 0 else f"{self.path}.entry[{entry}].resource"
        return f"{head}.{below}" if below else head

    def skip(self, place: Place, reason: Reason, detail: str) -> None:
        """Records that a part is not read."""
        self.not_read.setdefault((reason, detail), []).append(place)

    def assume(self, place: Place, detail: str) -> None:
        """Records an assumption about a part that is read."""
        self.assumed.setdefault(detail, []).append(place)

    def add_error(self, place: Place, rule: str, detail: str) -> None:
        """Records an error. Raises InvalidPayload if there are more than MAX_LISTED."""
        self.errors.append(FieldError(pointer=self.expression(place), rule=rule, detail=detail))
        if len(self.errors) > MAX_LISTED:
            raise InvalidPayload(self.errors)

    def time(
        self, value: object, place: Place, *, is_end: bool = False, exact: bool = False
    ) -> datetime | None:
        """Reads a time. None if it cannot be used, which is then recorded.

        A date without a time of day is the start of the day, or its end if `is_end`. It is not used
        if the time must be `exact`.
        """
        if type(value) is str:
            known = self._times.get(value)
            if known is not None:
                return known
        try:
            parsed = parse_date_time(value)
        except InvalidTime as error:
            self.add_error(place, error.rule, error.detail)
            return None
        if isinstance(parsed, datetime):
            if isinstance(value, str):
                self._times[value] = parsed
            return parsed
        if parsed is None:
            self.skip(place, "no_time", "a year or month is not exact enough; send the time")
            return None
        if exact:
            detail = "a date without a time of day is not exact enough; send the time"
            self.skip(place, "no_time_of_day", detail)
            return None
        return self._time_of_day(parsed, place, is_end=is_end)

    def _time_of_day(self, day: date, place: Place, *, is_end: bool) -> datetime:
        edge = "end" if is_end else "start"
        self.assume(place, f"a date alone; read as the {edge} of the day in the time zone of as_of")
        return end_of(day, self.as_of) if is_end else start_of(day, self.as_of)


def codings(concept: object) -> Iterator[Resource]:
    """The codings of a CodeableConcept."""
    coding = concept.get("coding") if isinstance(concept, dict) else None
    for part in coding if isinstance(coding, list) else ():
        if isinstance(part, dict):
            yield part


def codes(concept: object) -> Iterator[str]:
    """The codes of a CodeableConcept, of any system."""
    for coding in codings(concept):
        code = coding.get("code")
        if isinstance(code, str):
            yield code


def texts(concept: object) -> Iterator[str]:
    """The texts of a CodeableConcept: its own, then those of its codings."""
    own = concept.get("text") if isinstance(concept, dict) else None
    if isinstance(own, str) and own.strip():
        yield own
    for coding in codings(concept):
        display = coding.get("display")
        if isinstance(display, str) and display.strip():
            yield display
