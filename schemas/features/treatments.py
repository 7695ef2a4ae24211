"""Treatment features: whether each was given, whether it runs, since when, and at which rate."""

import math

import numpy as np

from schemas.features.ledger import Ledger
from schemas.features.spec import TREATMENT_FEATURES, FeatureSpec, Floats
from schemas.features.tabular import PLAUSIBLE_TABULAR
from schemas.payload import Payload
from schemas.response import Converted


def treatment_features(payload: Payload, spec: FeatureSpec, ledger: Ledger) -> tuple[Floats, bool]:
    """[T, 4] by TREATMENT_FEATURES, and whether any treatment is in the window."""
    out = np.zeros((len(spec.treatments), len(TREATMENT_FEATURES)), dtype=np.float32)
    out[:, 2:] = np.nan
    as_of = payload.as_of
    # From the earliest start to the latest, so that the latest rate stays.
    for i in sorted(range(len(payload.treatments)), key=lambda i: (payload.treatments[i].start, i)):
        given = payload.treatments[i]
        pointer = f"/treatments/{i}"
        index = spec.treatment_index.get(given.name)
        if index is None:
            detail = "the model knows no such treatment; see GET /variables"
            ledger.ignore(pointer, "unknown_treatment", detail)
            continue
        rate = _rate(pointer, payload, i, spec, ledger)
        started = (as_of - given.start).total_seconds() / 3600
        ended = 0.0 if given.end is None else (as_of - given.end).total_seconds() / 3600
        if ended >= spec.window_hours:
            detail = f"the model reads the last {spec.window_hours:g} hours"
            ledger.ignore(pointer, "before_window", detail)
            continue
        ledger.treatments[given.name] = None
        row = out[index]
        row[0] = 1.0
        row[2] = np.fmax(row[2], min(started, spec.window_hours))
        if given.end is None:
            row[1] = 1.0
            row[3] = row[3] if math.isnan(rate) else rate
    return out, bool(out[:, 0].any())


def _rate(pointer: str, payload: Payload, i: int, spec: FeatureSpec, ledger: Ledger) -> float:
    """The rate in the treatment's canonical unit; NaN if there is none that can be used."""
    given = payload.treatments[i]
    known = spec.treatments[spec.treatment_index[given.name]]
    if given.rate is None:
        return math.nan
    unit = spec.ucum(given.unit)
    if known.unit is None:
        detail = f"the model reads that {known.name} is given, not at which rate"
        ledger.ignore(f"{pointer}/rate", "rate_not_read", detail)
        return math.nan
    weight = 1.0
    if unit == known.unit:
        factor = 1.0
    elif unit in known.units:
        factor = known.units[unit]
    elif unit in known.units_per_weight:
        factor = known.units_per_weight[unit]
        kg = payload.tabular.weight_kg if payload.tabular is not None else None
        limits = PLAUSIBLE_TABULAR["weight_kg"]
        if kg is None or not limits[0] <= kg <= limits[1]:
            detail = f"{unit} becomes {known.unit} only with a plausible weight_kg; rate not used"
            ledger.ignore(f"{pointer}/rate", "weight_needed_for_rate", detail)
            return math.nan
        weight = kg
    else:
        rule = "unit_required" if unit is None else "unit"
        verb = "a rate needs a unit" if unit is None else "cannot be converted"
        detail = f"{verb}; accepted for {known.name}: {', '.join(known.accepted)}"
        ledger.fail(f"{pointer}/unit", rule, detail)
        return math.nan
    rate = given.rate * factor / weight
    low, high = known.plausible or (0.0, math.inf)
    if not low <= rate <= high:
        detail = f"outside the plausible range {low:g} to {high:g} {known.unit}; used as missing"
        ledger.ignore(f"{pointer}/rate", "implausible_value", detail)
        return math.nan
    if unit is not None and unit != known.unit:
        ledger.converted.append(
            Converted(pointer=pointer, variable=known.name, from_unit=unit, to_unit=known.unit)
        )
    return rate
