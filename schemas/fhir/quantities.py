"""The value of an Observation or component, with its unit (FHIR R4, section 10.1).

A value is a number, or a text such as "<0.01" for a bound. Text without a comparator is never a
number, because decimal commas and points cannot be distinguished.
"""

import math
import re
from typing import Literal

from schemas.features import FeatureSpec
from schemas.fhir.document import Resource
from schemas.fhir.record import Place, Reason, Record

Value = tuple[float | str, str | None]
_ASCII = {"≤": "<=", "≥": ">="}
_COMPARATORS = ("<", "<=", ">=", ">")
_BOUND = re.compile(
    r"\s*(<=|>=|<|>|≤|≥)\s*(\d{1,15}(?:\.\d{1,15})?)(?:\s+(\S.{0,63}?)|([%A-Za-z/\[{].{0,63}?))?\s*"
)
# value[x] that holds no number for a series: why it is not read.
_OTHER_VALUES: dict[str, tuple[Reason, str]] = {
    "valueCodeableConcept": ("coded_value", "the value is a code, not a number"),
    "valueBoolean": ("coded_value", "the value is true or false, not a number"),
    "valueRange": ("text_value", "a range is not read; send a Quantity"),
    "valueRatio": ("text_value", "a ratio is not read; send a Quantity"),
    "valueSampledData": ("text_value", "a waveform is not read; send a Quantity"),
    "valueTime": ("coded_value", "the value is a time, not a number"),
    "valueDateTime": ("coded_value", "the value is a time, not a number"),
    "valuePeriod": ("coded_value", "the value is a period, not a number"),
}
_MAX_CACHED, _MAX_LENGTH = 10_000, 200  # entries; characters of a code and a unit
_MAX_INTEGER = 1e15


class UnitChoice:
    """Chooses the code or the unit of a Quantity. Caches each choice."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._spec = spec
        self._chosen: dict[tuple[str, str, str], str | Literal[False]] = {}

    def choose(self, name: str, code: str | None, unit: str | None) -> str | Literal[False] | None:
        """The unit for the payload; False if `code` and `unit` mean different units.

        `name`: the variable. If only one of both is known, it is the unit.
        """
        if code is None or unit is None or code == unit:
            return unit if code is None else code
        key = name, code, unit
        chosen = self._chosen.get(key)
        if chosen is None:
            chosen = self._compare(name, code, unit)
            if len(self._chosen) < _MAX_CACHED and len(code) + len(unit) < _MAX_LENGTH:
                self._chosen[key] = chosen
        return chosen

    def _compare(self, name: str, code: str, unit: str) -> str | Literal[False]:
        by_code, by_unit = (self._spec.look_up(name, spelled)[1] for spelled in (code, unit))
        if by_code is None:
            return code if by_unit is None else unit
        if by_unit is not None and not (
            math.isclose(by_code.factor, by_unit.factor) and by_code.offset == by_unit.offset
        ):
            return False
        return code


def read_value(
    resource: Resource, place: Place, name: str, units: UnitChoice, record: Record
) -> Value | None:
    """The value and the unit of an Observation or component; None, with a record, if it has none.

    A wrong type is an error of the record.
    """
    plain = _plain_quantity(resource)
    return _read_any(resource, place, name, units, record) if plain is None else plain


def _read_any(
    resource: Resource, place: Place, name: str, units: UnitChoice, record: Record
) -> Value | None:
    """The value of any type. A value that is not a number is recorded with the reason."""
    if "dataAbsentReason" in resource:
        record.skip(place, "no_value", "has a dataAbsentReason; counts as not measured")
        return None
    if resource.get("valueQuantity") is not None:
        return _read_quantity(resource["valueQuantity"], place, name, units, record)
    if "valueInteger" in resource:
        return _read_integer(resource["valueInteger"], place, record)
    if "valueString" in resource:
        return _read_text(resource["valueString"], place, record)
    other = next((kind for kind in _OTHER_VALUES if kind in resource), None)
    reason, detail = _OTHER_VALUES.get(other or "", ("no_value", "has no value"))
    record.skip(place, reason, detail)
    return None


def _read_integer(number: object, place: Place, record: Record) -> Value | None:
    if type(number) is int and abs(number) <= _MAX_INTEGER:
        return float(number), None
    record.add_error(_below(place, "value"), "integer", "must be an integer")
    return None


def _plain_quantity(resource: Resource) -> Value | None:
    """The usual value: a decimal whose code and unit are equal, without a comparator."""
    quantity = resource.get("valueQuantity")
    if type(quantity) is not dict or "dataAbsentReason" in resource or "comparator" in quantity:
        return None
    value, code = quantity.get("value"), quantity.get("code")
    if type(value) is not float or type(code) is not str or code != quantity.get("unit"):
        return None
    return (value, code) if math.isfinite(value) and code.strip() else None


def _read_quantity(
    quantity: object, place: Place, name: str, units: UnitChoice, record: Record
) -> Value | None:
    if not isinstance(quantity, dict):
        record.add_error(_below(place, "value"), "object", "must be a Quantity")
        return None
    value = quantity.get("value")
    if value is None:
        record.skip(place, "no_value", "the Quantity has no value; counts as not measured")
        return None
    number = _finite_number(value, place, record)
    code, unit = quantity.get("code"), quantity.get("unit")
    if number is None or not _are_texts(code, unit, place, record):
        return None
    chosen = units.choose(name, code, unit)
    if chosen is not False:
        return _with_comparator(number, quantity.get("comparator"), chosen, place, record)
    detail = "code and unit of the Quantity mean different units; counts as not measured"
    record.skip(_below(place, "value"), "contradictory_unit", detail)
    return None


def _with_comparator(
    number: float, comparator: object, unit: str | None, place: Place, record: Record
) -> Value | None:
    if comparator is None:
        return number, unit
    if comparator in _COMPARATORS:
        return f"{comparator}{number:.15g}", unit
    where = _below(place, "value.comparator")
    record.add_error(where, "allowed_values", "must be one of <, <=, >= and >")
    return None


def _finite_number(value: object, place: Place, record: Record) -> float | None:
    """A JSON number as a float. None, with an error, for other values."""
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and abs(value) <= _MAX_INTEGER:
        return float(value)
    where = _below(place, "value.value")
    if isinstance(value, int | float) and not isinstance(value, bool):
        record.add_error(where, "finite_number", f"must be at most {_MAX_INTEGER:g}")
    else:
        record.add_error(where, "decimal", "must be a JSON number, not text")
    return None


def _are_texts(code: object, unit: object, place: Place, record: Record) -> bool:
    for field, text in (("code", code), ("unit", unit)):
        if text is not None and (type(text) is not str or not text.strip()):
            record.add_error(_below(place, f"value.{field}"), "string", "must be a text")
            return False
    return True


def _read_text(text: object, place: Place, record: Record) -> Value | None:
    if not isinstance(text, str):
        record.add_error(_below(place, "value"), "string", "must be a text")
        return None
    bound = _BOUND.fullmatch(text[:200])
    if bound is None:
        detail = "text is read only as a bound such as <0.01; send a Quantity"
        record.skip(place, "text_value", detail)
        return None
    comparator, number, *unit = bound.groups()
    return f"{_ASCII.get(comparator, comparator)}{number}", next(
        (part for part in unit if part), None
    )


def _below(place: Place, path: str) -> Place:
    return place[0], f"{place[1]}.{path}" if place[1] else path
