"""What can be left out of a request, one thing at a time: a variable, a treatment, a passage.

What the prediction loses without it is what it contributed (leave one covariate out, Lei et al.
2018). Only its modality is encoded again; the fusion then runs once for each.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from schemas.features import (
    STATISTICS,
    TREATMENT_FEATURES,
    Array,
    FeatureSpec,
    Floats,
    features,
)
from schemas.payload import Note, Payload, Tabular
from schemas.response import Modality

# Of all notes. Each costs a reading of the notes without it.
MOST_PASSAGES = 16

_SENTENCE = re.compile(r".+?(?:[.;](?=\s)|\n|$)", re.DOTALL)
_LAST, _LOWEST, _HIGHEST, _SINCE_LAST = (
    STATISTICS.index(name) for name in ("last", "minimum", "maximum", "hours_since_last")
)
_COUNT = STATISTICS.index("log_count")
_GIVEN, _RUNNING, _SINCE_START, _RATE = range(len(TREATMENT_FEATURES))
_TABULAR = {
    "age": ("Age", "a"),
    "sex": ("Sex", None),
    "height_cm": ("Height", "cm"),
    "weight_kg": ("Weight", "kg"),
    "admission_source": ("Admitted from", None),
    "unit_type": ("Kind of unit", None),
    "admitted_at": ("Admitted to the unit", None),
}


@dataclass(frozen=True)
class Part:
    """Something that can be left out of one modality of a request.

    `fields`: those of its `schemas.response.Because`, but the contribution. `left`: the modality's
    arrays without it; None if nothing is left of the modality.
    """

    modality: Modality
    fields: dict[str, Any]
    left: dict[str, Array] | None


def parts(
    payload: Payload, arrays: Mapping[Modality, dict[str, Array]], spec: FeatureSpec
) -> list[Part]:
    """All parts of a request whose features are `arrays`.

    The weight is left out of the tabular data alone: rates that it converted stay.
    """
    of_modality: dict[Modality, Callable[..., Iterator[Part]]] = {
        "tabular": _tabular,
        "series": _series,
        "notes": _notes,
        "image": _image,
    }
    return [
        part
        for modality, found in arrays.items()
        for part in of_modality[modality](payload, found, spec)
    ]


def _alone(payload: Payload, spec: FeatureSpec, **parts: Any) -> Any:
    """The arrays of a payload that has nothing but these parts, by modality."""
    empty: dict[str, Any] = {
        "tabular": None,
        "series": [],
        "treatments": [],
        "notes": [],
        "images": [],
    }
    return features(payload.model_copy(update=empty | parts), spec).arrays


def _tabular(payload: Payload, _: dict[str, Array], spec: FeatureSpec) -> Iterator[Part]:
    given = payload.tabular or Tabular()
    whole = _alone(payload, spec, tabular=given)["tabular"]["values"]
    for name, (display, unit) in _TABULAR.items():
        value = getattr(given, name)
        if value is None:
            continue
        without = given.model_copy(update={name: None})
        left = _alone(payload, spec, tabular=without).get("tabular")
        if left is not None and np.array_equal(left["values"], whole, equal_nan=True):
            continue  # it was not used: the receipt says why
        fields = {
            "kind": "tabular",
            "name": name,
            "display": display,
            "pointers": [f"/tabular/{name}"],
            "value": value.isoformat() if isinstance(value, datetime) else value,
        }
        yield Part("tabular", fields | _told("unit", unit), left)


def _series(payload: Payload, arrays: dict[str, Array], spec: FeatureSpec) -> Iterator[Part]:
    statistics, treatments = arrays["statistics"], arrays["treatments"]
    measured = np.flatnonzero(~np.isnan(statistics[:, _LAST]))
    given = np.flatnonzero(treatments[:, _GIVEN])
    only_one = len(measured) + len(given) == 1
    series = _pointers("series", [spec.find_variable(s.variable) for s in payload.series])
    courses = _pointers(
        "treatments", [spec.treatment_index.get(t.name) for t in payload.treatments]
    )
    for i in measured.tolist():
        variable, row = spec.variables[i], _shown(statistics[i])
        fields = {
            "kind": "series",
            "name": variable.name,
            "display": variable.display,
            "pointers": series[i],
            "unit": variable.unit,
            "last": row[_LAST],
            "lowest": row[_LOWEST],
            "highest": row[_HIGHEST],
            "time": _before(payload.as_of, row[_SINCE_LAST]),
        }
        left = _blanked(statistics, i, zeros=[_COUNT])
        left_arrays = {"statistics": left, "treatments": treatments}
        yield Part("series", fields, None if only_one else left_arrays)
    for i in given.tolist():
        treatment, row = spec.treatments[i], _shown(treatments[i])
        fields = {
            "kind": "treatment",
            "name": treatment.name,
            "display": treatment.display,
            "pointers": courses[i],
            "running": bool(row[_RUNNING]),
            "since": _before(payload.as_of, row[_SINCE_START]),
        }
        if np.isfinite(row[_RATE]):
            fields |= {"rate": row[_RATE], "unit": treatment.unit}
        left = _blanked(treatments, i, zeros=[_GIVEN, _RUNNING])
        left_arrays = {"statistics": statistics, "treatments": left}
        yield Part("series", fields, None if only_one else left_arrays)


def _pointers(field: str, indices: Sequence[int | None]) -> dict[int, list[str]]:
    """By index the pointers to what the payload says of it."""
    found: dict[int, list[str]] = defaultdict(list)
    for i, index in enumerate(indices):
        if index is not None:
            found[index].append(f"/{field}/{i}")
    return found


def _blanked(rows: Array, i: int, zeros: Sequence[int]) -> Floats:
    """A copy in which row `i` is that of something that is not there: NaN, and some columns 0."""
    out = rows.astype(np.float32)
    out[i] = np.nan
    out[i, zeros] = 0.0
    return out


def _shown(row: Array) -> list[float]:
    """Without the digits that single precision makes up."""
    return [float(f"{value:.6g}") for value in row.tolist()]


def _before(as_of: datetime, hours: float) -> str:
    """The time so many hours before, to the second: hours are kept in single precision."""
    seconds = round(hours * 3600)
    return (as_of - timedelta(seconds=seconds)).isoformat()


def _notes(payload: Payload, _: dict[str, Array], spec: FeatureSpec) -> Iterator[Part]:
    for number, start, end in _passages(payload.notes):
        text = payload.notes[number].text
        rest = text[:start] + text[end:]
        kept = list(payload.notes)
        kept[number : number + 1] = (
            [kept[number].model_copy(update={"text": rest})] if rest.strip() else []
        )
        fields = {
            "kind": "note",
            "name": payload.notes[number].kind,
            "display": f"Note, {payload.notes[number].kind}",
            "pointers": [f"/notes/{number}/text"],
            "time": payload.notes[number].time.isoformat(),
            "start": start,
            "end": end,
        }
        yield Part("notes", fields, _alone(payload, spec, notes=kept).get("notes"))


def _passages(notes: Sequence[Note]) -> Iterator[tuple[int, int, int]]:
    """Number of the note, first character and the one after the last, of whole sentences.

    A passage holds as many as make a MOST_PASSAGES-th of all text, and ends with its note.
    """
    enough = sum(len(note.text) for note in notes) / MOST_PASSAGES
    for number, note in enumerate(notes):
        start = 0
        for found in _SENTENCE.finditer(note.text):
            last = not note.text[found.end() :].strip()
            if note.text[start : found.end()].strip() and (last or found.end() - start >= enough):
                yield number, start, len(note.text) if last else found.end()
                start = found.end()
            if last:
                break


def _image(payload: Payload, _: dict[str, Array], __: FeatureSpec) -> Iterator[Part]:
    """The one that is read: the latest chest X-ray."""
    shown = [i for i, image in enumerate(payload.images) if image.kind == "chest_xray"]
    latest = max(shown, key=lambda i: (payload.images[i].time, i))
    fields = {
        "kind": "image",
        "name": "chest_xray",
        "display": "Chest X-ray",
        "pointers": [f"/images/{latest}"],
        "time": payload.images[latest].time.isoformat(),
    }
    yield Part("image", fields, None)


def _told(name: str, value: object) -> dict[str, object]:
    return {} if value is None else {name: value}
