"""The receipt of a request: bounded, whatever the request holds."""

from collections.abc import Sequence
from typing import Any, TypeVar

from schemas.features.input_report import Ledger
from schemas.request_errors import LISTED
from schemas.response import Converted, Ignored, Merged, Modality, ModalityUse, ReadAs, Receipt

_E = TypeVar("_E", Converted, Ignored, Merged, ReadAs)
_APART = frozenset({"pointer", "pointers", "observations"})


def receipt_of(ledger: Ledger, modalities: dict[Modality, ModalityUse]) -> Receipt:
    """What the ledger holds. Of more than LISTED entries, those that say the same are one."""
    warnings = list(ledger.warnings)

    def bounded(name: str, entries: Sequence[_E]) -> tuple[_E, ...]:
        if len(entries) <= LISTED:
            return tuple(entries)
        groups = _together(entries)
        if len(groups) > LISTED:
            left = sum(one.entries or 1 for one in groups[LISTED:])
            warnings.append(f"{left} more entries of {name} are not listed")
        return tuple(groups[:LISTED])

    return Receipt(
        modalities=modalities,
        used=tuple(ledger.used.values()),
        treatments=tuple(ledger.treatments),
        converted=bounded("converted", ledger.converted),
        read_as=bounded("read_as", ledger.read_as),
        merged=bounded("merged", ledger.merged),
        ignored=bounded("ignored", ledger.ignored),
        warnings=tuple(warnings),
    )


def _together(entries: Sequence[_E]) -> list[_E]:
    """Entries that differ in no more than their place and their number of observations, as one."""
    groups: dict[tuple[Any, ...], list[_E]] = {}
    for entry in entries:
        key = tuple(value for name, value in entry if name not in _APART)
        groups.setdefault(key, []).append(entry)
    return [_one(group) for group in groups.values()]


def _one(group: list[_E]) -> _E:
    first = group[0]
    if len(group) == 1:
        return first
    places = [
        place
        for entry in group[:LISTED]
        for place in (entry.pointers if isinstance(entry, Merged) else (entry.pointer,))
    ]
    changed: dict[str, Any] = {"entries": len(group), "pointers": tuple(places[:LISTED])}
    if not isinstance(first, Converted) and first.observations is not None:
        changed["observations"] = sum(getattr(entry, "observations", 0) or 0 for entry in group)
    return first.model_copy(update=changed)
