"""The parts of a payload that are read from a message, with their locations, and the rest."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

from schemas.features import FeatureSpec
from schemas.payload import Payload, as_payload
from schemas.request_errors import MAX_LISTED, FieldError, InvalidPayload
from service.errors import InputIgnored
from service.interop.hl7v2.er7 import Segment
from service.interop.hl7v2.times import StatedTime, parse_time, zoned

# Why a part of a message is not in the payload. With strict=true, the service refuses a message
# that has one of STRICT_REASONS, because the sender could correct it.
Reason = Literal[
    "after_as_of",
    "coded_value",
    "media_type_not_read",
    "no_code",
    "no_text",
    "no_time",
    "no_time_of_day",
    "no_value",
    "not_a_chest_xray",
    "segment_not_read",
    "stale",
    "status",
    "superseded",
    "text_value",
    "unknown_category",
    "unknown_code",
]
STRICT_REASONS: frozenset[Reason] = frozenset(
    {
        "media_type_not_read",
        "no_code",
        "no_time",
        "no_time_of_day",
        "text_value",
        "unknown_category",
        "unknown_code",
    }
)
_MAX_CACHED_TIMES = 10_000


@dataclass
class Group:
    """The observations of one variable in one unit, which become one series."""

    times: list[datetime] = field(default_factory=list)
    values: list[float | str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)


@dataclass
class Record:
    """The parts of a payload at `as_of`, and what became of the rest.

    `zone`: time zone of MSH-7. `groups`: by name of the variable and unit. `notes`, `images`: as in
    a payload; `*_places`: the location of each. `not_read`, `assumed`: by reason and detail, the
    locations.
    """

    as_of: datetime
    zone: timezone | None
    spec: FeatureSpec
    tabular: dict[str, Any] = field(default_factory=dict)
    tabular_places: dict[str, str] = field(default_factory=dict)
    groups: dict[tuple[str, str | None], Group] = field(default_factory=dict)
    notes: list[dict[str, Any]] = field(default_factory=list)
    note_places: list[str] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    image_places: list[str] = field(default_factory=list)
    not_read: dict[tuple[Reason, str], list[str]] = field(default_factory=dict)
    assumed: dict[str, list[str]] = field(default_factory=dict)
    errors: list[FieldError] = field(default_factory=list)
    _known_times: dict[str, datetime] = field(default_factory=dict, repr=False)  # by their text

    def set(self, name: str, value: object, place: str) -> None:
        """Sets a tabular field."""
        self.tabular[name], self.tabular_places[name] = value, place

    def skip(self, place: str, reason: Reason, detail: str) -> None:
        """Records that a part is not read."""
        self.not_read.setdefault((reason, detail), []).append(place)

    def assume(self, place: str, detail: str) -> None:
        """Records an assumption about a part that is read."""
        self.assumed.setdefault(detail, []).append(place)

    def add_error(self, place: str, rule: str, detail: str) -> None:
        """Records an error. Raises InvalidPayload if there are more than MAX_LISTED."""
        self.errors.append(FieldError(pointer=place, rule=rule, detail=detail))
        if len(self.errors) > MAX_LISTED:
            raise InvalidPayload(self.errors)

    def time(self, segment: Segment, field: int) -> datetime | None:
        """The time in a field, with its hour, not after `as_of`; None if it cannot be used.

        The reason is then recorded. An absent time is None without a record.
        """
        text = segment.text(field)
        known = self._known_times.get(text)
        if known is not None or not text:
            return known
        place = segment.place(field)
        stated = self.stated_time(text, place)
        if stated is None:
            return None
        if not stated.has_hour:
            detail = "a date without a time of day is not exact enough; send the time"
            self.skip(place, "no_time_of_day", detail)
            return None
        time = self.known_time(stated, place)
        if time is not None and len(self._known_times) < _MAX_CACHED_TIMES:
            self._known_times[text] = time
        return time

    def stated_time(self, text: str, place: str) -> StatedTime | None:
        """Parses a time. None, with an error, if it is not valid."""
        try:
            return parse_time(text, place)
        except InvalidPayload as error:
            self.add_error(place, error.errors[0].rule, error.errors[0].detail)
            return None

    def known_time(self, stated: StatedTime, place: str) -> datetime | None:
        """The time with its zone; None, with a record, if it has none or is after `as_of`."""
        try:
            time = zoned(stated, self.zone, place)
        except InvalidPayload as error:
            self.add_error(place, error.errors[0].rule, error.errors[0].detail)
            return None
        if time > self.as_of:
            self.skip(place, "after_as_of", "was not known at as_of")
            return None
        return time

    def to_payload(self, *, strict: bool) -> Payload:
        """The payload of the record.

        Raises InvalidPayload: the record has errors or holds nothing. Raises InputIgnored: with
        `strict`, if a part is not read that the sender could correct.
        """
        if self.errors:
            raise InvalidPayload(self.errors)
        if strict:
            self._refuse_ignored()
        content: dict[str, Any] = {
            "as_of": self.as_of,
            "tabular": self.tabular or None,
            "series": [
                {"variable": name, "unit": unit, "times": group.times, "values": group.values}
                for (name, unit), group in self.groups.items()
            ],
            "notes": self.notes,
            "images": self.images,
        }
        if not any(content[part] for part in content if part != "as_of"):
            detail = "the message holds nothing that the model reads"
            nothing = FieldError(pointer="MSH^1", rule="not_empty", detail=detail)
            raise InvalidPayload([nothing, *self._ignored(strict_only=False)])
        return as_payload(content)

    def _ignored(self, *, strict_only: bool) -> list[FieldError]:
        return [
            FieldError(pointer=place, rule=reason, detail=detail)
            for (reason, detail), places in self.not_read.items()
            if reason in STRICT_REASONS or not strict_only
            for place in places[:MAX_LISTED]
        ][:MAX_LISTED]

    def _refuse_ignored(self) -> None:
        places = [p for (reason, _), p in self.not_read.items() if reason in STRICT_REASONS]
        if places:
            raise InputIgnored(self._ignored(strict_only=True), sum(map(len, places)))

    # ---- locations of a payload's parts ----------------------------------------------------------

    def places(self, pointer: str) -> list[str]:
        """The locations of a JSON Pointer into the payload."""
        part, index = (*pointer.strip("/").split("/"), "")[:2]
        if part == "tabular":
            known = self.tabular_places
            return [known[index]] if index in known else [*dict.fromkeys(known.values())]
        groups = [group.places for group in self.groups.values()]
        by_part = {
            "series": groups,
            "notes": [[place] for place in self.note_places],
            "images": [[place] for place in self.image_places],
        }
        parts = by_part.get(part, [])
        if index.isdecimal():
            return parts[int(index)]
        return [place for places in parts for place in places] or ["MSH^1"]

    def to_locations(self, errors: tuple[FieldError, ...]) -> Iterator[FieldError]:
        """Yields errors of the payload at their locations in the message."""
        for error in errors:
            if not error.pointer.startswith("/"):
                yield error
                continue
            for place in self.places(error.pointer)[:MAX_LISTED]:
                yield error.model_copy(update={"pointer": place})
