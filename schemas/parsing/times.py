"""Times of a request: RFC 3339 text with a time zone, parsed to aware datetimes."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NoReturn

from pydantic_core import PydanticCustomError

from schemas.parsing.parsed_type import Parsed

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?[0-5]\d)", re.ASCII
)
_PARTS = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(?::(\d\d)([.,]\d+)?)?(\s*(?:[A-Za-z]\S*|[+-][\d:]+)?)",
    re.ASCII,
)
_ZONE = re.compile(r"[Zz]|[+-]\d\d:?[0-5]\d", re.ASCII)
_DATE_ALONE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_ENDS_IN_ZONE = re.compile(r".*\d(?:[Zz]|[+-]\d\d:?\d\d)", re.ASCII | re.DOTALL)
_MAX_LENGTH = 100  # characters
_EXAMPLE = "2031-05-04T12:00:00Z"


def read_time(value: object) -> datetime:
    """Returns an aware datetime from text or from an aware datetime.

    Accepts RFC 3339 and common deviations: a space for `T`, `+0000`, no seconds, 24:00:00, a leap
    second, a fraction of any length (truncated to microseconds). Numbers are refused because their
    unit is unknown.

    Raises PydanticCustomError: its type is the violated rule, its message the detail.
    """
    if isinstance(value, str):
        if _is_rfc_3339(value):
            try:
                return datetime.fromisoformat(value)
            except ValueError:
                pass  # 24:00, a leap second, or an invalid date
        return _parse_deviation(value)
    if not isinstance(value, datetime):
        raise PydanticCustomError("string_type", "must be a string")
    if value.tzinfo is None:
        _refuse("time_zone", f"has no time zone; append one, as in {_EXAMPLE}")
    return value


def _is_rfc_3339(text: str) -> bool:
    """Whether the text has the form of RFC 3339. The fast paths cover the most common lengths."""
    signs = text[7:23:3]
    if len(text) == 20 and signs == "-T::Z":
        return True
    if len(text) == 25 and signs in ("-T::+:", "-T::-:") and text[23] < "6":
        return True
    return _RFC_3339.fullmatch(text) is not None


def _parse_deviation(text: str) -> datetime:
    """Parses a time that `datetime.fromisoformat` does not accept."""
    parts = _PARTS.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if parts is None:
        if _DATE_ALONE.fullmatch(text):
            _refuse(
                "time_zone",
                f"is a date without a time and a time zone; send both, as in {_EXAMPLE}",
            )
        rule = "date_time" if _ENDS_IN_ZONE.fullmatch(text[-_MAX_LENGTH:]) else "time_zone"
        _refuse(rule, f"must be an RFC 3339 time with a time zone, as in {_EXAMPLE}")
    date, minute, second, fraction, zone = parts.groups()
    if not zone:
        _refuse("time_zone", f"has no time zone; append one, as in {_EXAMPLE}")
    if not _ZONE.fullmatch(zone) or zone[1:3] > "23":
        _refuse("time_zone", "the time zone must be Z, or hours and minutes such as +01:00")
    shift = timedelta()
    if minute == "24:00" and not f"{second or ''}{fraction or ''}".strip("0.,"):
        minute, shift = "00:00", timedelta(days=1)
    if is_leap_second := second == "60":
        second, fraction, shift = "59", "", timedelta(seconds=1)
    try:
        time = datetime.fromisoformat(
            f"{date}T{minute}:{second or '00'}{fraction or ''}{zone.upper()}"
        )
        if is_leap_second and time.astimezone(UTC).strftime("%H:%M") != "23:59":
            raise ValueError  # noqa: TRY301 - refused in the same way as 25:00
        return time + shift
    except (ValueError, OverflowError):
        _refuse("date_time", "is not a valid date, time of day or offset from UTC")


def _refuse(rule: str, detail: str) -> NoReturn:
    raise PydanticCustomError(rule, "{detail}", {"detail": detail})


def _read_times(value: object) -> list[datetime]:
    if not isinstance(value, list | tuple):
        raise PydanticCustomError("list_type", "must be an array")
    return [read_time(time) for time in value]


_TIME_SCHEMA: dict[str, Any] = {"type": "string", "format": "date-time"}
_TIMES_SCHEMA: dict[str, Any] = {"type": "array", "items": _TIME_SCHEMA, "minItems": 1}

Time = Annotated[datetime, Parsed(read_time, _TIME_SCHEMA)]
# Validation of each time by pydantic would take twice as long. Errors have no index, which
# `schemas.parsing.validation` determines.
Times = Annotated[list[Time], Parsed(_read_times, _TIMES_SCHEMA)]
