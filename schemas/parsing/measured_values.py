"""Values of a series: numbers, bounds that a laboratory reports as text, and null."""

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

_COMPARATOR = r"<=|>=|=<|=>|<|>|\u2264|\u2265|less than|greater than|more than"
_BOUND = re.compile(
    rf"\s{{0,3}}(?:{_COMPARATOR})\s{{0,3}}([+-]?\d{{1,15}}(?:\.\d{{1,15}})?(?:[eE][+-]?\d{{1,2}})?)\s{{0,3}}",
    re.ASCII | re.IGNORECASE,
)


class Bound(float):
    """The bound of a censored value: 0.01 of "<0.01"."""


class Readings(list[float]):
    """The values of a series in which not all were numbers.

    `bounds` of them were sent as bounds; `nulls` of them as null: those are NaN, until they are
    left out.
    """

    def __init__(self, values: Iterable[float], nulls: int = 0) -> None:
        super().__init__(values)
        self.bounds = sum(isinstance(value, Bound) for value in self)
        self.nulls = nulls or sum(map(math.isnan, self))


def _read_values(value: object) -> list[float]:
    """Finite numbers, or Readings.

    Raises PydanticCustomError without an index; `schemas.parsing.validation` looks for that.
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
    """Raises PydanticCustomError for anything but a finite number, a bound and null."""
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
    raise PydanticCustomError("number", "no number")


_SCHEMA = {
    "anyOf": [
        {"type": "number"},
        {
            "type": "string",
            "description": "a bound that a laboratory reports; it is read as the number in it",
            "examples": ["<0.01", ">200"],
        },
        {"type": "null"},
    ]
}


class _Reading:
    """How pydantic reads a Reading, and how OpenAPI describes it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_read_value)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return _SCHEMA


class _ReadingList:
    """The same for a list: a call from pydantic for each value would take ten times as long."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_read_values)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "array", "items": _SCHEMA, "minItems": 1}


Reading = Annotated[float, _Reading]
ReadingList = Annotated[list[Reading], _ReadingList]
