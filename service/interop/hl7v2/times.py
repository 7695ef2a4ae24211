"""Dates and times of messages (HL7 v2.5.1, chapter 2.A.22, DTM).

A time without a time zone is in the zone of MSH-7. Without one there, it is refused.
"""

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone

from service.interop.hl7v2.er7 import invalid

_DTM = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?)?)?)?([+-]\d{4})?",
    re.ASCII,
)
_MAX_OFFSET = timedelta(hours=14)
_DETAIL = "must be YYYYMMDDHHMM[SS[.S]][+/-ZZZZ]"


@dataclass(frozen=True)
class StatedTime:
    """A parsed time. `has_hour`: whether it is more exact than a day; else it is the day's start.

    `zone`: None if the text has none.
    """

    local: datetime
    has_hour: bool
    has_day: bool
    has_month: bool
    zone: timezone | None


def parse_time(text: str, place: str) -> StatedTime:
    """Parses a DTM. Raises InvalidPayload: it is not valid."""
    parts = _DTM.fullmatch(text)
    if parts is None:
        raise invalid(place, "date_time", _DETAIL)
    year, month, day, hour, minute, second, fraction, offset = parts.groups()
    try:
        # A leap second counts as the second before it. The zone follows later.
        local = datetime(  # noqa: DTZ001
            int(year),
            int(month or 1),
            int(day or 1),
            int(hour or 0),
            int(minute or 0),
            min(int(second or 0), 59),
            int((fraction or "").ljust(6, "0") or 0),
        )
        zone = None if offset is None else _zone(offset)
    except ValueError:
        raise invalid(place, "date_time", "is not a valid date, time of day or offset") from None
    return StatedTime(local, hour is not None, day is not None, month is not None, zone)


def _zone(offset: str) -> timezone:
    shift = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:]))
    if shift > _MAX_OFFSET:
        raise ValueError
    return timezone(-shift if offset[0] == "-" else shift)


def zoned(time: StatedTime, zone: timezone | None, place: str) -> datetime:
    """The time with its own zone, else `zone`. Raises InvalidPayload without both."""
    known = time.zone or zone
    if known is None:
        detail = "has no time zone, and MSH-7 has none; append one, as in 20310504120000+0000"
        raise invalid(place, "time_zone", detail)
    return time.local.replace(tzinfo=known)


def completed_years(birth: StatedTime, as_of: datetime) -> int:
    """The age in completed years at `as_of`; negative for a birth after it.

    A year or a month alone counts as its middle.
    """
    born = birth.local.date()
    if not birth.has_day:
        born = born.replace(day=15) if birth.has_month else date(born.year, 7, 1)
    today = as_of.date()
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))
