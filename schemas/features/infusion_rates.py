"""Rates of treatments: from the unit that a feed writes to the treatment's canonical one."""

import math
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from schemas.features.input_report import Ledger
from schemas.features.observations import MOST_SPELLINGS
from schemas.features.spec import FeatureSpec
from schemas.features.tabular import usable_weight
from schemas.payload import Payload
from schemas.response import Converted
from schemas.terminology.units import Conversion, readings
from schemas.variables import Treatment

_WEIGHT = "body_weight"
_LONGEST = 64  # characters of a unit
_GAMMA = re.compile(r"gammas?(?![a-z])|\u03b3", re.IGNORECASE)
# Amounts by what they are of, in one unit for each; times in minutes.
_AMOUNTS = {
    "mass": {"ng": 1e-3, "ug": 1.0, "mg": 1e3, "g": 1e6},
    "units": {"mU": 1e-3, "U": 1.0, "kU": 1e3, "m[IU]": 1e-3, "[IU]": 1.0, "k[IU]": 1e3},
}
_MINUTES = {"s": 1 / 60, "min": 1.0, "h": 60.0, "d": 1440.0}


@dataclass(frozen=True)
class _Conversion:
    """Canonical rate = factor * rate * weight in kg to the power of `by_weight`: -1, 0 or 1."""

    unit: str
    factor: float
    by_weight: int = 0


class Rates:
    """The rates of one payload."""

    def __init__(self, payload: Payload, spec: FeatureSpec, ledger: Ledger) -> None:
        self._payload, self._spec, self._ledger = payload, spec, ledger

    def canonical(self, i: int, known: Treatment) -> float:
        """The rate of treatment `i` in the canonical unit; NaN if none can be used."""
        conversion = self._conversion_of(i, known)
        sent, pointer = self._payload.treatments[i].rate, f"/treatments/{i}"
        if conversion is None or sent is None:
            return math.nan
        weight = self._weight if conversion.by_weight else 1.0
        if weight is None:
            detail = f"{conversion.unit} becomes {known.unit} with a plausible weight alone"
            self._ledger.ignore(f"{pointer}/rate", "weight_needed_for_rate", detail)
            return math.nan
        rate = sent * conversion.factor
        rate = rate / weight if conversion.by_weight < 0 else rate * weight
        low, high = known.plausible or (0.0, math.inf)
        if not low <= rate <= high:
            limits = f"{low:g} to {high:g} {known.unit}"
            detail = f"outside the plausible range {limits}; used as missing"
            self._ledger.ignore(f"{pointer}/rate", "implausible_value", detail)
            return math.nan
        if conversion.unit != known.unit:
            self._ledger.converted.append(
                Converted(
                    pointer=pointer,
                    variable=known.name,
                    from_unit=conversion.unit,
                    to_unit=known.unit or "",
                )
            )
        return rate

    def _conversion_of(self, i: int, known: Treatment) -> _Conversion | None:
        given, pointer = self._payload.treatments[i], f"/treatments/{i}"
        if given.rate is None:
            return None
        if known.unit is None:
            detail = f"the model reads that {known.name} is given, not at which rate"
            self._ledger.ignore(f"{pointer}/rate", "rate_not_read", detail)
            return None
        if given.unit is None:
            detail = f"a rate needs a unit; accepted for {known.name}: {', '.join(known.accepted)}"
            self._ledger.ignore(f"{pointer}/unit", "unit_required", detail)
            return None
        own = self._spec.ucum(given.unit) or given.unit
        conversion = _conversion(known, own) or _read(known, given.unit)
        if conversion is None:
            detail = f"the rate is not used: its unit does not convert to {known.unit}"
            self._ledger.ignore(f"{pointer}/unit", "unknown_unit", detail)
        return conversion

    @cached_property
    def _weight(self) -> float | None:
        """In kg: that of the tabular data, else the latest plausible one that was observed."""
        weight = usable_weight(self._payload.tabular)
        if weight is not None:
            return weight
        observed = [*self._observed_weights()]
        if not observed:
            return None
        _, number, weight = max(observed)
        detail = "the latest observed weight, for rates by weight: tabular has no plausible one"
        self._ledger.read(f"/series/{number}", "weight_kg", detail)
        return weight

    def _observed_weights(self) -> list[tuple[float, int, float]]:
        """Time, number of the series and weight of each plausible observation."""
        spec, index = self._spec, self._spec.find_variable(_WEIGHT)
        read: dict[tuple[str, str | None], Conversion | None] = {}
        found: list[tuple[float, int, float]] = []
        for i, series in enumerate(self._payload.series):
            spelled = (series.variable, series.unit)
            if spelled not in read and len(read) < MOST_SPELLINGS:
                variable, conversion = spec.look_up(*spelled)
                read[spelled] = conversion if variable == index else None
            conversion = read.get(spelled)
            if index is None or conversion is None:
                continue
            low, high = spec.plausible[index]
            for time, value in zip(series.times, series.values, strict=True):
                kilograms = value * conversion.factor + conversion.offset
                if low <= kilograms <= high:
                    found.append((time.timestamp(), i, kilograms))
        return found


def _conversion(known: Treatment, code: str) -> _Conversion | None:
    """As declared for the treatment, else by the parts of both units."""
    if code == known.unit:
        return _Conversion(code, 1.0)
    if code in known.units:
        return _Conversion(code, known.units[code])
    if code in known.units_per_weight:
        return _Conversion(code, known.units_per_weight[code], -1)
    own, sent = _parts(known.unit or ""), _parts(code)
    if own is None or sent is None or own[0] != sent[0]:
        return None
    return _Conversion(code, sent[1] / own[1], int(sent[2]) - int(own[2]))


def _read(known: Treatment, spelled: str) -> _Conversion | None:
    """By what the spelling may stand for; None if nothing of that is a rate, or two are."""
    found = [one for code in _codes(spelled) if (one := _conversion(known, code)) is not None]
    distinct = {(one.factor, one.by_weight) for one in found}
    return found[0] if len(distinct) == 1 else None


@lru_cache(1024)
def _codes(spelled: str) -> tuple[str, ...]:
    return readings(_GAMMA.sub("ug", spelled)) if len(spelled) <= _LONGEST else ()


def _parts(code: str) -> tuple[str, float, bool] | None:
    """What a rate's amount is of, how much it is in a minute, and whether for each kg."""
    amount, *below = code.replace(".", "/").split("/")
    per_kg = "kg" in below
    times = [part for part in below if part != "kg"]
    if len(times) != 1 or times[0] not in _MINUTES or len(below) != 1 + per_kg:
        return None
    for kind, amounts in _AMOUNTS.items():
        if amount in amounts:
            return kind, amounts[amount] / _MINUTES[times[0]], per_kg
    return None
