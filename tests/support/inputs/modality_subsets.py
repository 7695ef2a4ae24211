"""Requests without some of the modalities."""

from typing import Any

FIELDS = {
    "tabular": ("tabular",),
    "series": ("series", "treatments"),
    "notes": ("notes",),
    "image": ("images",),
}


def joined(names: set[str]) -> str:
    """The id of a test case. The text of a set has another order in each process."""
    return "+".join(sorted(names)) or "none"


def without(payload: dict[str, Any], absent: set[str]) -> dict[str, Any]:
    """The request without the fields of the absent modalities."""
    removed = {field for modality in absent for field in FIELDS[modality]}
    return {name: value for name, value in payload.items() if name not in removed}
