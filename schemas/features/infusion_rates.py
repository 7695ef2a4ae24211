"""Conversion of treatment rates from the unit of a feed to the canonical unit."""

import math
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from schemas.features.input_report import InputReport
from schemas.features.observations import MAX_SPELLINGS
from schemas.features.spec import FeatureSpec
from schemas.features.tabular import usable_weight
from schemas.payload import Payload
from schemas.terminology.units import Conversion, candidate_codes
from schemas.variables import Treatment

WEIGHT = "body_weight"
_MAX_LENGTH = 64  # characters of a unit
_GAMMA = re.compile(r"gammas?(?![a-z])|\u03b3", re.IGNORECASE)
# Factors of amounts to the first unit of their kind with factor 1, and of times to minutes.
_AMOUNTS = {
    "mass": {"ng": 1e-3, "ug": 1.0, "mg": 1e3, "g": 1e6},
    "units": {"mU": 1e-3, "U": 1.0, "kU": 1e3, "m[IU]": 1e-3, "[IU]": 1.0, "k[IU]": 1e3},
}
_MINUTES = {"s": 1 / 60, "min": 1.0, "h": 60.0, "d": 1440.0}


@dataclass(frozen=True)
class _RateConversion:
    """Canonical rate = factor * rate * weight in kg ** weight_power, which is -1, 0 or 1."""

    unit: str
    factor: float
    weight_power: int = 0


class RateConverter:
    """Converts the rates of one payload."""

    def __init__(self, payload: Payload, spec: FeatureSpec, report: InputReport) -> None:
        self._payload, self._spec, self._report = payload, spec, report

    def convert(self, i: int, known: Treatment) -> float:
        """Returns the rate of course `i` in the canonical unit; NaN if it cannot be used."""
        conversion = self._find_conversion(i, known)
        sent, pointer = self._payload.treatments[i].rate, f"/treatments/{i}"
        if conversion is None or sent is None:
            return math.nan
        weight = self._weight if conversion.weight_power else 1.0
        if weight is None:
            detail = f"{conversion.unit} converts to {known.unit} only with a plausible weight"
            self._report.add_ignored(f"{pointer}/rate", "weight_needed_for_rate", detail)
            return math.nan
        rate = sent * conversion.factor
        rate = rate / weight if conversion.weight_power < 0 else rate * weight
        low, high = known.plausible or (0.0, math.inf)
        if not low <= rate <= high:
            limits = f"{low:g} to {high:g} {known.unit}"
            detail = f"outside the plausible range {limits}; used as missing"
            self._report.add_ignored(f"{pointer}/rate", "implausible_value", detail)
            return math.nan
        if conversion.unit != known.unit:
            self._report.add_converted(pointer, known.name, conversion.unit, known.unit or "")
        return rate

    def _find_conversion(self, i: int, known: Treatment) -> _RateConversion | None:
        given, pointer = self._payload.treatments[i], f"/treatments/{i}"
        if given.rate is None:
            return None
        if known.unit is None:
            detail = f"the model uses whether {known.name} is given, but not its rate"
            self._report.add_ignored(f"{pointer}/rate", "rate_not_read", detail)
            return None
        if given.unit is None:
            detail = (
                f"a rate needs a unit; accepted for {known.name}: {', '.join(known.accepted_units)}"
            )
            self._report.add_ignored(f"{pointer}/unit", "unit_required", detail)
            return None
        own = self._spec.rate_unit(given.unit) or given.unit
        conversion = _convert_code(known, own) or _convert_spelling(known, given.unit)
        if conversion is None:
            detail = f"the rate is not used, because its unit does not convert to {known.unit}"
            self._report.add_ignored(f"{pointer}/unit", "unknown_unit", detail)
        return conversion

    @cached_property
    def _weight(self) -> float | None:
        """The weight in kg: from the tabular data, otherwise the latest plausible observation."""
        weight = usable_weight(self._payload.tabular)
        if weight is not None:
            return weight
        observed = self._observed_weights()
        if not observed:
            return None
        _, number, weight = max(observed)
        detail = "used for rates by weight, because tabular has no plausible weight"
        self._report.add_read_as(f"/series/{number}", "weight_kg", detail)
        return weight

    def _observed_weights(self) -> list[tuple[float, int, float]]:
        """Returns time, series index and weight of each plausible observation."""
        spec, index = self._spec, self._spec.find_variable(WEIGHT)
        conversions: dict[tuple[str, str | None], Conversion | None] = {}
        weights: list[tuple[float, int, float]] = []
        for i, series in enumerate(self._payload.series):
            spelled = (series.variable, series.unit)
            if spelled not in conversions and len(conversions) < MAX_SPELLINGS:
                variable, conversion = spec.look_up(*spelled)
                conversions[spelled] = conversion if variable == index else None
            conversion = conversions.get(spelled)
            if index is None or conversion is None:
                continue
            low, high = spec.plausible[index]
            for time, value in zip(series.times, series.values, strict=True):
                kilograms = value * conversion.factor + conversion.offset
                if low <= kilograms <= high:
                    weights.append((time.timestamp(), i, kilograms))
        return weights


def _convert_code(known: Treatment, code: str) -> _RateConversion | None:
    """Returns the declared conversion of a UCUM code, or else one by the parts of both units."""
    if code == known.unit:
        return _RateConversion(code, 1.0)
    if code in known.units:
        return _RateConversion(code, known.units[code])
    if code in known.units_per_weight:
        return _RateConversion(code, known.units_per_weight[code], -1)
    canonical, sent = _parse_rate_unit(known.unit or ""), _parse_rate_unit(code)
    if canonical is None or sent is None or canonical[0] != sent[0]:
        return None
    return _RateConversion(code, sent[1] / canonical[1], int(sent[2]) - int(canonical[2]))


def _convert_spelling(known: Treatment, spelled: str) -> _RateConversion | None:
    """Returns the conversion of a spelling; None if its candidate codes give none or several."""
    candidates = (_convert_code(known, code) for code in _candidates(spelled))
    conversions = [conversion for conversion in candidates if conversion is not None]
    distinct = {(conversion.factor, conversion.weight_power) for conversion in conversions}
    return conversions[0] if len(distinct) == 1 else None


@lru_cache(1024)
def _candidates(spelled: str) -> tuple[str, ...]:
    return candidate_codes(_GAMMA.sub("ug", spelled)) if len(spelled) <= _MAX_LENGTH else ()


def _parse_rate_unit(code: str) -> tuple[str, float, bool] | None:
    """Returns the kind of the amount, its factor per minute, and whether it is per kg."""
    amount, *denominators = code.replace(".", "/").split("/")
    per_kg = "kg" in denominators
    times = [part for part in denominators if part != "kg"]
    if len(times) != 1 or times[0] not in _MINUTES or len(denominators) != 1 + per_kg:
        return None
    for kind, amounts in _AMOUNTS.items():
        if amount in amounts:
            return kind, amounts[amount] / _MINUTES[times[0]], per_kg
    return None
