"""Times of a request: RFC 3339 text with a time zone, read as Python's aware datetimes."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NoReturn

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

_USUAL = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?[0-5]\d)", re.ASCII
)
_PARTS = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(?::(\d\d)([.,]\d+)?)?(\s*(?:[A-Za-z]\S*|[+-][\d:]+)?)",
    re.ASCII,
)
_ZONE = re.compile(r"[Zz]|[+-]\d\d:?[0-5]\d", re.ASCII)
_DATE_ALONE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_ENDS_IN_ZONE = re.compile(r".*\d(?:[Zz]|[+-]\d\d:?\d\d)", re.ASCII | re.DOTALL)
_LONGEST = 100  # characters
_EXAMPLE = "2031-05-04T12:00:00Z"


def read_time(value: object) -> datetime:
    """An aware datetime from text or from an aware datetime.

    RFC 3339, and what programs write in its place: a space for `T`, `+0000`, no seconds,
    24:00:00, a leap second, a fraction of any length (cut to microseconds). A number is not taken
    for a time, since its unit is unknown.

    Raises PydanticCustomError; its type is a rule and its message says what is wrong.
    """
    if isinstance(value, str):
        if _is_usual(value):
            try:
                return datetime.fromisoformat(value)
            except ValueError:
                pass  # 24:00, a leap second, or no such date
        return _unusual(value)
    if not isinstance(value, datetime):
        raise PydanticCustomError("string_type", "must be a string")
    if value.tzinfo is None:
        _refuse("time_zone", f"has no time zone; RFC 3339 has it at the end, as in {_EXAMPLE}")
    return value


def _is_usual(text: str) -> bool:
    """Whether a text is of RFC 3339's form. The commonest ones are seen without the pattern."""
    signs = text[7:23:3]
    if len(text) == 20 and signs == "-T::Z":
        return True
    if len(text) == 25 and signs in ("-T::+:", "-T::-:") and text[23] < "6":
        return True
    return _USUAL.fullmatch(text) is not None


def _unusual(text: str) -> datetime:
    parts = _PARTS.fullmatch(text) if len(text) <= _LONGEST else None
    if parts is None:
        if _DATE_ALONE.fullmatch(text):
            _refuse("time_zone", f"is a date without a time and a time zone, as in {_EXAMPLE}")
        rule = "date_time" if _ENDS_IN_ZONE.fullmatch(text[-_LONGEST:]) else "time_zone"
        _refuse(rule, f"must be an RFC 3339 time with a time zone, as in {_EXAMPLE}")
    date, minute, second, fraction, zone = parts.groups()
    if not zone:
        _refuse("time_zone", f"has no time zone; RFC 3339 has it at the end, as in {_EXAMPLE}")
    if not _ZONE.fullmatch(zone) or zone[1:3] > "23":
        _refuse("time_zone", "the time zone must be Z, or hours and minutes as in +01:00")
    later = timedelta()
    if minute == "24:00" and not f"{second or ''}{fraction or ''}".strip("0.,"):
        minute, later = "00:00", timedelta(days=1)
    if leaps := second == "60":
        second, fraction, later = "59", "", timedelta(seconds=1)
    try:
        time = datetime.fromisoformat(
            f"{date}T{minute}:{second or '00'}{fraction or ''}{zone.upper()}"
        )
        if leaps and time.astimezone(UTC).strftime("%H:%M") != "23:59":
            raise ValueError  # noqa: TRY301 - the same refusal as for 25:00
        return time + later
    except (ValueError, OverflowError):
        _refuse("date_time", "there is no such date, time of day or offset from UTC")


def _refuse(rule: str, detail: str) -> NoReturn:
    raise PydanticCustomError(rule, "{detail}", {"detail": detail})


def _read_times(value: object) -> list[datetime]:
    if not isinstance(value, list | tuple):
        raise PydanticCustomError("list_type", "must be an array")
    return [read_time(one) for one in value]


class _Rfc3339:
    """How pydantic reads a Time, and how OpenAPI describes it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(read_time)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "format": "date-time"}


class _Rfc3339List:
    """The same for a list: a call from pydantic for each time would take as long again.

    What it refuses has no index; `schemas.parsing.validation` looks for that.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_read_times)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        time = {"type": "string", "format": "date-time"}
        return {"type": "array", "items": time, "minItems": 1}


Time = Annotated[datetime, _Rfc3339]
Times = Annotated[list[Time], _Rfc3339List]
