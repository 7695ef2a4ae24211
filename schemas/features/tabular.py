"""Tabular features: age, sex, size, and how the patient was admitted."""

import math

import numpy as np

from schemas.features.ledger import Ledger
from schemas.features.spec import NUMERIC_TABULAR, Array, FeatureSpec
from schemas.payload import Payload, Tabular

PLAUSIBLE_TABULAR = {"age": (0.0, 120.0), "height_cm": (30.0, 250.0), "weight_kg": (1.0, 500.0)}


def tabular_features(
    payload: Payload, spec: FeatureSpec, ledger: Ledger
) -> dict[str, Array] | None:
    given = payload.tabular
    if given is None:
        return None
    numbers = {
        name: _plausible_tabular(given, name, limits, ledger)
        for name, limits in PLAUSIBLE_TABULAR.items()
    }
    numbers["body_mass_index"] = numbers["weight_kg"] / (numbers["height_cm"] / 100) ** 2
    numbers["hours_since_admission"] = (
        math.nan
        if given.admitted_at is None
        else (payload.as_of - given.admitted_at).total_seconds() / 3600
    )
    hot = [0.0] * sum(map(len, spec.categories.values()))
    start, known = 0, False
    for field, allowed in spec.categories.items():
        value = getattr(given, field)
        if value in allowed:
            hot[start + allowed.index(value)] = 1.0
            known = True
        elif value is not None:
            detail = f"not one of {', '.join(allowed)}; used as missing"
            ledger.ignore(f"/tabular/{field}", "unknown_category", detail)
        start += len(allowed)
    if not known and all(map(math.isnan, numbers.values())):
        return None
    values = [numbers[name] for name in NUMERIC_TABULAR] + hot
    return {"values": np.array(values, dtype=np.float32)}


def _plausible_tabular(
    given: Tabular, name: str, limits: tuple[float, float], ledger: Ledger
) -> float:
    value = getattr(given, name)
    if value is None:
        return math.nan
    if limits[0] <= value <= limits[1]:
        return float(value)
    detail = f"outside the plausible range {limits[0]:g} to {limits[1]:g}; used as missing"
    ledger.ignore(f"/tabular/{name}", "implausible_value", detail)
    return math.nan
