"""Values of a series: numbers, null, and bounds of censored values as text, such as "<0.01"."""

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic_core import PydanticCustomError

from schemas.parsing.parsed_type import Parsed

_COMPARATOR = r"<=|>=|=<|=>|<|>|\u2264|\u2265|less than|greater than|more than"
_BOUND = re.compile(
    rf"\s{{0,3}}(?:{_COMPARATOR})\s{{0,3}}([+-]?\d{{1,15}}(?:\.\d{{1,15}})?(?:[eE][+-]?\d{{1,2}})?)\s{{0,3}}",
    re.ASCII | re.IGNORECASE,
)


class Bound(float):
    """The bound of a censored value: 0.01 for "<0.01"."""


class Readings(list[float]):
    """The values of a series that held bounds or nulls.

    `bounds`: number of values sent as bounds. `nulls`: number of values sent as null, which are NaN
    until they are removed.
    """

    def __init__(self, values: Iterable[float], nulls: int = 0) -> None:
        super().__init__(values)
        self.bounds = sum(isinstance(value, Bound) for value in self)
        self.nulls = nulls or sum(map(math.isnan, self))


def _read_values(value: object) -> list[float]:
    """Returns finite numbers; as Readings if there are bounds or nulls.

    Raises PydanticCustomError without an index, which `schemas.parsing.validation` determines.
    """
    if not isinstance(value, list | tuple):
        raise PydanticCustomError("list_type", "must be an array")
    kinds = set(map(type, value))
    if kinds == {float}:
        numbers = list(value)
    elif kinds <= {float, int}:
        try:
            numbers = list(map(float, value))
        except OverflowError:
            numbers = [math.inf]
    else:
        return Readings(map(_read_value, value))
    if not all(map(math.isfinite, numbers)):
        raise PydanticCustomError("finite_number", "must be finite")
    return numbers


def _read_value(value: object) -> float:
    """Returns a finite number, a Bound, or NaN for null.

    Raises PydanticCustomError: the value is none of these.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        raise PydanticCustomError("finite_number", "must be finite")
    if value is None:
        return math.nan
    if isinstance(value, str) and (bound := _BOUND.fullmatch(value)):
        return Bound(bound[1])
    raise PydanticCustomError("number", "must be a number")


_READING_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "number"},
        {
            "type": "string",
            "description": "a bound that a laboratory reports, which is read as its number",
            "examples": ["<0.01", ">200"],
        },
        {"type": "null"},
    ]
}
_READINGS_SCHEMA = {"type": "array", "items": _READING_SCHEMA, "minItems": 1}

Reading = Annotated[float, Parsed(_read_value, _READING_SCHEMA)]
# Validation of each value by pydantic would take ten times as long.
ReadingList = Annotated[list[Reading], Parsed(_read_values, _READINGS_SCHEMA)]
