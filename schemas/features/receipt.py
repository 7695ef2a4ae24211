"""The receipt of a request. Its size is bounded for every request."""

from collections.abc import Sequence
from typing import Any, TypeVar

from schemas.features.input_report import InputReport
from schemas.request_errors import MAX_LISTED
from schemas.response import Converted, Ignored, Merged, Modality, ModalityUse, ReadAs, Receipt

_Entry = TypeVar("_Entry", Converted, Ignored, Merged, ReadAs)
_MERGED_FIELDS = frozenset({"pointer", "pointers", "observations"})


def build_receipt(report: InputReport, modalities: dict[Modality, ModalityUse]) -> Receipt:
    """Builds the receipt. In a list of more than MAX_LISTED entries, equal entries are merged."""
    warnings = list(report.warnings)

    def bounded(name: str, entries: Sequence[_Entry]) -> tuple[_Entry, ...]:
        if len(entries) <= MAX_LISTED:
            return tuple(entries)
        merged = _merge_equal(entries)
        if len(merged) > MAX_LISTED:
            omitted = sum(entry.entries or 1 for entry in merged[MAX_LISTED:])
            warnings.append(f"{omitted} more entries of {name} are not listed")
        return tuple(merged[:MAX_LISTED])

    return Receipt(
        modalities=modalities,
        used=tuple(report.used.values()),
        treatments=tuple(report.treatments),
        converted=bounded("converted", report.converted),
        read_as=bounded("read_as", report.read_as),
        merged=bounded("merged", report.merged),
        ignored=bounded("ignored", report.ignored),
        warnings=tuple(warnings),
    )


def _merge_equal(entries: Sequence[_Entry]) -> list[_Entry]:
    """Merges entries that differ only in their pointers and their number of observations."""
    groups: dict[tuple[Any, ...], list[_Entry]] = {}
    for entry in entries:
        key = tuple(value for name, value in entry if name not in _MERGED_FIELDS)
        groups.setdefault(key, []).append(entry)
    return [_merge_group(group) for group in groups.values()]


def _merge_group(group: list[_Entry]) -> _Entry:
    first = group[0]
    if len(group) == 1:
        return first
    pointers = [
        pointer
        for entry in group[:MAX_LISTED]
        for pointer in (entry.pointers if isinstance(entry, Merged) else (entry.pointer,))
    ]
    update: dict[str, Any] = {"entries": len(group), "pointers": tuple(pointers[:MAX_LISTED])}
    if not isinstance(first, Converted) and first.observations is not None:
        update["observations"] = sum(getattr(entry, "observations", 0) or 0 for entry in group)
    return first.model_copy(update=update)
