"""Ablations: a request without one of its parts, such as a variable or a passage of a note.

The contribution of a part is what the prediction loses without it (leave one covariate out, Lei
et al. 2018). Only the modality of the part is encoded again; then the fusion runs.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from schemas.features import (
    CHEST_XRAY,
    STATISTICS,
    TREATMENT_FEATURES,
    Array,
    EncodedNote,
    FeatureSpec,
    Floats,
    PlainText,
    extract_features,
    no_time_limit,
    notes_in_window,
    select_image,
    to_plain_text,
)
from schemas.features.treatments import treatment_indices
from schemas.payload import Payload, Tabular
from schemas.response import Modality
from service.prediction.answer_fields import PartFields, PartKind
from service.prediction.explanation.note_passages import MAX_PASSAGES, Passage, group_passages

MAX_POINTERS = 100  # of one part: an answer stays short if a part was sent a thousand times

_LAST, _MINIMUM, _MAXIMUM, _HOURS_SINCE_LAST = (
    STATISTICS.index(name) for name in ("last", "minimum", "maximum", "hours_since_last")
)
_LOG_COUNT = STATISTICS.index("log_count")
_GIVEN, _RUNNING, _HOURS_SINCE_START, _RATE = range(len(TREATMENT_FEATURES))
_TABULAR_FIELDS = {  # display name and unit
    "age": ("Age", "a"),
    "sex": ("Sex", None),
    "height_cm": ("Height", "cm"),
    "weight_kg": ("Weight", "kg"),
    "admission_source": ("Admitted from", None),
    "unit_type": ("Kind of unit", None),
    "admitted_at": ("Admitted to the unit", None),
}


@dataclass(frozen=True)
class Ablation:
    """A part of a request, and its modality without it.

    `part`: the part as the answer describes it. `remaining`: the arrays of the modality
    without the part; None if nothing of the modality remains.
    """

    modality: Modality
    part: PartFields
    remaining: dict[str, Array] | None


def ablations(
    payload: Payload,
    arrays: Mapping[Modality, dict[str, Array]],
    spec: FeatureSpec,
    encode: Callable[[str], EncodedNote],
    check: Callable[[], None] = no_time_limit,
) -> list[Ablation]:
    """All ablations of a payload with the features `arrays`.

    `encode` tokenizes a note. `check` is called before each ablation; an exception that it raises
    ends the search. An ablation of the weight does not change the rates that it converted.
    """
    by_modality: dict[Modality, Callable[[], Iterator[Ablation]]] = {
        "tabular": lambda: _tabular_ablations(payload, spec),
        "series": lambda: _series_ablations(payload, arrays["series"], spec),
        "notes": lambda: _note_ablations(payload, spec, encode),
        "image": lambda: _image_ablations(payload, spec),
    }
    collected = []
    for modality in arrays:
        for ablation in by_modality[modality]():
            check()
            collected.append(ablation)
    return collected


def max_ablations(payload: Payload, spec: FeatureSpec) -> dict[Modality, int]:
    """An upper bound of the number of ablations by modality, known before feature extraction."""
    treatments = min(len(payload.treatments), len(spec.treatments))
    passages = min(MAX_PASSAGES, sum(len(note.text) for note in payload.notes) // 2 + 1)
    return {
        "tabular": 0 if payload.tabular is None else len(_TABULAR_FIELDS),
        "series": min(len(payload.series), len(spec.variables)) + treatments,
        "notes": passages if payload.notes else 0,
        "image": min(len(payload.images), 1),
    }


def _part_fields(kind: PartKind, name: str, display: str, pointers: Sequence[str]) -> PartFields:
    part: PartFields = {
        "kind": kind,
        "name": name,
        "display": display,
        "pointers": [*pointers[:MAX_POINTERS]],
    }
    if len(pointers) > MAX_POINTERS:
        part["further_pointers"] = len(pointers) - MAX_POINTERS
    return part


# ----------------------------------------------------------------------------------------- tabular


def _tabular_ablations(payload: Payload, spec: FeatureSpec) -> Iterator[Ablation]:
    tabular = payload.tabular or Tabular()
    complete = _tabular_arrays(payload, tabular, spec)
    for name, (display, unit) in _TABULAR_FIELDS.items():
        value = getattr(tabular, name)
        if value is None:
            continue
        remaining = _tabular_arrays(payload, tabular.model_copy(update={name: None}), spec)
        if (
            complete is not None
            and remaining is not None
            and np.array_equal(remaining["values"], complete["values"], equal_nan=True)
        ):
            continue  # the model did not use it; the receipt states the reason
        part = _part_fields("tabular", name, display, [f"/tabular/{name}"])
        part["value"] = value.isoformat() if isinstance(value, datetime) else value
        if unit is not None:
            part["unit"] = unit
        yield Ablation("tabular", part, remaining)


def _tabular_arrays(
    payload: Payload, tabular: Tabular, spec: FeatureSpec
) -> dict[str, Array] | None:
    """The arrays of tabular data without other modalities."""
    others: dict[str, Any] = {"series": [], "treatments": [], "notes": [], "images": []}
    alone = payload.model_copy(update=others | {"tabular": tabular})
    return extract_features(alone, spec).arrays.get("tabular")


# ---------------------------------------------------------------------------- series and treatments


def _series_ablations(
    payload: Payload, arrays: dict[str, Array], spec: FeatureSpec
) -> Iterator[Ablation]:
    statistics, treatments = arrays["statistics"], arrays["treatments"]
    measured = np.flatnonzero(~np.isnan(statistics[:, _LAST])).tolist()
    given = np.flatnonzero(treatments[:, _GIVEN]).tolist()
    is_single = len(measured) + len(given) == 1
    series = _pointers("series", [spec.find_variable(s.variable) for s in payload.series])
    for i in measured:
        part = _series_fields(payload, spec, i, statistics[i], series[i])
        remaining = {
            "statistics": _without_row(statistics, i, zeros=[_LOG_COUNT]),
            "treatments": treatments,
        }
        yield Ablation("series", part, None if is_single else remaining)
    courses = _pointers("treatments", treatment_indices(payload.treatments, spec))
    for i in given:
        part = _treatment_fields(payload, spec, i, treatments[i], courses[i])
        remaining = {
            "statistics": statistics,
            "treatments": _without_row(treatments, i, zeros=[_GIVEN, _RUNNING]),
        }
        yield Ablation("series", part, None if is_single else remaining)


def _series_fields(
    payload: Payload, spec: FeatureSpec, index: int, row: Array, pointers: list[str]
) -> PartFields:
    variable, values = spec.variables[index], _significant_digits(row)
    part = _part_fields("series", variable.name, variable.display, pointers)
    part["unit"] = variable.unit
    part["last"] = values[_LAST]
    part["lowest"] = values[_MINIMUM]
    part["highest"] = values[_MAXIMUM]
    part["time"] = _hours_before(payload.as_of, values[_HOURS_SINCE_LAST])
    return part


def _treatment_fields(
    payload: Payload, spec: FeatureSpec, index: int, row: Array, pointers: list[str]
) -> PartFields:
    treatment, values = spec.treatments[index], _significant_digits(row)
    part = _part_fields("treatment", treatment.name, treatment.display, pointers)
    part["running"] = bool(values[_RUNNING])
    part["since"] = _hours_before(payload.as_of, values[_HOURS_SINCE_START])
    if np.isfinite(values[_RATE]):
        part["rate"] = values[_RATE]
        if treatment.unit is not None:
            part["unit"] = treatment.unit
    return part


def _pointers(field: str, indices: Sequence[int | None]) -> dict[int, list[str]]:
    """The pointers into a list of the payload, by the index that each of its entries stands for."""
    pointers: dict[int, list[str]] = defaultdict(list)
    for position, index in enumerate(indices):
        if index is not None:
            pointers[index].append(f"/{field}/{position}")
    return pointers


def _without_row(rows: Array, index: int, zeros: Sequence[int]) -> Floats:
    """A copy in which one row is that of an absent entry: NaN, and 0 in the columns `zeros`."""
    remaining = rows.astype(np.float32)
    remaining[index] = np.nan
    remaining[index, zeros] = 0.0
    return remaining


def _significant_digits(row: Array) -> list[float]:
    """Values rounded to the six digits that single precision holds."""
    return [float(f"{value:.6g}") for value in row.tolist()]


def _hours_before(as_of: datetime, hours: float) -> str:
    """The time `hours` before, rounded to seconds: hours are stored in single precision.

    In the time zone of `as_of`, unless the year there would be below 1.
    """
    ago = timedelta(seconds=round(hours * 3600))
    try:
        return (as_of - ago).isoformat()
    except OverflowError:
        east = timezone(timedelta(hours=23, minutes=59))  # where year 1 begins first
        earliest = datetime.min.replace(tzinfo=east)
        return (earliest + max(as_of - earliest - ago, timedelta())).isoformat()


# ------------------------------------------------------------------------------------------- notes


def _note_ablations(
    payload: Payload, spec: FeatureSpec, encode: Callable[[str], EncodedNote]
) -> Iterator[Ablation]:
    """Ablations of passages. The rest of a note is not encoded again (`EncodedNote.without`)."""
    texts = {i: to_plain_text(payload.notes[i].text) for i in notes_in_window(payload, spec)}
    texts = {i: text for i, text in texts.items() if text.text.strip()}
    tokens = {i: encode(text.text) for i, text in texts.items()}
    for group in group_passages({i: texts[i].text for i in sorted(texts)}):
        removed = {passage.note: passage for passage in group}
        remaining = [
            note.ids if i not in removed else note.without(removed[i].start, removed[i].stop)
            for i, note in tokens.items()
            if i not in removed or not removed[i].whole
        ]
        arrays: dict[str, Array] | None = None
        if remaining:
            arrays = {"tokens": np.concatenate(remaining)}
        yield Ablation("notes", _note_fields(payload, group, texts), arrays)


def _note_fields(
    payload: Payload, group: Sequence[Passage], texts: Mapping[int, PlainText]
) -> PartFields:
    notes = [payload.notes[passage.note] for passage in group]
    kinds = {note.kind for note in notes}
    name = kinds.pop() if len(kinds) == 1 else "note"
    display = f"{len(group)} notes, {name}" if len(group) > 1 else f"Note, {name}"
    pointers = [f"/notes/{passage.note}/text" for passage in group]
    part = _part_fields("note", name, display, pointers)
    part["time"] = max(note.time for note in notes).isoformat()
    if len(group) == 1:
        (passage,) = group
        span = texts[passage.note].source_span(passage.start, passage.stop)
        part["start"], part["end"] = span
    return part


# ------------------------------------------------------------------------------------------- image


def _image_ablations(payload: Payload, spec: FeatureSpec) -> Iterator[Ablation]:
    selected = select_image(payload, spec)
    if selected is None:
        return
    part = _part_fields("image", CHEST_XRAY, "Chest X-ray", [f"/images/{selected}"])
    part["time"] = payload.images[selected].time.isoformat()
    yield Ablation("image", part, None)
