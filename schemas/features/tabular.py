"""Tabular features: age, sex, height, weight, and circumstances of the admission."""

import math

import numpy as np

from schemas.features.input_report import InputReport
from schemas.features.spec import NUMERIC_TABULAR, Array, FeatureSpec
from schemas.payload import Payload, Tabular
from schemas.terminology.categories import NOT_KNOWN, find_category

ADULT = 18.0  # years
PLAUSIBLE_TABULAR = {"age": (0.0, 120.0), "height_cm": (30.0, 250.0), "weight_kg": (1.0, 500.0)}
_PLAUSIBLE_ADULT = PLAUSIBLE_TABULAR | {"height_cm": (100.0, 250.0), "weight_kg": (20.0, 500.0)}
_PLAUSIBLE_INDEX = (5.0, 150.0)  # body mass index, kg/m2
_USUAL_INDEX = (15.0, 60.0)
_LONGEST_STAY_HOURS = 2 * 8_766.0  # an earlier admission is a placeholder date
# Units that an implausible size suggests: lowest value, highest value, unit.
_SUSPECTED_UNITS = {
    "height_cm": (
        (1.0, 2.5, "metres"),
        (3.0, 8.0, "feet"),
        (36.0, 96.0, "inches"),
        (1000.0, 2500.0, "millimetres"),
    ),
    "weight_kg": ((1000.0, 500_000.0, "grams"),),
}
_KG_PER_LB = 0.45359237


def tabular_features(
    payload: Payload, spec: FeatureSpec, report: InputReport
) -> dict[str, Array] | None:
    """Returns `values` [F]; None if no tabular value is usable."""
    given = payload.tabular
    if given is None:
        return None
    numbers = plausible_numbers(given, report)
    numbers["body_mass_index"] = _body_mass_index(numbers)
    numbers["hours_since_admission"] = _hours_since_admission(payload, report)
    one_hot: list[float] = []
    for field, allowed in spec.categories.items():
        category = _category(field, getattr(given, field), allowed, report)
        one_hot += [float(value == category) for value in allowed]
    if not any(one_hot) and all(map(math.isnan, numbers.values())):
        return None
    values = [numbers[name] for name in NUMERIC_TABULAR] + one_hot
    return {"values": np.array(values, dtype=np.float32)}


def usable_weight(given: Tabular | None) -> float | None:
    """Returns the plausible weight in kg, or None."""
    if given is None or given.weight_kg is None:
        return None
    weight = plausible_numbers(given)["weight_kg"]
    return None if math.isnan(weight) else weight


def plausible_numbers(given: Tabular, report: InputReport | None = None) -> dict[str, float]:
    """Returns age, height and weight; NaN if absent or implausible for the age.

    A number is never converted by guess, although a height of 64 may be in inches.
    """
    adult = given.age is not None and ADULT <= given.age <= PLAUSIBLE_TABULAR["age"][1]
    limits = _PLAUSIBLE_ADULT if adult else PLAUSIBLE_TABULAR
    numbers = {name: _plausible(given, name, limits, report, adult=adult) for name in limits}
    low, high = _PLAUSIBLE_INDEX
    index = _body_mass_index(numbers)
    if not math.isnan(index) and not low <= index <= high:
        for name in ("height_cm", "weight_kg"):
            numbers[name] = math.nan
            if report is not None:
                detail = (
                    f"height_cm and weight_kg make a body mass index outside {low:g} to {high:g} "
                    "kg/m2; both are used as missing"
                )
                report.add_ignored(f"/tabular/{name}", "implausible_value", detail)
    elif report is not None and _looks_like_pounds(index):
        report.warnings.append(
            "weight_kg is unusual for height_cm and would be usual in pounds; it was used in "
            "kilograms: check the unit"
        )
    return numbers


def _plausible(
    given: Tabular,
    name: str,
    limits: dict[str, tuple[float, float]],
    report: InputReport | None,
    *,
    adult: bool,
) -> float:
    value = getattr(given, name)
    if value is None:
        return math.nan
    low, high = limits[name]
    if low <= value <= high:
        return float(value)
    if report is not None:
        scope = " of an adult" if adult and limits[name] != PLAUSIBLE_TABULAR[name] else ""
        detail = f"outside the plausible range{scope} {low:g} to {high:g}; used as missing"
        for least, most, unit in _SUSPECTED_UNITS.get(name, ()):
            if least <= value <= most:
                detail = f"{detail}; it looks like {unit}"
                report.warnings.append(f"{name} looks like {unit}; it was not used: check the unit")
        report.add_ignored(f"/tabular/{name}", "implausible_value", detail)
    return math.nan


def _body_mass_index(numbers: dict[str, float]) -> float:
    return numbers["weight_kg"] / (numbers["height_cm"] / 100) ** 2


def _looks_like_pounds(index: float) -> bool:
    low, high = _USUAL_INDEX
    return index > high and low <= index * _KG_PER_LB <= high


def _hours_since_admission(payload: Payload, report: InputReport) -> float:
    admitted_at = None if payload.tabular is None else payload.tabular.admitted_at
    if admitted_at is None:
        return math.nan
    hours = (payload.as_of - admitted_at).total_seconds() / 3600
    if hours <= _LONGEST_STAY_HOURS:
        return hours
    detail = "more than two years before as_of, probably a placeholder date; used as missing"
    report.add_ignored("/tabular/admitted_at", "implausible_value", detail)
    return math.nan


def _category(
    field: str, text: str | None, allowed: tuple[str, ...], report: InputReport
) -> str | None:
    if text is None or text in allowed:
        return text
    category, pointer = find_category(field, text), f"/tabular/{field}"
    if category in allowed:
        report.add_read_as(pointer, category, f"a spelling of {category}")
        return category
    if category == NOT_KNOWN:
        detail = "a category is not stated; used as missing"
        report.add_ignored(pointer, "no_value", detail)
    else:
        detail = f"not one of {', '.join(allowed)}; used as missing"
        report.add_ignored(pointer, "unknown_category", detail)
    return None
