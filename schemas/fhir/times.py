"""FHIR date, dateTime and instant (FHIR R4, section 2.24.0.1).

A dateTime without a time of day has no time zone either. Where the hour matters, such a time is not
used. Elsewhere the start of the day in the time zone of `as_of` is assumed, and the receipt states
it.
"""

import re
from datetime import date, datetime, time, timedelta

from pydantic_core import PydanticCustomError

from schemas.parsing.times import read_time

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_PARTIAL_DATE = re.compile(r"\d{4}(?:-\d\d)?", re.ASCII)
_COMMON_LENGTHS = (20, 25, 24, 29)  # with Z or an offset, with and without milliseconds
_DAY = timedelta(days=1)
_MIDDLE_OF_YEAR, _MIDDLE_OF_MONTH = (7, 1), 15


class InvalidTime(ValueError):
    """A text is no FHIR time. `rule`: the violated rule. `detail`: what it must be."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule, self.detail = rule, detail


def parse_date_time(value: object) -> datetime | date | None:
    """Returns an aware datetime, a date if the time of day is absent, or None for a year or month.

    Raises InvalidTime: the value is no FHIR dateTime, or has a time of day without a time zone.
    """
    if isinstance(value, str) and len(value) in _COMMON_LENGTHS and value[10] == "T":
        try:
            known = datetime.fromisoformat(value)
        except ValueError:
            pass  # `read_time` finds the reason
        else:
            if known.tzinfo is not None:
                return known
    if isinstance(value, str) and len(value) <= 10:
        if _PARTIAL_DATE.fullmatch(value):
            return None
        if _DATE.fullmatch(value):
            try:
                return date.fromisoformat(value)
            except ValueError:
                raise InvalidTime("date_time", "is not a valid date") from None
    try:
        return read_time(value)
    except PydanticCustomError as error:
        rule = "date_time" if error.type == "string_type" else error.type
        raise InvalidTime(rule, error.message()) from None


def start_of(day: date, as_of: datetime) -> datetime:
    """The start of a day in the time zone of `as_of`."""
    return datetime.combine(day, time(), as_of.tzinfo)


def end_of(day: date, as_of: datetime) -> datetime:
    """The end of a day in the time zone of `as_of`."""
    return start_of(day, as_of) + _DAY


def completed_years(birth: object, as_of: datetime) -> tuple[int, bool] | None:
    """The age in completed years at `as_of`, and whether the birth date is exact to the day.

    A year or month alone counts as its middle. None if the birth date is after `as_of`.

    Raises InvalidTime: the value is no FHIR date.
    """
    if not isinstance(birth, str):
        raise InvalidTime("date", "must be a date")
    exact = bool(_DATE.fullmatch(birth))
    if not exact and not _PARTIAL_DATE.fullmatch(birth):
        raise InvalidTime("date", "must be a date: YYYY-MM-DD, YYYY-MM or YYYY")
    try:
        year, month, day = _parts(birth)
        born = date(year, month, day)
    except ValueError:
        raise InvalidTime("date", "is not a valid date") from None
    today = as_of.date()
    years = today.year - born.year - ((today.month, today.day) < (born.month, born.day))
    return None if years < 0 else (years, exact)


def _parts(birth: str) -> tuple[int, int, int]:
    match [int(part) for part in birth.split("-")]:
        case [year]:
            return year, *_MIDDLE_OF_YEAR
        case [year, month]:
            return year, month, _MIDDLE_OF_MONTH
        case parts:
            return parts[0], parts[1], parts[2]
