"""Requests for tests of feature extraction, and access to the results by name."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.features import (
    STATISTICS,
    TREATMENT_FEATURES,
    Features,
    FeatureSpec,
    extract_features,
)
from schemas.payload import InvalidPayload, as_payload

SPEC = FeatureSpec.default()
AS_OF = datetime(2026, 11, 23, 10, tzinfo=UTC)


def at(hours_before: float) -> datetime:
    return AS_OF - timedelta(hours=hours_before)


def extract(spec: FeatureSpec = SPEC, **parts: Any) -> Features:
    return extract_features(as_payload({"as_of": AS_OF, **parts}), spec)


def errors(**parts: Any) -> set[tuple[str, str]]:
    """Pointer and rule of each error of a refused request."""
    with pytest.raises(InvalidPayload) as caught:
        extract(**parts)
    return {(error.pointer, error.rule) for error in caught.value.errors}


def ignored(features: Features) -> set[tuple[str, str]]:
    """Pointer and reason of each ignored input."""
    return {(entry.pointer, entry.reason) for entry in features.receipt.ignored}


def series(variable: str, unit: str | None, *pairs: tuple[float, Any]) -> dict[str, Any]:
    """A series from pairs of hours before AS_OF and value."""
    times, values = zip(*pairs, strict=True)
    return {
        "variable": variable,
        "unit": unit,
        "times": [at(hours) for hours in times],
        "values": list(values),
    }


def statistic(features: Features, variable: str, name: str) -> float:
    rows = features.arrays["series"]["statistics"]
    return float(rows[SPEC.variable_index[variable], STATISTICS.index(name)])


def course(**fields: Any) -> dict[str, Any]:
    """A course of norepinephrine that runs for five hours, with other fields as given."""
    return {"name": "norepinephrine", "start": at(5), "end": None, **fields}


def treatment_value(features: Features, name: str, feature: str) -> float:
    rows = features.arrays["series"]["treatments"]
    return float(rows[SPEC.treatment_index[name], TREATMENT_FEATURES.index(feature)])


def tabular_value(features: Features, name: str) -> float:
    return float(features.arrays["tabular"]["values"][SPEC.tabular_names.index(name)])
