"""What can be left out of a request, one thing at a time: a variable, a treatment, a passage.

What the prediction loses without it is what it contributed (leave one covariate out, Lei et al.
2018). Only its modality is encoded again; the fusion then runs once for each.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from schemas.features import (
    CHEST_XRAY,
    STATISTICS,
    TREATMENT_FEATURES,
    Array,
    FeatureSpec,
    Floats,
    NoteText,
    NoteTokens,
    features,
    film_read,
    note_text,
    notes_in_window,
    unlimited,
)
from schemas.features.treatments import treatment_indices
from schemas.payload import Payload, Tabular
from schemas.response import Modality

# Of all notes. Each costs a run of the notes' encoder.
MOST_PASSAGES = 16
MOST_POINTERS = 100  # of a part; an answer must not grow with what is said a thousand times

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
    payload: Payload,
    arrays: Mapping[Modality, dict[str, Array]],
    spec: FeatureSpec,
    encode: Callable[[str], NoteTokens],
    check: Callable[[], None] = unlimited,
) -> list[Part]:
    """All parts of a request whose features are `arrays`.

    The weight is left out of the tabular data alone: rates that it converted stay. `encode`: one
    note. `check` is called before each part; what it raises ends the search.
    """
    of_modality: dict[Modality, Callable[[], Iterator[Part]]] = {
        "tabular": lambda: _tabular(payload, spec),
        "series": lambda: _series(payload, arrays["series"], spec),
        "notes": lambda: _notes(payload, spec, encode),
        "image": lambda: _image(payload, spec),
    }
    found = []
    for modality in arrays:
        for part in of_modality[modality]():
            check()
            found.append(part)
    return found


def most_parts(payload: Payload, spec: FeatureSpec) -> dict[Modality, int]:
    """No more parts than these, by modality: known before features are made."""
    treatments = min(len(payload.treatments), len(spec.treatments))
    passages = min(MOST_PASSAGES, sum(len(note.text) for note in payload.notes) // 2 + 1)
    return {
        "tabular": 0 if payload.tabular is None else len(_TABULAR),
        "series": min(len(payload.series), len(spec.variables)) + treatments,
        "notes": passages if payload.notes else 0,
        "image": min(len(payload.images), 1),
    }


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


def _tabular(payload: Payload, spec: FeatureSpec) -> Iterator[Part]:
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
    courses = _pointers("treatments", treatment_indices(payload.treatments, spec))
    for i in measured.tolist():
        variable, row = spec.variables[i], _shown(statistics[i])
        fields = {
            "kind": "series",
            "name": variable.name,
            "display": variable.display,
            **_pointed(series[i]),
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
            **_pointed(courses[i]),
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


def _pointed(pointers: Iterable[str]) -> dict[str, Any]:
    """The fields of a part that say what of the request it is."""
    found = list(pointers)
    return {"pointers": found[:MOST_POINTERS]} | _told(
        "further_pointers", max(0, len(found) - MOST_POINTERS) or None
    )


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
    """The time so many hours before, to the second: hours are kept in single precision.

    In the zone of `as_of`, unless it is before year 1 there.
    """
    ago = timedelta(seconds=round(hours * 3600))
    try:
        return (as_of - ago).isoformat()
    except OverflowError:
        east = timezone(timedelta(hours=23, minutes=59))  # where year 1 begins first
        earliest = datetime.min.replace(tzinfo=east)
        return (earliest + max(as_of - earliest - ago, timedelta())).isoformat()


# ------------------------------------------------------------------------------------------- notes


@dataclass(frozen=True)
class _Passage:
    """The characters [start, stop) of a note. `whole`: nothing else is in the note."""

    note: int
    start: int
    stop: int
    whole: bool


def _notes(
    payload: Payload, spec: FeatureSpec, encode: Callable[[str], NoteTokens]
) -> Iterator[Part]:
    """Passages of notes; what is left is not read anew (`NoteTokens.without`)."""
    texts = {i: note_text(payload.notes[i].text) for i in notes_in_window(payload, spec)}
    texts = {i: one for i, one in texts.items() if one.text.strip()}
    tokens = {i: encode(one.text) for i, one in texts.items()}
    for group in _groups({i: texts[i].text for i in sorted(texts)}):
        gone = {one.note: one for one in group}
        left = [
            found.ids if i not in gone else found.without(gone[i].start, gone[i].stop)
            for i, found in tokens.items()
            if i not in gone or not gone[i].whole
        ]
        arrays: dict[str, Array] | None = {"tokens": np.concatenate(left)} if left else None
        yield Part("notes", _note_fields(payload, group, texts), arrays)


def _note_fields(
    payload: Payload, group: Sequence[_Passage], texts: Mapping[int, NoteText]
) -> dict[str, Any]:
    notes = [payload.notes[one.note] for one in group]
    kinds = {note.kind for note in notes}
    fields = {
        "kind": "note",
        "name": kinds.pop() if len(kinds) == 1 else "note",
        **_pointed(f"/notes/{one.note}/text" for one in group),
        "time": max(note.time for note in notes).isoformat(),
    }
    if len(group) > 1:
        return fields | {"display": f"{len(group)} notes, {fields['name']}"}
    start, end = texts[group[0].note].as_sent(group[0].start, group[0].stop)
    return fields | {"display": f"Note, {fields['name']}", "start": start, "end": end}


def _groups(texts: Mapping[int, str]) -> list[list[_Passage]]:
    """At most MOST_PASSAGES groups, which hold all of all notes: a passage, or whole notes.

    A passage has as many sentences as make a MOST_PASSAGES-th of all text, and ends with its note.
    If these are too many, a short rest joins the passage before it, and short notes are together.
    """
    enough = sum(map(len, texts.values())) / MOST_PASSAGES
    of_note = [list(_passages(i, text, enough)) for i, text in texts.items()]
    if sum(map(len, of_note)) <= MOST_PASSAGES:
        return [[one] for passages in of_note for one in passages]
    groups: list[list[_Passage]] = []
    short: list[_Passage] = []
    for passages in of_note:
        last = passages.pop()
        if last.stop - last.start >= enough:
            passages.append(last)
        elif passages:
            before = passages.pop()
            passages.append(replace(before, stop=last.stop, whole=not passages))
        else:
            short.append(last)
            if sum(one.stop for one in short) >= enough:
                groups.append(short)
                short = []
        groups += [[one] for one in passages]
    return [*groups, short] if short else groups


def _passages(note: int, text: str, enough: float) -> Iterator[_Passage]:
    """Whole sentences that together have `enough` characters, to the end of the note."""
    end = len(text.rstrip())
    start, blank = 0, True
    for found in _SENTENCE.finditer(text):
        blank = blank and not found[0].strip()
        last = found.end() >= end
        if not blank and (last or found.end() - start >= enough):
            stop = len(text) if last else found.end()
            yield _Passage(note, start, stop, whole=last and start == 0)
            start, blank = stop, True
        if last:
            break


# ------------------------------------------------------------------------------------------- image


def _image(payload: Payload, spec: FeatureSpec) -> Iterator[Part]:
    """The film that is read."""
    film = film_read(payload, spec)
    if film is None:
        return
    fields = {
        "kind": "image",
        "name": CHEST_XRAY,
        "display": "Chest X-ray",
        "pointers": [f"/images/{film}"],
        "time": payload.images[film].time.isoformat(),
    }
    yield Part("image", fields, None)


def _told(name: str, value: object) -> dict[str, object]:
    return {} if value is None else {name: value}
